#!/usr/bin/env bash
# WikiText-2 -> word level (fairseq-preprocess) and byte level.
# WIKITEXT2  folder of {train,valid,test}.txt.xz or wiki.{train,valid,test}.tokens
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

URL=https://wikitext.smerity.com/wikitext-2-v1.zip
WIKITEXT2=${WIKITEXT2:-$ROOT/../shared/data/wikitext-2}

corpus() {
  mkdir "$1"
  local split folder=$WIKITEXT2
  if [[ ! -d $folder ]]; then
    curl --fail --silent --show-error --location "$URL" --output "$1/zip" || {
      echo "cannot download $URL: set WIKITEXT2 to a folder of wiki.{train,valid,test}.tokens" >&2
      return 1
    }
    "$PYTHON" -m zipfile --extract "$1/zip" "$1"
    rm "$1/zip"
    folder=$1/wikitext-2
  fi
  for split in train valid test; do
    if [[ -e $folder/$split.txt.xz ]]; then
      xz -dc "$folder/$split.txt.xz" > "$1/$split"
    else
      cp "$folder/wiki.$split.tokens" "$1/$split"
    fi
  done
  (cd "$1" && md5sum --check --quiet "$HERE/MD5SUMS") || {
    echo "these are not WikiText-2's files: see the names above" >&2
    return 1
  }
}

once "$OUT/corpus" corpus
once "$OUT/word" words
once "$OUT/byte" bytes
