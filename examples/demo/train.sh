#!/usr/bin/env bash
# Train a small SRU++ translation model; interrupted, it goes on from its last epoch.
# EPOCHS: how long. Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

options=("$@")

model() {
  fairseq-train "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --arch srupp_demo \
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1 \
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
    --lr 4e-3 --lr-scheduler inverse_sqrt --warmup-updates 400 \
    --max-tokens 2048 --max-epoch "${EPOCHS:-15}" --seed 1 --num-workers 0 \
    --save-dir "$OUT/checkpoints" --keep-last-epochs 3 \
    --log-format json --log-file "$OUT/train.log" --log-interval 25 \
    $(device) ${options[@]+"${options[@]}"}
  PYTHONPATH=$ROOT "$PYTHON" -m fairseq_sru.average_checkpoints \
    --inputs "$OUT/checkpoints" --num-epoch-checkpoints 3 --output "$1"
}

once "$OUT/model.pt" model
