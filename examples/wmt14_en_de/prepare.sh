#!/usr/bin/env bash
# English-German text -> joint pieces -> fairseq-preprocess with one dictionary.
# WMT14       folder of {train,valid,test}.{en,de}: a sentence a line, not tokenised
# VOCABULARY  number of pieces (default 32000)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

VOCABULARY=${VOCABULARY:-32000}
SOURCE_LANGUAGE=en TARGET_LANGUAGE=de WORKERS=$(nproc)

corpus() {
  mkdir "$1"
  local part language
  for part in train valid test; do
    for language in en de; do
      [[ -e ${WMT14:-}/$part.$language ]] || {
        echo "${WMT14:-}/$part.$language is missing: set WMT14 to a folder that holds it" >&2
        return 1
      }
      ln -s "$(realpath "$WMT14/$part.$language")" "$1/$part.$language"
    done
  done
}

once "$OUT/corpus" corpus
once "$OUT/pieces" pieces
once "$OUT/binary" binary
