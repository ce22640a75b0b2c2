#!/usr/bin/env bash
# Average the last checkpoints of a model, translate both test sets with beam 5, score, draw.
# MODEL: see train.sh (default srupp)
# AVERAGE: how many checkpoints (default 5)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

average() {
  PYTHONPATH=$ROOT "$PYTHON" -m fairseq_sru.average_checkpoints \
    --inputs "$2" --num-update-checkpoints "$3" --output "$1"
}

RUN=$OUT/${MODEL:-srupp}

once "$RUN/model.pt" average "$RUN/checkpoints" "${AVERAGE:-5}"
for subset in test test1; do # Tatoeba, Multi30k
  once "$RUN/$subset.txt" generate "$RUN/model.pt" --gen-subset "$subset" --beam 5 --max-tokens 8000
  once "$RUN/$subset.en" translations "$RUN/$subset.txt"
  once "$RUN/$subset.json" score "$OUT/corpus/$subset.en" "$RUN/$subset.en" -m bleu chrf
  cat "$RUN/$subset.json"
done
once "$RUN/curve.png" curve "$RUN/train.log"
