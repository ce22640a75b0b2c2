#!/usr/bin/env bash
# Average the last checkpoints, translate test_2016_flickr with beam 5, score, draw.
# AVERAGE: how many checkpoints (default 5)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

averaged() {
  (cd "$ROOT" && "$PYTHON" -m fairseq_sru.average_checkpoints \
    --inputs "$OUT/checkpoints" --num-epoch-checkpoints "${AVERAGE:-5}" --output "$1")
}

generated() {
  fairseq-generate "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$OUT/model.pt" \
    --source-lang de --target-lang en --gen-subset test --beam 5 --max-tokens 8000 \
    --print-alignment soft $(device) > "$1"
}

translation() { # fairseq sorts by length; H-n is the n-th sentence, in pieces
  grep '^H-' "$OUT/generated.txt" | sort -V | cut -f 3 | sed 's/ //g; s/▁/ /g; s/^ //' > "$1"
}

score() {
  sacrebleu "$OUT/corpus/test.en" -i "$OUT/translation.en" -m bleu chrf -w 2 > "$1"
}

curve() {
  "$PYTHON" "$ROOT/examples/plots.py" curve "$1" srupp_multi30k="$OUT/train.log"
}

alignment() {
  "$PYTHON" "$ROOT/examples/plots.py" alignment "$1" "$OUT/generated.txt"
}

once "$OUT/model.pt" averaged
once "$OUT/generated.txt" generated
once "$OUT/translation.en" translation
once "$OUT/bleu.json" score
once "$OUT/curve.png" curve
once "$OUT/alignment.png" alignment
cat "$OUT/bleu.json"
