#!/usr/bin/env bash
# Translate the test set, score it, show some of it, draw the learning curve and the attention.
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

generated() {
  fairseq-generate "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$OUT/model.pt" \
    --source-lang de --target-lang en --gen-subset test --beam 5 --max-tokens 4096 \
    --print-alignment soft $(device) > "$1"
}

translation() { # H-n is the n-th sentence in pieces; fairseq prints them by length
  grep '^H-' "$OUT/generated.txt" | sort -V | cut -f 3 | sed 's/ //g; s/▁/ /g; s/^ //' > "$1"
}

score() {
  sacrebleu "$OUT/corpus/test.en" -i "$OUT/translation.en" -m bleu -w 2 > "$1"
}

curve() {
  "$PYTHON" "$ROOT/examples/plots.py" curve "$1" srupp_demo="$OUT/train.log"
}

alignment() {
  "$PYTHON" "$ROOT/examples/plots.py" alignment "$1" "$OUT/generated.txt"
}

once "$OUT/generated.txt" generated
once "$OUT/translation.en" translation
once "$OUT/bleu.json" score
once "$OUT/curve.png" curve
once "$OUT/alignment.png" alignment

echo
paste "$OUT/corpus/test.de" "$OUT/corpus/test.en" "$OUT/translation.en" |
  awk -F '\t' 'NR % 60 == 20 { print "source     " $1 "\nreference  " $2 "\nours       " $3 "\n" }'
cat "$OUT/bleu.json"
