#!/usr/bin/env bash
# Install, test and measure on a GPU machine without a network, in nine minutes: the limits of the
# steps add up to that. What says most comes first. See README.md.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

if [[ $DEVICE == cuda ]]; then
  sanitizer=(compute-sanitizer --error-exitcode 1 --tool)
  memcheck=("${sanitizer[@]}" memcheck)
  racecheck=("${sanitizer[@]}" racecheck)
  profile=("$HERE/profile.py")
  kernels=(--rounds 10)
  peers=(--rounds 3)
  train=(--rounds 3 --batches 10)
  generate=(--rounds 3 --batch 64)
  lm=(--rounds 3 --size srupp_lm_enwik8_small --batch 24 --segment 512)
  layer=(--rounds 10)
else
  memcheck=()
  racecheck=()
  profile=(benchmarks/recurrence_kernels.py --once)
  kernels=(--rounds 1 --shapes 8,2,64)
  peers=(--rounds 1)
  train=(--rounds 1 --batches 1 --max-tokens 64 --types 99 99 --precisions float32)
  generate=(--rounds 1 --batch 2 --length 4 --types 99 99 --precisions float32)
  lm=(--rounds 1 --batch 2 --segment 16 --precisions float32)
  layer=(--rounds 1 --shapes 8,2,512,128)
fi
FEW="test_odd_sizes or test_unaligned_input or (test_error_is_at_most and bfloat16)"
FEW+=" or (test_kernels and bfloat16 and 208)"
gpu_tests=("$PY" -m pytest -q -rs -p no:cacheprovider tests/test_gpu.py)

step install 100 bash "$HERE/install.sh"
measure machine 10 "$PY" "$HERE/machine.py"
step tests 60 "${gpu_tests[@]}" -k "not attention and not train"
step memcheck 40 "${memcheck[@]}" "${gpu_tests[@]}" -k "$FEW"
step racecheck 40 "${racecheck[@]}" "${gpu_tests[@]}" -k "$FEW"
measure kernels 50 "$PY" benchmarks/recurrence_kernels.py "${kernels[@]}"
measure profile 50 "$PY" "${profile[@]}" "${kernels[@]}"
measure recurrence 40 "$PY" benchmarks/recurrence.py "${peers[@]}"
measure attention 35 "$PY" benchmarks/attention.py "${peers[@]}"
measure train 40 "$PY" benchmarks/train.py "${train[@]}"
measure generate 30 "$PY" benchmarks/generate.py "${generate[@]}"
measure lm 30 "$PY" benchmarks/lm.py "${lm[@]}"
measure layer 15 "$PY" benchmarks/layer.py "${layer[@]}"
finish benchmarks/gpu/train.sh
