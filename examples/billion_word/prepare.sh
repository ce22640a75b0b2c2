#!/usr/bin/env bash
# One Billion Word Benchmark -> fairseq-preprocess with the 793,471 types that occur at least thrice.
# BILLION_WORD  the unpacked folder 1-billion-word-language-modeling-benchmark-r13output; downloaded
#               if it is not set
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

NAME=1-billion-word-language-modeling-benchmark-r13output
WORKERS=${WORKERS:-$(nproc)}
URL=http://www.statmt.org/lm-benchmark/$NAME.tar.gz

corpus() {
  mkdir "$1"
  local folder=${BILLION_WORD:-$1/$NAME}
  if [[ -z ${BILLION_WORD:-} ]]; then
    curl --fail --silent --show-error --location "$URL" | tar --extract --gzip --directory "$1" || {
      echo "cannot download $URL: set BILLION_WORD to the unpacked folder" >&2
      return 1
    }
  fi
  cat "$folder"/training-monolingual.tokenized.shuffled/news.en-* > "$1/train"
  cp "$folder"/heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050 "$1/valid"
  cp "$folder"/heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050 "$1/test"
}

once "$OUT/corpus" corpus
once "$OUT/binary" words --thresholdsrc 3
