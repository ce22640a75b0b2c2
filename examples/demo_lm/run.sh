#!/usr/bin/env bash
# A byte-level language model of Python's own documentation and source: train, score, sample.
# UPDATES  how long (default 1000)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

UPDATES=${UPDATES:-1000}

corpus() {
  "$PYTHON" "$HERE/corpus.py" "$1"
}

training() {
  train "$OUT/train.log" "$OUT/binary" --task srupp_language_modeling \
    --unit character --arch srupp_lm_bytes --layers 4 --tokens-per-sample 128 --batch-size 16 \
    --optimizer radam --weight-decay 0.1 --clip-norm 1.0 --lr 6e-3 $(cosine 50 "$UPDATES") \
    --save-interval-updates 100 --keep-interval-updates 1 \
    --batch-size-valid 16 --eval-segment 512 --eval-context 256 --max-valid-steps 10 \
    --save-dir "$OUT/checkpoints" --num-workers 0 --log-interval 25 $(device train)
}

model() {
  cp "$OUT/checkpoints/checkpoint_last.pt" "$1"
}

evaluate() {
  eval_lm "$1" "$OUT/binary" "$OUT/model.pt" --num-workers 0 "${@:2}"
}

sample() {
  printf 'def read(self, \nThe following \n' |
    fairseq-interactive "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$OUT/model.pt" \
      --task srupp_language_modeling --bpe srupp_bytes --sampling --sampling-topp 0.8 --beam 1 \
      --max-len-b 400 --seed 1 $(device) | grep -v '^[SHPWA]-' > "$1"
}

once "$OUT/corpus" corpus
once "$OUT/binary" bytes
[[ -e $OUT/model.pt ]] || training
once "$OUT/model.pt" model
once "$OUT/curve.png" curve srupp_lm_bytes="$OUT/train.log"
once "$OUT/sample.txt" sample
evaluate "memory carried along" --task srupp_language_modeling --batch-size 4 --eval-segment 512 \
  --eval-context 256
evaluate "memory reset every 128 bytes" --task language_modeling --sample-break-mode none \
  --tokens-per-sample 128 --batch-size 64

echo
cat "$OUT/sample.txt"
echo
echo "Loss (base 2) is bits per byte. Picture: ${OUT#"$PWD"/}/curve.png"
echo "a text of your own:"
echo "  echo 'class Tree:' | $(dirname "${PYTHON#"$PWD"/}")/fairseq-interactive \\"
echo "    ${OUT#"$PWD"/}/binary --user-dir fairseq_sru --path ${OUT#"$PWD"/}/model.pt \\"
echo "    --task srupp_language_modeling --bpe srupp_bytes --sampling --sampling-topp 0.8 \\"
echo "    --beam 1 --max-len-b 400 $(device)"
