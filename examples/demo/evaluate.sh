#!/usr/bin/env bash
# Translate the test set, score it, draw the learning curve and the attention, show some of it.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

once "$OUT/generated.txt" generate "$OUT/model.pt" --beam 5 --max-tokens 4096 --print-alignment soft
once "$OUT/translation.en" translations "$OUT/generated.txt"
once "$OUT/bleu.json" score "$OUT/corpus/test.en" "$OUT/translation.en" -m bleu
once "$OUT/curve.png" curve srupp_demo="$OUT/train.log"
once "$OUT/alignment.png" alignment "$OUT/generated.txt"
once "$OUT/exported" exported "$OUT/model.pt"

echo
show_scores "$OUT/bleu.json"
summary "$OUT"
