#!/usr/bin/env bash
# Train on WikiText-2; interrupted, it goes on where it was saved.
# LEVEL    word or byte (default word)
# MODEL    srupp, or transformer: fairseq's of the same size (default srupp)
# UPDATES  how long (default: 20 epochs of words, 3 of bytes)
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

LEVEL=${LEVEL:-word}
MODEL=${MODEL:-srupp}

case $LEVEL in # 2,088,628 words with line ends, 10,797,148 bytes
  word)
    streams=32 segment=70 updates=18640 warmup=500
    transformer="--decoder-embed-dim 256 --decoder-input-dim 256 --decoder-output-dim 256
      --decoder-ffn-embed-dim 1024 --decoder-layers 3
      --decoder-attention-heads 4 --dropout 0.3"
    ;;
  byte)
    streams=16 segment=256 updates=7900 warmup=400
    transformer="--decoder-embed-dim 200 --decoder-input-dim 200 --decoder-output-dim 200
      --decoder-ffn-embed-dim 800 --decoder-layers 4
      --decoder-attention-heads 4 --dropout 0.1"
    ;;
  *) echo "LEVEL=$LEVEL: word or byte" >&2; exit 1 ;;
esac
UPDATES=${UPDATES:-$updates}

options=(
  --clip-norm 1.0 --max-update "$UPDATES" --lr-scheduler cosine --warmup-updates $warmup
  --lr-period-updates $((UPDATES - warmup)) --seed 1 --num-workers 0
  --save-dir "$OUT/$LEVEL-$MODEL" --keep-last-epochs 1
  --log-format json --log-file "$OUT/$LEVEL-$MODEL.log" --log-interval 50 --no-progress-bar
)
case $MODEL-$LEVEL in
  srupp-word) arch=srupp_lm_wikitext2 unit=word lr=4e-3 ;;
  srupp-byte) arch=srupp_lm_bytes unit=character lr=4e-3 ;;
esac
case $MODEL in
  srupp)
    options+=(--user-dir "$ROOT/fairseq_sru" --task srupp_language_modeling --arch $arch
      --unit $unit --tokens-per-sample $segment --batch-size $streams
      --optimizer radam --weight-decay 0.1 --lr $lr)
    ;;
  transformer) # as many tokens an update, of windows four times as long: it has no memory
    options+=(--user-dir "$ROOT/fairseq_sru" --task language_modeling --arch transformer_lm
      --tokens-per-sample $((4 * segment)) --batch-size $((streams / 4)) $transformer
      --share-decoder-input-output-embed
      --optimizer adam --adam-betas "(0.9, 0.98)" --weight-decay 0.01 --lr 1e-3)
    ;;
  *) echo "MODEL=$MODEL: srupp or transformer" >&2; exit 1 ;;
esac

fairseq-train "$OUT/$LEVEL" "${options[@]}" $(device train) "$@"
