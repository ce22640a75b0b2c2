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

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

# Steps: a line of the screen each.

# log NAME: the file that has what a step printed.
log() {
  echo "$OUT/logs/${1//\//-}.log"
}

# step NAME COMMAND [ARGUMENT...]: run a command or a function; the screen shows its name, its time
# and, of a training, how far it is.
step() {
  { "${@:2}"; echo "step finished"; } 2>&1 |
    "$PYTHON" "$ROOT/examples/progress.py" "$1" "$(log "$1")"
}

# once TARGET FUNCTION [ARGUMENT...]: the step that runs FUNCTION on a temporary path and the
# arguments, and renames that path to TARGET when it succeeds, so that what exists is complete and
# is not made again.
once() {
  local name=${1#"$OUT"/}
  if [[ -e $1 ]]; then
    printf '%-20s %7s\n' "$name" "is there"
    return
  fi
  rm -rf "$1.part"
  step "$name" "$2" "$1.part" "${@:3}"
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

# From text to fairseq's data. Functions that make a TARGET are to be run by `once`; a recipe that
# differs defines its own.

# pieces TARGET: the parallel text of $OUT/corpus in VOCABULARY joint pieces.
pieces() {
  mkdir "$1"
  "$PYTHON" "$ROOT/examples/pieces.py" "$OUT/corpus" "$1" --vocabulary "$VOCABULARY"
}

# binary TARGET: the pieces with one dictionary, from SOURCE_LANGUAGE (default de) to TARGET_LANGUAGE
# (default en), by WORKERS processes (default 1).
binary() {
  fairseq-preprocess --joined-dictionary \
    --source-lang "${SOURCE_LANGUAGE:-de}" --target-lang "${TARGET_LANGUAGE:-en}" \
    --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" --testpref "$OUT/pieces/test" \
    --destdir "$1" --workers "${WORKERS:-1}"
}

# words TARGET [OPTION...]: the words of $OUT/corpus, by WORKERS processes (default 1).
words() {
  fairseq-preprocess --only-source --destdir "$1" --workers "${WORKERS:-1}" \
    --trainpref "$OUT/corpus/train" --validpref "$OUT/corpus/valid" \
    --testpref "$OUT/corpus/test" "${@:2}"
}

# bytes TARGET: the bytes of $OUT/corpus.
bytes() {
  PYTHONPATH=$ROOT "$PYTHON" "$ROOT/examples/byte_text.py" "$1" \
    --train "$OUT/corpus/train" --valid "$OUT/corpus/valid" --test "$OUT/corpus/test"
}

# Training.

# train LOG DATA OPTION...: fairseq-train with the plugin, see clocked_train.py.
train() {
  local name=${1#"$OUT"/}
  step "${name%.log}" "$PYTHON" "$ROOT/examples/clocked_train.py" "$2" \
    --user-dir "$ROOT/fairseq_sru" --seed 1 --log-format json --log-file "$1" "${@:3}"
}

# cosine WARMUP UPDATES: fairseq's options for a learning rate that is zero after UPDATES updates.
cosine() {
  echo --lr-scheduler cosine --warmup-updates "$1" --lr-period-updates $(($2 - $1)) \
    --max-update "$2"
}

# train_lm MODEL STREAMS OPTION...: a language model with memory, into $OUT/MODEL. GPUS processes,
# one a GPU (default: all GPUs), share out the streams of an update.
train_lm() {
  local gpus=${GPUS:-$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
  (($2 % gpus == 0)) || { echo "GPUS=$gpus does not divide $2 streams" >&2; exit 1; }
  train "$OUT/$1.log" "$OUT/binary" --task srupp_language_modeling --batch-size $(($2 / gpus)) \
    --distributed-world-size "$gpus" --amp --num-workers 1 --log-interval 200 \
    --validate-interval-updates 8000 --save-interval-updates 8000 --keep-interval-updates 1 \
    --no-epoch-checkpoints --save-dir "$OUT/$1" "${@:3}"
}

# Evaluation.

# average TARGET FOLDER COUNT: the mean of the last COUNT epochs' checkpoints in FOLDER.
average() {
  PYTHONPATH=$ROOT "$PYTHON" -m fairseq_sru.average_checkpoints \
    --inputs "$2" --num-epoch-checkpoints "$3" --output "$1"
}

# generate TARGET MODEL OPTION...: fairseq-generate's output for the test set.
generate() {
  fairseq-generate "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$2" --gen-subset test \
    --source-lang "${SOURCE_LANGUAGE:-de}" --target-lang "${TARGET_LANGUAGE:-en}" \
    $(device) "${@:3}" > "$1"
}

# translations TARGET GENERATED: a line a sentence. fairseq prints them by length, H-n is the n-th.
translations() {
  grep '^H-' "$2" | sort -V | cut -f 3 | sed 's/ //g; s/▁/ /g; s/^ //' > "$1"
}

# score TARGET REFERENCE TRANSLATIONS OPTION...: sacreBLEU with its signature.
score() {
  sacrebleu "$2" -i "$3" -w 2 "${@:4}" > "$1"
}

# show_scores FILE: what `score` found, a line a metric.
show_scores() {
  "$PYTHON" - "$1" << 'END'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    found = json.load(file)
for score in found if isinstance(found, list) else [found]:
    print(f"{score['name']} {score['score']:.2f}  {score['signature']}")
END
}

# summary FOLDER: three translations, and where the pictures are.
summary() {
  local folder=${1#"$PWD"/} count
  count=$(wc -l < "$OUT/corpus/test.de")
  paste "$OUT/corpus/test.de" "$1/translation.en" |
    awk -F '\t' -v every=$((count / 3)) 'every < 2 || NR % every == 1 { print "  " $1 " → " $2 }' |
    sed -n 1,3p
  echo "pictures: $folder/curve.png, $folder/alignment.png"
}

# eval_lm NAME DATA MODEL OPTION...: fairseq-eval-lm on the test set, and what it found.
eval_lm() {
  step "$1" fairseq-eval-lm "$2" --user-dir "$ROOT/fairseq_sru" --path "$3" --gen-subset test \
    $(device) "${@:4}"
  grep -oE '(Evaluated|Loss) .*' "$(log "$1")"
}

# curve TARGET [NAME=]LOG...: learning curves.
curve() {
  "$PYTHON" "$ROOT/examples/plots.py" curve "$@"
}

# alignment TARGET GENERATED: what the last decoder layer reads.
alignment() {
  "$PYTHON" "$ROOT/examples/plots.py" alignment "$@"
}
