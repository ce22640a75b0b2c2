#!/usr/bin/env bash
# Translate the test set, score it, draw the learning curve and the attention, show some of it.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

# exported TARGET: a folder for fairseq_sru.translate.
exported() {
  PYTHONPATH=$ROOT "$PYTHON" -m fairseq_sru.export "$OUT/model.pt" "$1" \
    --bpe sentencepiece --sentencepiece-model "$OUT/pieces/sentencepiece.model"
}

once "$OUT/generated.txt" generate "$OUT/model.pt" --beam 5 --max-tokens 4096 --print-alignment soft
once "$OUT/translation.en" translations "$OUT/generated.txt"
once "$OUT/bleu.json" score "$OUT/corpus/test.en" "$OUT/translation.en" -m bleu
once "$OUT/curve.png" curve srupp_demo="$OUT/train.log"
once "$OUT/alignment.png" alignment "$OUT/generated.txt"
once "$OUT/exported" exported

echo
show_scores "$OUT/bleu.json"
summary "$OUT"
echo "a sentence of your own:"
echo "  echo 'Die Frau liest.' | ${PYTHON#"$PWD"/} -m fairseq_sru.translate ${OUT#"$PWD"/}/exported"
