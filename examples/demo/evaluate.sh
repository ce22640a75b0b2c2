#!/usr/bin/env bash
# Translate the test set, score it, show some of it, draw the learning curve and the attention.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

once "$OUT/generated.txt" generate "$OUT/model.pt" --beam 5 --max-tokens 4096 --print-alignment soft
once "$OUT/translation.en" translations "$OUT/generated.txt"
once "$OUT/bleu.json" score "$OUT/corpus/test.en" "$OUT/translation.en" -m bleu
once "$OUT/curve.png" curve srupp_demo="$OUT/train.log"
once "$OUT/alignment.png" alignment "$OUT/generated.txt"

echo
paste "$OUT/corpus/test.de" "$OUT/corpus/test.en" "$OUT/translation.en" |
  awk -F '\t' 'NR % 60 == 20 { print "source     " $1 "\nreference  " $2 "\nours       " $3 "\n" }'
cat "$OUT/bleu.json"
