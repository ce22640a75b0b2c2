#!/usr/bin/env bash
# Train a language model of the SRU++ paper on WikiText-103; interrupted, it goes on where it was
# saved.
# MODEL  base large large_r8 large_r8_k5 (default base)
# GPUS   processes, one a GPU (default: all GPUs); the 64 streams are shared out among them
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

MODEL=${MODEL:-base}
GPUS=${GPUS:-$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
case $MODEL in # table 12
  base) segment=768 ;;
  large*) segment=1024 ;;
  *) echo "MODEL=$MODEL: see the top of $0" >&2; exit 1 ;;
esac
((64 % GPUS == 0)) || { echo "GPUS=$GPUS does not divide 64 streams" >&2; exit 1; }

# the adaptive loss needs legacy_ddp, even on one GPU
fairseq-train "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --arch "srupp_lm_wiki103_$MODEL" \
  --task srupp_language_modeling --criterion adaptive_loss --ddp-backend legacy_ddp \
  --tokens-per-sample $segment --batch-size $((64 / GPUS)) \
  --distributed-world-size "$GPUS" --amp \
  --optimizer radam --weight-decay 0.1 --clip-norm 1.0 \
  --lr 3e-4 --lr-scheduler cosine --warmup-updates 16000 --max-update 400000 \
  --validate-interval-updates 8000 --save-interval-updates 8000 --keep-interval-updates 1 \
  --no-epoch-checkpoints --save-dir "$OUT/$MODEL" --seed 1 --num-workers 1 \
  --log-format json --log-file "$OUT/$MODEL.log" --log-interval 200 --no-progress-bar "$@"
