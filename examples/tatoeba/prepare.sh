#!/usr/bin/env bash
# Tatoeba and Multi30k, about 190,000 pairs -> joint BPE -> fairseq-preprocess.
# TATOEBA     deu-eng.tsv.xz: English, tab, German
# MULTI30K    see ../multi30k/prepare.sh
# VOCABULARY  number of pieces (default 10000)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

VOCABULARY=${VOCABULARY:-10000}
TATOEBA=${TATOEBA:-$ROOT/../shared/data/tatoeba/deu-eng.tsv.xz}

[[ -e $TATOEBA ]] || {
  echo "no $TATOEBA: unpack deu-eng.zip of www.manythings.org/anki, \`cut -f 1,2 deu.txt | xz > deu-eng.tsv.xz\`," \
    "and set TATOEBA to that file" >&2
  exit 1
}

corpus() {
  mkdir "$1"
  PYTHONPATH=$ROOT "$PYTHON" "$HERE/corpus.py" "$TATOEBA" "$OUT/multi30k/corpus" "$1"
}

binary() {
  fairseq-preprocess --joined-dictionary --source-lang de --target-lang en \
    --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" \
    --testpref "$OUT/pieces/test,$OUT/pieces/test1" --destdir "$1"
}

OUT=$OUT/multi30k bash "$ROOT/examples/multi30k/prepare.sh"
once "$OUT/corpus" corpus
once "$OUT/pieces" pieces
once "$OUT/binary" binary
