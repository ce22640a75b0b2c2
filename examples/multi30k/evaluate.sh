#!/usr/bin/env bash
# Average the last checkpoints, translate test_2016_flickr with beam 5, score, draw.
# AVERAGE: how many checkpoints (default 5)
# RUN: folder of checkpoints/ and train.log (default $OUT; transformer_sru.sh makes others)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

RUN=${RUN:-$OUT}

averaged() {
  (cd "$ROOT" && "$PYTHON" -m fairseq_sru.average_checkpoints \
    --inputs "$RUN/checkpoints" --num-epoch-checkpoints "${AVERAGE:-5}" --output "$1")
}

generated() {
  fairseq-generate "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$RUN/model.pt" \
    --source-lang de --target-lang en --gen-subset test --beam 5 --max-tokens 8000 \
    --print-alignment soft $(device) > "$1"
}

translation() { # fairseq sorts by length; H-n is the n-th sentence, in pieces
  grep '^H-' "$RUN/generated.txt" | sort -V | cut -f 3 | sed 's/ //g; s/▁/ /g; s/^ //' > "$1"
}

score() {
  sacrebleu "$OUT/corpus/test.en" -i "$RUN/translation.en" -m bleu chrf -w 2 > "$1"
}

curve() {
  "$PYTHON" "$ROOT/examples/plots.py" curve "$1" "$RUN/train.log"
}

alignment() {
  "$PYTHON" "$ROOT/examples/plots.py" alignment "$1" "$RUN/generated.txt"
}

once "$RUN/model.pt" averaged
once "$RUN/generated.txt" generated
once "$RUN/translation.en" translation
once "$RUN/bleu.json" score
once "$RUN/curve.png" curve
once "$RUN/alignment.png" alignment
cat "$RUN/bleu.json"
