#!/usr/bin/env bash
# Bits per character on the test set: every byte sees the CONTEXT (default 3072) bytes before it.
# MODEL  as for train.sh. Arguments are passed on to fairseq-eval-lm.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

eval_lm "test set" "$OUT/binary" "$OUT/${MODEL:-small}/checkpoint_best.pt" --task srupp_language_modeling \
  --batch-size 1 --eval-segment 1024 --eval-context "${CONTEXT:-3072}" "$@"
