#!/usr/bin/env bash
# Train a language model of the SRU++ paper on WikiText-103; interrupted, it goes on where it was
# saved.
# MODEL  base large large_r8 large_r8_k5 (default base)
# GPUS   processes, one a GPU (default: all GPUs); the 64 streams are shared out among them
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

MODEL=${MODEL:-base}
case $MODEL in # table 12
  base) segment=768 ;;
  large*) segment=1024 ;;
  *) echo "MODEL=$MODEL: see the top of $0" >&2; exit 1 ;;
esac

# the adaptive loss needs legacy_ddp, even on one GPU
train_lm "$MODEL" 64 --arch "srupp_lm_wiki103_$MODEL" --tokens-per-sample $segment \
  --criterion adaptive_loss --ddp-backend legacy_ddp \
  --optimizer radam --weight-decay 0.1 --clip-norm 1.0 \
  --lr 3e-4 --lr-scheduler cosine --warmup-updates 16000 --max-update 400000 "$@"
