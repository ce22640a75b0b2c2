#!/usr/bin/env bash
# Train on WikiText-2; interrupted, it goes on where it was saved.
# LEVEL    word or byte (default word)
# MODEL    srupp, or transformer: fairseq's of the same size (default srupp)
# UPDATES  how long (default: 10 epochs of words, 0.8 of bytes)
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

LEVEL=${LEVEL:-word}
MODEL=${MODEL:-srupp}

# An update reads as many tokens in both models: of streams, or of longer windows for the
# Transformer, which has no memory.
case $LEVEL in # 2,088,628 words with line ends, 10,797,148 bytes
  word)
    tokens=1120 segment=70 window=280 updates=18000 warmup=500
    options=(--criterion adaptive_loss --ddp-backend legacy_ddp)
    srupp=(--arch srupp_lm_wikitext2 --unit word --lr 2.5e-3 --weight-decay 0.1 --eval-context 70)
    bands="--adaptive-input --adaptive-input-cutoff 2000,10000 --adaptive-input-factor 1
      --adaptive-softmax-cutoff 2000,10000 --adaptive-softmax-factor 1 --tie-adaptive-weights"
    transformer=(--decoder-embed-dim 256 --decoder-input-dim 256 --decoder-output-dim 256
      --decoder-ffn-embed-dim 1792 --decoder-layers 4 --dropout 0.3 --lr 2e-3 --weight-decay 0.1 $bands)
    ;;
  byte)
    tokens=4096 segment=256 window=512 updates=2000 warmup=200
    options=()
    srupp=(--arch srupp_lm_bytes --unit character --lr 4e-3 --weight-decay 0.1 --eval-context 1024)
    transformer=(--decoder-embed-dim 200 --decoder-input-dim 200 --decoder-output-dim 200
      --decoder-ffn-embed-dim 800 --decoder-layers 4 --decoder-normalize-before --dropout 0.0
      --lr 1e-3 --weight-decay 0.1 --share-decoder-input-output-embed)
    ;;
  *) echo "LEVEL=$LEVEL: word or byte" >&2; exit 1 ;;
esac
case $MODEL in
  srupp)
    options+=(--task srupp_language_modeling "${srupp[@]}"
      --tokens-per-sample $segment --batch-size $((tokens / segment)))
    ;;
  transformer)
    options+=(--task language_modeling --arch transformer_lm --decoder-attention-heads 4
      "${transformer[@]}" --tokens-per-sample $window --batch-size $((tokens / window)))
    ;;
  *) echo "MODEL=$MODEL: srupp or transformer" >&2; exit 1 ;;
esac
UPDATES=${UPDATES:-$updates}

train "$OUT/$LEVEL-$MODEL.log" "$OUT/$LEVEL" "${options[@]}" \
  --optimizer radam --clip-norm 1.0 $(cosine $warmup "$UPDATES") \
  --save-dir "$OUT/$LEVEL-$MODEL" --keep-last-epochs 1 \
  --num-workers 0 --log-interval 50 $(device train) "$@"
