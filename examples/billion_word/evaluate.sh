#!/usr/bin/env bash
# Perplexity on the test set: every word sees the CONTEXT (default 96) words before it.
# MODEL  as for train.sh. Arguments are passed on to fairseq-eval-lm.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

eval_lm "test set" "$OUT/binary" "$OUT/${MODEL:-base}/checkpoint_best.pt" --task srupp_language_modeling \
  --batch-size 1 --eval-segment 256 --eval-context "${CONTEXT:-96}" "$@"
