#!/usr/bin/env bash
# Average the last checkpoints, translate test_2016_flickr with beam 5, score, draw.
# AVERAGE: how many checkpoints (default 5)
# RUN: folder of checkpoints/ and train.log (default $OUT; transformer_sru.sh makes others)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

RUN=${RUN:-$OUT}

once "$RUN/model.pt" average "$RUN/checkpoints" "${AVERAGE:-5}"
once "$RUN/generated.txt" generate "$RUN/model.pt" --beam 5 --max-tokens 8000 --print-alignment soft
once "$RUN/translation.en" translations "$RUN/generated.txt"
once "$RUN/bleu.json" score "$OUT/corpus/test.en" "$RUN/translation.en" -m bleu chrf
once "$RUN/curve.png" curve "$RUN/train.log"
once "$RUN/alignment.png" alignment "$RUN/generated.txt"

echo
show_scores "$RUN/bleu.json"
summary "$RUN"
