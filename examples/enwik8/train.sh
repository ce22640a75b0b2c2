#!/usr/bin/env bash
# Train a language model of the SRU++ or the SRU paper on enwik8; interrupted, it goes on where it
# was saved.
# MODEL  SRU++: small small_k2 small_k5 small_k10 small_none base base_k5 large large_r8
#        SRU: sru_6 sru_10 sru_6_proj sru_8_proj sru_12_proj (default small)
# GPUS   processes, one a GPU (default: all GPUs); the streams of an update are shared out among them
# Arguments are passed on to fairseq-train.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

MODEL=${MODEL:-small}
case $MODEL in # streams x segment, learning rate: SRU++, tables 2 and 11; SRU, section 4.4
  small*) streams=24 segment=512 lr=2.5e-4 ;;
  base*) streams=32 segment=1024 lr=3e-4 ;;
  large*) streams=64 segment=1024 lr=4e-4 ;;
  sru_6) streams=128 segment=100 lr=4.28e-4 ;; # 3 / sqrt(hidden size x warm-up)
  sru_10) streams=128 segment=100 lr=4.94e-4 ;;
  sru_6_proj) streams=128 segment=100 lr=2.94e-4 ;;
  sru_8_proj) streams=128 segment=100 lr=3.03e-4 ;;
  sru_12_proj) streams=64 segment=256 lr=3.71e-4 ;;
  *) echo "MODEL=$MODEL: see the top of $0" >&2; exit 1 ;;
esac

case $MODEL in
  sru_*)
    recipe=(--arch "sru_lm_enwik8_${MODEL#sru_}"
      --optimizer adam --adam-betas "(0.9, 0.999)" --weight-decay 1e-7 --clip-norm 0.3
      --lr-scheduler inverse_sqrt --warmup-updates 32000 --max-epoch 100)
    ;;
  *)
    recipe=(--arch "srupp_lm_enwik8_$MODEL"
      --optimizer radam --weight-decay 0.1 --clip-norm 1.0
      --lr-scheduler cosine --warmup-updates 16000 --max-update 400000)
    ;;
esac

train_lm "$MODEL" $streams --unit character --tokens-per-sample $segment --lr $lr \
  "${recipe[@]}" "$@"
