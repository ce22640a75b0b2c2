#!/usr/bin/env bash
# Generated corpus -> sentencepiece -> fairseq-preprocess. TRAIN, VALID, TEST: numbers of pairs;
# VOCABULARY: of pieces.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

VOCABULARY=${VOCABULARY:-2000}

corpus() {
  "$PYTHON" "$HERE/corpus.py" "$1" \
    --train "${TRAIN:-10000}" --valid "${VALID:-500}" --test "${TEST:-500}"
}

once "$OUT/corpus" corpus
once "$OUT/pieces" pieces
once "$OUT/binary" binary
