# Sourced: where things are, and how a step runs. A step has its own time limit and may fail
# without stopping the next. `finish FILE...` writes the summary, with a table of each file of JSON
# lines, and says whether any step failed.
# DEVICE  cuda (default); cpu: the same steps with little work, to try the scripts
# OUT     where everything goes (default runs/gpu)
# COMMIT  what the summary calls this code (default: what git says)

set -uo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
cd "$ROOT"

export DEVICE=${DEVICE:-cuda}
case $DEVICE in
  cuda)
    "${PYTHON:-python3}" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || {
      echo "PyTorch of ${PYTHON:-python3} sees no GPU; DEVICE=cpu tries the scripts without" >&2
      exit 1
    }
    ;;
  cpu) export CUDA_VISIBLE_DEVICES= ;;
  *) echo "DEVICE=$DEVICE: use cuda or cpu" >&2; exit 2 ;;
esac
export VENV=${VENV:-$ROOT/runs/gpu-venv}
export COMMIT=${COMMIT:-$(git describe --always --dirty 2> /dev/null || echo unknown)}
export PYTHONUNBUFFERED=1
PY=$VENV/bin/python

OUT=${OUT:-$ROOT/runs/gpu}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
LOG=$OUT/run.log
STEPS=$(mktemp -d)/steps.jsonl
trap 'rm -r "$(dirname "$STEPS")"' EXIT
: > "$LOG"
failed=()

# step NAME SECONDS COMMAND...: standard output and error go to run.log
step() {
  run_step "$1" "$2" "$LOG" "${@:3}"
}

# measure NAME SECONDS COMMAND...: standard output, JSON lines, goes to NAME.jsonl
measure() {
  : > "$OUT/$1.jsonl"
  run_step "$1" "$2" "$OUT/$1.jsonl" "${@:3}"
}

run_step() {
  local name=$1 limit=$2 output=$3 start=$SECONDS status=0
  shift 3
  [[ $DEVICE == cuda ]] || limit=$((30 * limit))
  echo "== $name: $*" | tee -a "$LOG"
  timeout --kill-after 5 "$limit" "$@" >> "$output" 2>> "$LOG" || status=$?
  ((status == 0)) || failed+=("$name")
  printf '{"step": "%s", "seconds": %d, "limit": %d, "exit": %d}\n' \
    "$name" $((SECONDS - start)) "$limit" "$status" | tee -a "$STEPS"
}

finish() {
  "$PY" "$HERE/summary.py" "$STEPS" "$@" > "$OUT/summary.md" 2>> "$LOG" || failed+=(summary)
  cat "$OUT/summary.md"
  ((${#failed[@]} == 0)) || { echo "failed: ${failed[*]} (see $LOG)" >&2; exit 1; }
}
