#!/usr/bin/env bash
# Multi30k -> joint BPE -> fairseq-preprocess.
# MULTI30K    folder of {train,val,test_2016_flickr}.{de,en}.gz; downloaded if it is not there
# VOCABULARY  number of pieces (default 8000)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

VOCABULARY=${VOCABULARY:-8000}

URL=https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw
MULTI30K=${MULTI30K:-$ROOT/../shared/data/multi30k}

corpus() {
  mkdir "$1"
  local part language name
  for part in train val test_2016_flickr; do
    for language in de en; do
      name=$part.$language
      if [[ -e $MULTI30K/$name.gz ]]; then
        gzip -dc "$MULTI30K/$name.gz" > "$1/$name"
      else
        curl --fail --silent --show-error --location "$URL/$name.gz" | gzip -dc > "$1/$name" || {
          echo "cannot download $URL/$name.gz: set MULTI30K to a folder that holds $name.gz" >&2
          return 1
        }
      fi
    done
  done
  (cd "$1" && sha256sum --check --quiet "$HERE/SHA256SUMS") || {
    echo "these are not Multi30k's files: see the names above" >&2
    return 1
  }
  for language in de en; do
    mv "$1/val.$language" "$1/valid.$language"
    mv "$1/test_2016_flickr.$language" "$1/test.$language"
  done
}

once "$OUT/corpus" corpus
once "$OUT/pieces" pieces
once "$OUT/binary" binary
