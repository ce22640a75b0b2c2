# Sourced by every recipe's scripts.
# OUT     where everything goes (default runs/RECIPE in the repository)
# PYTHON  the Python to use (default: the active environment, else the repository's .venv)

set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUT=${OUT:-$ROOT/runs/$(basename "$HERE")}

if [[ -z ${PYTHON:-} ]]; then
  PYTHON=${VIRTUAL_ENV:-$ROOT/.venv}/bin/python
  [[ -x $PYTHON ]] || PYTHON=$(command -v python3)
fi
PYTHON=$(command -v "$PYTHON") || { echo "PYTHON names no Python: set it or unset it" >&2; exit 1; }
PATH=$(dirname "$PYTHON"):$PATH # fairseq-train and its sisters live beside their Python
command -v fairseq-train > /dev/null || {
  echo "no fairseq-train beside $PYTHON: run \`make install\`, or set PYTHON" >&2
  exit 1
}

# glibc hands large blocks back to the system and fetches them again at every update: a sixth of a
# CPU training's time
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4294967296}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-8589934592}

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

# once TARGET FUNCTION: run FUNCTION on a temporary path and rename it to TARGET when it succeeds,
# so that what exists is complete and is not made again.
once() {
  if [[ -e $1 ]]; then
    echo "== $1 is there"
    return
  fi
  echo "== $1"
  rm -rf "$1.part"
  "$2" "$1.part"
  mv "$1.part" "$1"
}

# device [train]: fairseq's options for this machine's device; for training also --bf16 where the
# device multiplies in it.
device() {
  "$PYTHON" - "${1:-}" << 'END'
import sys
import torch

options = [] if torch.cuda.is_available() else ["--cpu"]
if sys.argv[1] == "train":
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    options += ["--bf16"] if fast else []
print(*options)
END
}

# The steps from text to fairseq's data with one dictionary of VOCABULARY pieces, from
# SOURCE_LANGUAGE to TARGET_LANGUAGE (default: de to en), by WORKERS processes (default 1); a recipe
# that differs defines its own.
pieces() {
  mkdir "$1"
  "$PYTHON" "$ROOT/examples/pieces.py" "$OUT/corpus" "$1" --vocabulary "$VOCABULARY"
}

binary() {
  fairseq-preprocess --joined-dictionary \
    --source-lang "${SOURCE_LANGUAGE:-de}" --target-lang "${TARGET_LANGUAGE:-en}" \
    --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" --testpref "$OUT/pieces/test" \
    --destdir "$1" --workers "${WORKERS:-1}"
}
