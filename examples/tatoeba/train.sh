#!/usr/bin/env bash
# Train one model into $OUT/MODEL; interrupted, it goes on from its last checkpoint.
# MODEL    srupp (20M, default), transformer_20m (equal size) or transformer (transformer_iwslt_de_en)
# UPDATES  how long (default 8000): give each model as many as fit the same processor time
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

MODEL=${MODEL:-srupp}
UPDATES=${UPDATES:-8000}
TRANSFORMER="--arch transformer_iwslt_de_en --encoder-normalize-before --decoder-normalize-before"
case $MODEL in
  srupp)
    options=(--arch srupp_iwslt --scale-embeddings --alpha-init 1 --highway-bias -1 --num-heads 4
      --embedding-dropout 0.1 --output-dropout 0.1 --lr 1.5e-3)
    ;;
  transformer_20m)
    options=($TRANSFORMER --encoder-layers 8 --decoder-layers 8
      --encoder-embed-dim 256 --decoder-embed-dim 256 --encoder-ffn-embed-dim 1024
      --decoder-ffn-embed-dim 1024 --lr 3e-3)
    ;;
  transformer)
    options=($TRANSFORMER --lr 1.5e-3)
    ;;
  *) echo "MODEL=$MODEL: srupp, transformer_20m or transformer" >&2; exit 1 ;;
esac

mkdir -p "$OUT/$MODEL"
[[ $(device) != --cpu ]] || export ATTENTION=math # faster there for short sentences
train "$OUT/$MODEL/train.log" "$OUT/binary" "${options[@]}" --source-lang de --target-lang en \
  --share-all-embeddings --dropout 0.2 \
  --criterion fused_label_smoothed_cross_entropy --label-smoothing 0.1 \
  --optimizer radam --radam-decay matrices --radam-betas '(0.9, 0.98)' --weight-decay 0.1 \
  $(cosine $((UPDATES < 5000 ? UPDATES / 10 : 500)) "$UPDATES") --max-tokens 2048 --num-workers 0 \
  --save-dir "$OUT/$MODEL/checkpoints" --no-epoch-checkpoints \
  --save-interval-updates $(((UPDATES + 24) / 25)) --keep-interval-updates 5 --log-interval 25 \
  $(device train) "$@"
