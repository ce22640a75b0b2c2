#!/usr/bin/env bash
# Transformer with SRU in place of its feed-forward layers, or with MODEL=transformer the plain one
# of the same size: same batches, same optimizer.
# Both go to $OUT/$MODEL: evaluate by RUN=runs/multi30k/transformer_sru bash evaluate.sh
# UPDATES: how long (default 2000). Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

MODEL=${MODEL:-transformer_sru}
UPDATES=${UPDATES:-2000}
case $MODEL in
  transformer_sru) arch=(--arch transformer_sru_multi30k) ;;
  transformer)
    arch=(--arch transformer --encoder-layers 4 --decoder-layers 4
      --encoder-attention-heads 4 --decoder-attention-heads 4
      --encoder-embed-dim 128 --decoder-embed-dim 128
      --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256
      --share-all-embeddings --dropout 0.2)
    ;;
  *) echo "MODEL=$MODEL: transformer_sru or transformer" >&2; exit 1 ;;
esac

mkdir -p "$OUT/$MODEL"
train "$OUT/$MODEL/train.log" "$OUT/binary" "${arch[@]}" --source-lang de --target-lang en \
  --criterion fused_label_smoothed_cross_entropy --label-smoothing 0.1 \
  --encoder-normalize-before --decoder-normalize-before \
  --optimizer radam --radam-betas '(0.9, 0.98)' --weight-decay 0.1 --radam-decay matrices \
  --lr 7e-3 $(cosine 200 "$UPDATES") --max-tokens 2048 --num-workers 0 \
  --save-dir "$OUT/$MODEL/checkpoints" --keep-last-epochs 5 --log-interval 50 $(device train) "$@"
