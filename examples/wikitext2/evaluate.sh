#!/usr/bin/env bash
# Loss and perplexity on the test set; of bytes, "Loss (base 2)" is bits per character.
# LEVEL, MODEL  as for train.sh
# CONTEXT       tokens that a token sees before itself; of the Transformer, its window (default 280
#               words; 1024 bytes, 512 of the Transformer)
# Arguments are passed on to fairseq-eval-lm.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

LEVEL=${LEVEL:-word}
MODEL=${MODEL:-srupp}
case $LEVEL-$MODEL in
  word-*) context=280 ;;
  byte-transformer) context=512 ;;
  byte-*) context=1024 ;;
  *) echo "LEVEL=$LEVEL: word or byte" >&2; exit 1 ;;
esac
CONTEXT=${CONTEXT:-$context}

evaluate() {
  eval_lm "$1" "$OUT/$LEVEL" "$OUT/$LEVEL-$MODEL/checkpoint_best.pt" "${@:2}"
}

case $MODEL in
  srupp)
    evaluate "memory carried along" --task srupp_language_modeling --batch-size 1 \
      --eval-segment 256 --eval-context "$CONTEXT" "$@"
    evaluate "memory reset every $CONTEXT tokens" --task language_modeling \
      --sample-break-mode none --tokens-per-sample "$CONTEXT" --batch-size 8 "$@"
    ;;
  transformer) # each token sees at least half of the window
    evaluate "sliding window" --task language_modeling --sample-break-mode none \
      --tokens-per-sample "$CONTEXT" --context-window $((CONTEXT / 2)) --batch-size 8 "$@"
    ;;
  *) echo "MODEL=$MODEL: srupp or transformer" >&2; exit 1 ;;
esac
