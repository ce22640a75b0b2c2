#!/usr/bin/env bash
# Train srupp_multi30k and fairseq's Transformer of the same size for the same time on a GPU, and
# score both, in less than ten minutes. Both multiply in bfloat16. See README.md.
# MINUTES   of training, each (default 2.3)
# UPDATES   of srupp_multi30k, whose learning rate is 0 then (default: the recipe's)
# MULTI30K  folder of Multi30k's .gz files (default runs/multi30k-raw)
# WORK      checkpoints and translations (default runs/gpu-multi30k)
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

export MULTI30K=${MULTI30K:-$ROOT/runs/multi30k-raw}
MINUTES=${MINUTES:-2.3}
WORK=${WORK:-$ROOT/runs/gpu-multi30k}
PEER=$WORK/transformer # its checkpoints as evaluate.sh expects them
RECIPE=examples/multi30k

options=(--stop-time-hours "$(awk "BEGIN { print $MINUTES / 60 }")")
if [[ $DEVICE == cpu ]]; then
  options=(--train-subset test --max-epoch 1)
  export AVERAGE=1
fi
rm -rf "$WORK"
mkdir -p "$PEER"
ln -s ../corpus ../binary "$PEER"
ln -s ../checkpoints-transformer "$PEER/checkpoints"
ln -s ../transformer.log "$PEER/train.log"

step install 100 bash "$HERE/install.sh"
measure machine 10 "$PY" "$HERE/machine.py"
ours=(env "OUT=$WORK" "PYTHON=$PY")
peer=(env "OUT=$PEER" "PYTHON=$PY")
step prepare 40 "${ours[@]}" bash $RECIPE/prepare.sh
if [[ $DEVICE == cpu ]]; then # few sentences to train on and to translate
  sed -i '21,$d' "$WORK"/{corpus,pieces}/test.{de,en}
  rm -r "$WORK/binary"
  step shorten 40 "${ours[@]}" bash $RECIPE/prepare.sh
fi
step train 155 "${ours[@]}" bash $RECIPE/train.sh "${options[@]}"
step transformer 155 "${ours[@]}" UPDATES=1000000 bash $RECIPE/transformer.sh \
  --bf16 "${options[@]}"
step evaluate 35 "${ours[@]}" bash $RECIPE/evaluate.sh
step evaluate-transformer 35 "${peer[@]}" bash $RECIPE/evaluate.sh
measure multi30k 10 "$PY" "$HERE/multi30k.py" "$WORK" "$PEER"
cp "$WORK/train.log" "$WORK/transformer.log" "$OUT"
finish benchmarks/gpu/rest.sh
