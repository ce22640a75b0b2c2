#!/usr/bin/env bash
# WikiText-103 -> fairseq-preprocess, one token a word and one a line end.
# WIKITEXT103  folder of wiki.{train,valid,test}.tokens; downloaded if it is not set
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

WORKERS=${WORKERS:-$(nproc)}
URL=https://wikitext.smerity.com/wikitext-103-v1.zip

corpus() {
  mkdir "$1"
  local folder=${WIKITEXT103:-$1/wikitext-103}
  if [[ -z ${WIKITEXT103:-} ]]; then
    curl --fail --silent --show-error --location "$URL" --output "$1/zip" || {
      echo "cannot download $URL: set WIKITEXT103 to a folder of wiki.{train,valid,test}.tokens" >&2
      return 1
    }
    "$PYTHON" -m zipfile --extract "$1/zip" "$1"
    rm "$1/zip"
  fi
  for split in train valid test; do
    cp "$folder/wiki.$split.tokens" "$1/$split"
  done
}

once "$OUT/corpus" corpus
once "$OUT/binary" words
