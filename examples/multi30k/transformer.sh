#!/usr/bin/env bash
# The peer: fairseq's own Transformer of the same size on the same batches of text.
# UPDATES: how long (default 1500). Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

step transformer "$PYTHON" "$ROOT/examples/clocked_train.py" "$OUT/binary" \
  --user-dir "$ROOT/fairseq_sru" --arch transformer \
  --source-lang de --target-lang en \
  --encoder-layers 4 --decoder-layers 4 --encoder-attention-heads 4 --decoder-attention-heads 4 \
  --encoder-embed-dim 128 --decoder-embed-dim 128 \
  --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 \
  --share-all-embeddings --dropout 0.3 \
  --criterion fused_label_smoothed_cross_entropy --label-smoothing 0.1 \
  --optimizer adam --adam-betas '(0.9, 0.98)' \
  --lr 5e-3 --lr-scheduler inverse_sqrt --warmup-updates 800 --max-update "${UPDATES:-1500}" \
  --max-tokens 4096 --seed 1 --num-workers 0 \
  --save-dir "$OUT/checkpoints-transformer" --keep-last-epochs 5 \
  --log-format json --log-file "$OUT/transformer.log" --log-interval 50 \
  $(device) "$@"
