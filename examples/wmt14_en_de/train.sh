#!/usr/bin/env bash
# Train; interrupted, it goes on from its last checkpoint.
# ARCH     transformer_sru_wmt_en_de (default), transformer_sru_wmt_en_de_5, or the base Transformer
#          they are compared with: transformer_wmt_en_de
# UPDATES  how long (default 250000)
# GPUS     how many there are; five batches of 5,120 tokens make an update on one (default 1)
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

ARCH=${ARCH:-transformer_sru_wmt_en_de}
if [[ $ARCH == transformer_wmt_en_de ]]; then # as large an embedding and output as the others'
  set -- --share-decoder-input-output-embed "$@"
fi

train "$OUT/$ARCH.log" "$OUT/binary" --arch "$ARCH" \
  --source-lang en --target-lang de --max-source-positions 256 --max-target-positions 256 \
  --skip-invalid-size-inputs-valid-test \
  --criterion fused_label_smoothed_cross_entropy --label-smoothing 0.1 --dropout 0.1 \
  --attention-dropout 0.1 \
  --optimizer adam --adam-betas '(0.9, 0.98)' --adam-eps 1e-9 \
  --lr 7e-4 --lr-scheduler inverse_sqrt --warmup-updates 16000 --warmup-init-lr 1e-7 \
  --max-tokens 5120 --update-freq "$(((5 + ${GPUS:-1} - 1) / ${GPUS:-1}))" \
  --max-update "${UPDATES:-250000}" --save-dir "$OUT/$ARCH" --keep-last-epochs 10 \
  --log-interval 100 $(device train) "$@"
