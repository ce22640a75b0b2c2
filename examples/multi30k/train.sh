#!/usr/bin/env bash
# Train srupp_multi30k; interrupted, it goes on from its last epoch.
# UPDATES: how long (default 10500, 40 processor minutes)
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

UPDATES=${UPDATES:-10500}
WARMUP=250

"$PYTHON" "$ROOT/benchmarks/clocked_train.py" "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --arch srupp_multi30k \
  --source-lang de --target-lang en \
  --criterion label_smoothed_cross_entropy --label-smoothing 0.1 \
  --optimizer radam --radam-betas '(0.9, 0.98)' --weight-decay 0.1 \
  --lr 3e-3 --lr-scheduler cosine --warmup-updates $WARMUP \
  --lr-period-updates $((UPDATES - WARMUP)) --max-update "$UPDATES" \
  --max-tokens 2048 --seed 1 --num-workers 0 \
  --save-dir "$OUT/checkpoints" --keep-last-epochs 5 \
  --log-format json --log-file "$OUT/train.log" --log-interval 50 --no-progress-bar \
  $(device train) "$@"
