#!/usr/bin/env bash
# With a network: fill runs/wheels with what a GPU machine without one lacks, and runs/multi30k-raw
# with Multi30k if it is at hand. For Python 3.12 on x86-64 Linux: fairseq-fixed has a wheel for it.
# PYTHON    any Python with pip (default python3)
# MULTI30K  folder of Multi30k's .gz files (default ../shared/data/multi30k)
# WHOLE     1: also numpy, scikit-learn and matplotlib, which images with PyTorch usually have
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PYTHON=${PYTHON:-python3}
MULTI30K=${MULTI30K:-$ROOT/../shared/data/multi30k}
WHEELS=$ROOT/runs/wheels
DATA=$ROOT/runs/multi30k-raw
LIMIT=64 # MiB, of what is carried along; not with WHOLE

rm -rf "$WHEELS" "$DATA"
mkdir -p "$WHEELS"

download() {
  local glibc platforms=(--platform manylinux2014_x86_64 --platform any)
  for glibc in 5 12 17 24 26 27 28; do
    platforms+=(--platform "manylinux_2_${glibc}_x86_64")
  done
  "$PYTHON" -m pip download --quiet --only-binary=:all: --find-links "$WHEELS" --dest "$WHEELS" \
    --implementation cp --python-version 3.12 --abi cp312 --abi abi3 --abi none \
    "${platforms[@]}" "$@"
}

# antlr4-python3-runtime 4.9.3 exists as source only: pure Python, so any Python makes its wheel.
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$WHEELS" \
  "$(grep '^antlr4' "$HERE/requirements.txt")"
download --no-deps --requirement "$HERE/requirements.txt"
if [[ ${WHOLE:-0} == 1 ]]; then
  download numpy scikit-learn matplotlib
fi
packed=("$WHEELS")

if [[ -d $MULTI30K ]]; then
  mkdir -p "$DATA"
  cp "$MULTI30K"/{train,val,test_2016_flickr}.{de,en}.gz "$DATA"
  packed+=("$DATA")
else
  echo "no Multi30k in $MULTI30K: train.sh will need it; set MULTI30K" >&2
fi

du -sm --apparent-size --total "${packed[@]}"
total=$(du -sm --apparent-size --total "${packed[@]}" | tail -1 | cut -f 1)
((total < LIMIT)) || [[ ${WHOLE:-0} == 1 ]] || { echo "more than $LIMIT MiB" >&2; exit 1; }
