#!/usr/bin/env bash
# IWSLT'14 German-English -> tokens -> joint BPE -> fairseq-preprocess with a dictionary a side.
# IWSLT14     the archive de-en.tgz, or a folder that holds it or what it unpacks to
# VOCABULARY  number of pieces (default 14000 for PROTOCOL=paper, 10000 for PROTOCOL=fairseq)
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

IWSLT14=${IWSLT14:-$ROOT/../shared/data/iwslt14}
[[ $PROTOCOL == paper ]] && PIECES=14000 || PIECES=10000

corpus() {
  "$PYTHON" "$HERE/corpus.py" "$PROTOCOL" "$IWSLT14" "$1"
}

pieces() {
  mkdir "$1"
  "$PYTHON" "$ROOT/examples/pieces.py" "$OUT/corpus" "$1" \
    --vocabulary "${VOCABULARY:-$PIECES}" --normalization identity
}

binary() {
  fairseq-preprocess --source-lang de --target-lang en \
    --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" --testpref "$OUT/pieces/test" \
    --destdir "$1"
}

once "$OUT/corpus" corpus
once "$OUT/pieces" pieces
once "$OUT/binary" binary
