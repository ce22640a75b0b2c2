#!/usr/bin/env bash
# Generated corpus -> sentencepiece -> fairseq-preprocess. TRAIN, VALID, TEST: numbers of pairs.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

corpus() {
  "$PYTHON" "$HERE/corpus.py" "$1" \
    --train "${TRAIN:-10000}" --valid "${VALID:-500}" --test "${TEST:-500}"
}

pieces() {
  mkdir "$1"
  "$PYTHON" "$ROOT/examples/pieces.py" "$OUT/corpus" "$1" --vocabulary "${VOCABULARY:-2000}"
}

binary() {
  fairseq-preprocess --source-lang de --target-lang en --joined-dictionary \
    --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" --testpref "$OUT/pieces/test" \
    --destdir "$1"
}

once "$OUT/corpus" corpus
once "$OUT/pieces" pieces
once "$OUT/binary" binary
