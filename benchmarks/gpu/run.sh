#!/usr/bin/env bash
# Install, test and measure on a GPU machine without a network, in less than ten minutes: the
# limits of the steps add up to that. See README.md.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

if [[ $DEVICE == cuda ]]; then
  rounds=(--rounds 10)
  train=(--rounds 5 --batches 10)
  generate=(--rounds 5 --batch 64)
  lm=(--rounds 5 --size srupp_lm_enwik8_small --batch 24 --segment 512)
  layer=(--rounds 10)
else
  rounds=(--rounds 1)
  train=(--rounds 1 --batches 1 --max-tokens 64 --types 99 99 --precisions float32)
  generate=(--rounds 1 --batch 2 --length 4 --types 99 99 --precisions float32)
  lm=(--rounds 1 --batch 2 --segment 16 --precisions float32)
  layer=(--rounds 1 --shapes 8,2,512,128)
fi

step install 150 bash "$HERE/install.sh"
step tests 150 "$PY" -m pytest -q -rs --durations 5 tests/test_gpu.py
measure recurrence 60 "$PY" benchmarks/recurrence.py "${rounds[@]}"
measure attention 40 "$PY" benchmarks/attention.py "${rounds[@]}"
measure train 60 "$PY" benchmarks/train.py "${train[@]}"
measure generate 50 "$PY" benchmarks/generate.py "${generate[@]}"
measure lm 40 "$PY" benchmarks/lm.py "${lm[@]}"
measure layer 30 "$PY" benchmarks/layer.py "${layer[@]}"
finish "$OUT"/{recurrence,attention,train,generate,lm,layer}.jsonl
