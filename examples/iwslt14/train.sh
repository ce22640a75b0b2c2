#!/usr/bin/env bash
# Train as the SRU++ paper does (appendix B); interrupted, it goes on from its last epoch.
# UPDATES: how long (default 64000). Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

mkdir -p "$RUN"
train "$RUN/train.log" "$OUT/binary" --arch "$ARCH" --dropout 0.1 \
  --source-lang de --target-lang en $LIMITS \
  --criterion cross_entropy \
  --optimizer radam --weight-decay 0.1 --clip-norm 5 \
  --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 10000 \
  --batch-size 128 --max-update "${UPDATES:-64000}" \
  --save-dir "$RUN/checkpoints" --keep-last-epochs 10 --log-interval 100 $(device train) "$@"
