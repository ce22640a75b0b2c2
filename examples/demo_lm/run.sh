#!/usr/bin/env bash
# A byte-level language model of Python's own documentation and source: train, score, sample.
# UPDATES  how long (default 1000)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

UPDATES=${UPDATES:-1000}

corpus() {
  "$PYTHON" "$HERE/corpus.py" "$1"
}

binary() {
  PYTHONPATH=$ROOT "$PYTHON" "$ROOT/examples/byte_text.py" "$1" \
    --train "$OUT/corpus/train" --valid "$OUT/corpus/valid" --test "$OUT/corpus/test"
}

model() {
  fairseq-train "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --task srupp_language_modeling \
    --unit character --arch srupp_lm_bytes --layers 4 --tokens-per-sample 128 --batch-size 16 \
    --optimizer radam --weight-decay 0.1 --clip-norm 1.0 \
    --lr 6e-3 --lr-scheduler cosine --warmup-updates 50 --lr-period-updates $((UPDATES - 50)) \
    --max-update "$UPDATES" --save-interval-updates 100 --keep-interval-updates 1 \
    --batch-size-valid 16 --eval-segment 512 --eval-context 256 --max-valid-steps 10 \
    --save-dir "$OUT/checkpoints" --seed 1 --num-workers 0 \
    --log-format json --log-file "$OUT/train.log" --log-interval 25 --no-progress-bar \
    $(device train)
  cp "$OUT/checkpoints/checkpoint_last.pt" "$1"
}

curve() {
  "$PYTHON" "$ROOT/examples/plots.py" curve "$1" srupp_lm_bytes="$OUT/train.log"
}

evaluate() {
  fairseq-eval-lm "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$OUT/model.pt" \
    --gen-subset test --num-workers 0 $(device) "$@" 2>&1 | grep -E 'Evaluated|Loss|rror'
}

scores() {
  {
    echo "memory carried along:"
    evaluate --task srupp_language_modeling --batch-size 4 --eval-segment 512 --eval-context 256
    echo "memory reset every 128 bytes:"
    evaluate --task language_modeling --sample-break-mode none --tokens-per-sample 128 \
      --batch-size 64
  } > "$1"
}

sample() {
  printf 'def read(self, \nThe following \n' |
    fairseq-interactive "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$OUT/model.pt" \
      --task srupp_language_modeling --bpe srupp_bytes --sampling --sampling-topp 0.8 --beam 1 \
      --max-len-b 400 --seed 1 $(device) 2> "$OUT/sample.log" | grep -v '^[SHPWA]-' > "$1"
}

once "$OUT/corpus" corpus
once "$OUT/binary" binary
once "$OUT/model.pt" model
once "$OUT/curve.png" curve
once "$OUT/scores.txt" scores
once "$OUT/sample.txt" sample

echo
cat "$OUT/sample.txt" "$OUT/scores.txt"
echo "Loss (base 2) is bits per byte."
