#!/usr/bin/env bash
# Train a small SRU++ translation model; interrupted, it goes on from its last epoch.
# EPOCHS: how long. Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

if [[ ! -e $OUT/model.pt ]]; then
  train "$OUT/train.log" "$OUT/binary" --arch srupp_demo \
    --criterion fused_label_smoothed_cross_entropy --label-smoothing 0.1 \
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
    --lr 4e-3 --lr-scheduler inverse_sqrt --warmup-updates 400 \
    --max-tokens 2048 --max-epoch "${EPOCHS:-15}" --num-workers 0 \
    --save-dir "$OUT/checkpoints" --keep-last-epochs 3 --log-interval 25 $(device) "$@"
fi
once "$OUT/model.pt" average "$OUT/checkpoints" 3
