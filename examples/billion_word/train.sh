#!/usr/bin/env bash
# Train a language model of the SRU++ paper on Billion Word; interrupted, it goes on where it was
# saved.
# MODEL  base large_k5 (default base)
# GPUS   processes, one a GPU (default: all GPUs); the streams of an update are shared out among them
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

MODEL=${MODEL:-base}
case $MODEL in
  base) streams=1024 ;;
  large_k5) streams=1536 ;;
  *) echo "MODEL=$MODEL: see the top of $0" >&2; exit 1 ;;
esac

# the adaptive loss needs legacy_ddp, even on one GPU
train_lm "$MODEL" $streams --arch "srupp_lm_billion_word_$MODEL" --tokens-per-sample 64 \
  --criterion adaptive_loss --ddp-backend legacy_ddp \
  --optimizer radam --weight-decay 0.1 --clip-norm 1.0 \
  --lr 2e-4 --lr-scheduler cosine --warmup-updates 16000 --max-update 800000 "$@"
