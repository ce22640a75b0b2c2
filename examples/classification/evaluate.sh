#!/usr/bin/env bash
# Classify the test set by the epoch that was best in validation; the last line is the accuracy.
# SET, FOLD, ARCH, SEED: as for train.sh
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

RUN=$DIR/${ARCH:-sru_classifier_2}-${SEED:-1}

predictions() {
  PYTHONPATH=$ROOT "$PYTHON" -m fairseq_sru.classify "$RUN/checkpoints/checkpoint_best.pt" \
    --data "$DIR/binary" --input "$DIR/corpus/test.input0" --output "$1"
}

once "$RUN/predictions.txt" predictions
paste "$DIR/corpus/test.label" "$RUN/predictions.txt" | awk -F '\t' '
  $1 == $2 { right++ }
  END { printf "accuracy %.1f, %d sentences\n", 100 * right / NR, NR }'
