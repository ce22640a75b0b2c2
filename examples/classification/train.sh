#!/usr/bin/env bash
# Train one classifier by fairseq-train; interrupted, it goes on from its last epoch.
# SET, FOLD  see settings.sh
# ARCH       architecture (default sru_classifier_2)
# EPOCHS     how long (default 20)
# SEED       (default 1)
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

ARCH=${ARCH:-sru_classifier_2}
SEED=${SEED:-1}
RUN=$DIR/$ARCH-$SEED
mkdir -p "$RUN"

train "$RUN/train.log" "$DIR/binary" --task sentence_prediction --criterion sentence_prediction \
  --arch "$ARCH" --num-classes "$(wc -l < "$DIR/binary/label/dict.txt")" --max-positions 10000 \
  --optimizer adam --lr 1e-3 --batch-size 32 --max-epoch "${EPOCHS:-20}" --seed "$SEED" \
  --best-checkpoint-metric accuracy --maximize-best-checkpoint-metric \
  --no-epoch-checkpoints --save-dir "$RUN/checkpoints" --num-workers 0 $(device) "$@"
