#!/usr/bin/env bash
# Sourced: where things are, and how a step runs. A step has its own time limit, none runs beyond
# $BUDGET, and one that fails does not stop the next. After each the summary is written anew.
# `finish` shows it, the command to run next, and whether any step failed.
# DEVICE  cuda (default); cpu: the same steps with little work, to try the scripts
# OUT     where everything goes (default runs/gpu)
# COMMIT  what the summary calls this code (default: what git says)
# BUDGET  seconds of all steps together (default 540 on a GPU)

set -uo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
cd "$ROOT"

export DEVICE=${DEVICE:-cuda}
SLOWER=1
case $DEVICE in
  cuda)
    "${PYTHON:-python3}" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || {
      echo "PyTorch of ${PYTHON:-python3} sees no GPU; DEVICE=cpu tries the scripts without" >&2
      exit 1
    }
    ;;
  cpu)
    export CUDA_VISIBLE_DEVICES=
    SLOWER=30
    ;;
  *) echo "DEVICE=$DEVICE: use cuda or cpu" >&2; exit 2 ;;
esac
BUDGET=${BUDGET:-$((540 * SLOWER))}
export VENV=${VENV:-$ROOT/runs/gpu-venv}
export COMMIT=${COMMIT:-$(git describe --always --dirty 2> /dev/null || echo unknown)}
export PYTHONUNBUFFERED=1
PY=$VENV/bin/python

OUT=${OUT:-$ROOT/runs/gpu}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
LOG=$OUT/run.log
RESULTS=$(mktemp -d) # a file of JSON lines for each table
trap 'rm -r "$RESULTS"' EXIT
: > "$LOG"
failed=()
tables=("$RESULTS/steps.jsonl")

# step NAME SECONDS COMMAND...: standard output and error go to run.log
step() {
  run_step "$1" "$2" "$LOG" "${@:3}"
}

# measure NAME SECONDS COMMAND...: standard output, JSON lines, becomes the table NAME
measure() {
  tables+=("$RESULTS/$1.jsonl")
  run_step "$1" "$2" "$RESULTS/$1.jsonl" "${@:3}"
}

run_step() {
  local name=$1 limit=$(($2 * SLOWER)) output=$3 start=$SECONDS left=$((BUDGET - SECONDS)) status=0
  shift 3
  limit=$((limit < left ? limit : left))
  echo "== $name: $*" | tee -a "$LOG"
  if ((limit > 0)); then
    timeout --kill-after 5 "$limit" "$@" >> "$output" 2>> "$LOG" || status=$?
  else
    status=124 # as timeout says it
  fi
  ((status == 0)) || failed+=("$name")
  printf '{"step": "%s", "seconds": %d, "limit": %d, "exit": %d}\n' \
    "$name" $((SECONDS - start)) "$limit" "$status" | tee -a "$RESULTS/steps.jsonl"
  summarise
}

summarise() {
  "${PYTHON:-python3}" "$HERE/summary.py" "$OUT" "${tables[@]}" 2>> "$LOG" || failed+=(summary)
}

# finish [NEXT]: NEXT is the script to run after this one
finish() {
  cat "$OUT/summary.md"
  (($# == 0)) || echo "next: COMMIT=$COMMIT DEVICE=$DEVICE $1"
  ((${#failed[@]} == 0)) || { echo "failed: ${failed[*]} (see $LOG)" >&2; exit 1; }
}
