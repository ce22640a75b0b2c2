#!/usr/bin/env bash
# Train a language model of the SRU++ paper on Billion Word; interrupted, it goes on where it was
# saved.
# MODEL  base large_k5 (default base)
# GPUS   processes, one a GPU (default: all GPUs); the streams of an update are shared out among them
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

MODEL=${MODEL:-base}
GPUS=${GPUS:-$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
case $MODEL in
  base) streams=1024 ;;
  large_k5) streams=1536 ;;
  *) echo "MODEL=$MODEL: see the top of $0" >&2; exit 1 ;;
esac
((streams % GPUS == 0)) || { echo "GPUS=$GPUS does not divide $streams streams" >&2; exit 1; }

# the adaptive loss needs legacy_ddp, even on one GPU
fairseq-train "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --arch "srupp_lm_billion_word_$MODEL" \
  --task srupp_language_modeling --criterion adaptive_loss --ddp-backend legacy_ddp \
  --tokens-per-sample 64 --batch-size $((streams / GPUS)) \
  --distributed-world-size "$GPUS" --amp \
  --optimizer radam --weight-decay 0.1 --clip-norm 1.0 \
  --lr 2e-4 --lr-scheduler cosine --warmup-updates 16000 --max-update 800000 \
  --validate-interval-updates 8000 --save-interval-updates 8000 --keep-interval-updates 1 \
  --no-epoch-checkpoints --save-dir "$OUT/$MODEL" --seed 1 --num-workers 1 \
  --log-format json --log-file "$OUT/$MODEL.log" --log-interval 200 --no-progress-bar "$@"
