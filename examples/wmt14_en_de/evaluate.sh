#!/usr/bin/env bash
# Average the last checkpoints, translate the test set with beam 4, score.
# ARCH     as for train.sh
# AVERAGE  how many checkpoints (default 5)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

ARCH=${ARCH:-transformer_sru_wmt_en_de}
RUN=$OUT/$ARCH

averaged() {
  (cd "$ROOT" && "$PYTHON" -m fairseq_sru.average_checkpoints \
    --inputs "$RUN" --num-epoch-checkpoints "${AVERAGE:-5}" --output "$1")
}

generated() {
  fairseq-generate "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$RUN/model.pt" \
    --source-lang en --target-lang de --gen-subset test --beam 4 --lenpen 0.6 --max-tokens 8000 \
    --remove-bpe sentencepiece $(device) > "$1"
}

translation() { # fairseq sorts by length; H-n is the n-th sentence
  grep '^H-' "$RUN/generated.txt" | sort -V | cut -f 3 > "$1"
}

score() {
  sacrebleu "$OUT/corpus/test.de" -i "$RUN/translation.de" -m bleu chrf -w 2 > "$1"
}

once "$RUN/model.pt" averaged
once "$RUN/generated.txt" generated
once "$RUN/translation.de" translation
once "$RUN/bleu.json" score
cat "$RUN/bleu.json"
