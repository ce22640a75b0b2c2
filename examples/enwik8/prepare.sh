#!/usr/bin/env bash
# enwik8 -> first 90M bytes, next 5M, last 5M -> one token a byte.
# ENWIK8  the file enwik8; downloaded if it is not set
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

URL=http://mattmahoney.net/dc/enwik8.zip

corpus() {
  mkdir "$1"
  if [[ -n ${ENWIK8:-} ]]; then
    cp "$ENWIK8" "$1/enwik8"
  else
    curl --fail --silent --show-error --location "$URL" --output "$1/enwik8.zip" || {
      echo "cannot download $URL: set ENWIK8 to the unpacked file" >&2
      return 1
    }
    "$PYTHON" -m zipfile --extract "$1/enwik8.zip" "$1"
    rm "$1/enwik8.zip"
  fi
  [[ $(wc -c < "$1/enwik8") -eq 100000000 ]] || {
    echo "$1/enwik8 has not 100,000,000 bytes: it is not enwik8" >&2
    return 1
  }
  head -c 90000000 "$1/enwik8" > "$1/train"
  tail -c 10000000 "$1/enwik8" | head -c 5000000 > "$1/valid"
  tail -c 5000000 "$1/enwik8" > "$1/test"
}

once "$OUT/corpus" corpus
once "$OUT/binary" bytes
