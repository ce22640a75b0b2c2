#!/usr/bin/env bash
# Train a language model of the SRU++ paper on enwik8; interrupted, it goes on where it was saved.
# MODEL  small small_k2 small_k5 small_k10 small_none base base_k5 large large_r8 (default small)
# GPUS   processes, one a GPU (default: all GPUs); the streams of an update are shared out among them
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

MODEL=${MODEL:-small}
GPUS=${GPUS:-$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
case $MODEL in # streams x segment, learning rate: tables 2 and 11
  small*) streams=24 segment=512 lr=2.5e-4 ;;
  base*) streams=32 segment=1024 lr=3e-4 ;;
  large*) streams=64 segment=1024 lr=4e-4 ;;
  *) echo "MODEL=$MODEL: see the top of $0" >&2; exit 1 ;;
esac
((streams % GPUS == 0)) || { echo "GPUS=$GPUS does not divide $streams streams" >&2; exit 1; }

fairseq-train "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --arch "srupp_lm_enwik8_$MODEL" \
  --task srupp_language_modeling --unit character \
  --tokens-per-sample $segment --batch-size $((streams / GPUS)) \
  --distributed-world-size "$GPUS" --amp \
  --optimizer radam --weight-decay 0.1 --clip-norm 1.0 \
  --lr $lr --lr-scheduler cosine --warmup-updates 16000 --max-update 400000 \
  --validate-interval-updates 8000 --save-interval-updates 8000 --keep-interval-updates 1 \
  --no-epoch-checkpoints --save-dir "$OUT/$MODEL" --seed 1 --num-workers 1 \
  --log-format json --log-file "$OUT/$MODEL.log" --log-interval 200 --no-progress-bar "$@"
