#!/usr/bin/env bash
# Translate the test set with beam 5, score tokens and text, draw the learning curve.
# AVERAGE: mean of so many last epochs instead of the best checkpoint (10 are kept)
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

MODEL=$RUN/checkpoints/checkpoint_best.pt
RESULT=$RUN/best
if [[ -n ${AVERAGE:-} ]]; then
  RESULT=$RUN/average$AVERAGE
  MODEL=$RESULT/model.pt
fi
mkdir -p "$RESULT"

averaged() {
  (cd "$ROOT" && "$PYTHON" -m fairseq_sru.average_checkpoints \
    --inputs "$RUN/checkpoints" --num-epoch-checkpoints "$AVERAGE" --output "$1")
}

generated() {
  fairseq-generate "$OUT/binary" --user-dir "$ROOT/fairseq_sru" --path "$MODEL" \
    --source-lang de --target-lang en $LIMITS --gen-subset test --beam 5 --max-tokens 8000 \
    --remove-bpe sentencepiece $(device) > "$1"
}

collected() {
  "$PYTHON" "$HERE/collect.py" "$RESULT/generated.txt" "$OUT/corpus" "$1"
}

token_bleu() {
  sacrebleu "$RESULT/collected/reference.tok" -i "$RESULT/collected/translation.tok" \
    -m bleu --tokenize none --force -w 2 > "$1"
}

text_bleu() {
  sacrebleu "$RESULT/collected/reference.txt" -i "$RESULT/collected/translation.txt" \
    -m bleu --lowercase -w 2 > "$1"
}

curve() {
  "$PYTHON" "$ROOT/examples/plots.py" curve "$1" "$ARCH=$RUN/train.log"
}

[[ -z ${AVERAGE:-} ]] || once "$MODEL" averaged
once "$RESULT/generated.txt" generated
once "$RESULT/collected" collected
once "$RESULT/bleu_tokens.json" token_bleu
once "$RESULT/bleu_text.json" text_bleu
once "$RUN/curve.png" curve

echo "protocol $PROTOCOL, $(basename "$RUN"), $(basename "$RESULT") checkpoint"
echo "BLEU on tokens:"
cat "$RESULT/bleu_tokens.json"
echo "sacreBLEU on detokenised text, case ignored:"
cat "$RESULT/bleu_text.json"
if [[ $PROTOCOL == paper ]]; then
  echo "published, not measured here (SRU++ paper, table 8, BLEU on tokens, mean of 4 runs):"
  echo "  srupp_iwslt 36.3 ± 0.2, srupp_iwslt_k2 36.1 ± 0.1, their Transformer 35.9 ± 0.1"
else
  echo "no published number: the SRU++ paper does not use this protocol"
fi
