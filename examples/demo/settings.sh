# Sourced by prepare.sh, train.sh and evaluate.sh.
# OUT     where everything goes (default runs/demo in the repository)
# PYTHON  the Python to use (default: the active environment, else the repository's .venv)

set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
OUT=${OUT:-$ROOT/runs/demo}

if [[ -z ${PYTHON:-} ]]; then
  PYTHON=${VIRTUAL_ENV:-$ROOT/.venv}/bin/python
  [[ -x $PYTHON ]] || PYTHON=$(command -v python3)
fi
PYTHON=$(command -v "$PYTHON") || { echo "PYTHON names no Python: set it or unset it" >&2; exit 1; }
PATH=$(cd "$(dirname "$PYTHON")" && pwd):$PATH # fairseq-train and its sisters live beside their Python
command -v fairseq-train > /dev/null || {
  echo "no fairseq-train beside $PYTHON: run \`make install\`, or set PYTHON" >&2
  exit 1
}

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

# The option that keeps fairseq off a GPU where there is none.
device() {
  "$PYTHON" -c 'import torch; print("" if torch.cuda.is_available() else "--cpu")'
}
