#!/usr/bin/env bash
# What run.sh has no time for, in nine minutes: writing a text token by token, the Triton kernels'
# tests, the tests of the GPU that run.sh left out. See README.md.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

if [[ $DEVICE == cuda ]]; then
  writing=(--rounds 3 --size srupp_lm_enwik8_small --context 3072 --precision bfloat16)
else
  writing=(--rounds 1 --tokens 2 --context 4)
fi
tests=("$PY" -m pytest -q -rs -p no:cacheprovider --durations 5)

step install 100 bash "$HERE/install.sh"
measure machine 10 "$PY" "$HERE/machine.py"
measure lm_inference 100 "$PY" benchmarks/lm_inference.py "${writing[@]}"
step triton 160 "${tests[@]}" tests/test_triton.py
step tests 170 "${tests[@]}" tests/test_gpu.py -k "attention or train"
finish
