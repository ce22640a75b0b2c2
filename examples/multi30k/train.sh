#!/usr/bin/env bash
# Train srupp_multi30k; interrupted, it goes on from its last epoch.
# UPDATES: how long (default 10500, 40 processor minutes)
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

UPDATES=${UPDATES:-10500}

train "$OUT/train.log" "$OUT/binary" --arch srupp_multi30k --source-lang de --target-lang en \
  --criterion fused_label_smoothed_cross_entropy --label-smoothing 0.1 \
  --optimizer radam --radam-betas '(0.9, 0.98)' --weight-decay 0.1 \
  --lr 3e-3 $(cosine 250 "$UPDATES") --max-tokens 2048 --num-workers 0 \
  --save-dir "$OUT/checkpoints" --keep-last-epochs 5 --log-interval 50 $(device train) "$@"
