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

collected() {
  "$PYTHON" "$HERE/collect.py" "$RESULT/generated.txt" "$OUT/corpus" "$1"
}

[[ -z ${AVERAGE:-} ]] || once "$MODEL" average "$RUN/checkpoints" "$AVERAGE"
once "$RESULT/generated.txt" generate "$MODEL" $LIMITS --beam 5 --max-tokens 8000 \
  --remove-bpe sentencepiece
once "$RESULT/collected" collected
text=$RESULT/collected
once "$RESULT/bleu_tokens.json" score "$text/reference.tok" "$text/translation.tok" \
  -m bleu --tokenize none --force
once "$RESULT/bleu_text.json" score "$text/reference.txt" "$text/translation.txt" \
  -m bleu --lowercase
once "$RUN/curve.png" curve "$ARCH=$RUN/train.log"

echo "protocol $PROTOCOL, $(basename "$RUN"), $(basename "$RESULT") checkpoint"
cat "$(log "${text#"$OUT"/}")"
echo "BLEU on tokens:"
show_scores "$RESULT/bleu_tokens.json"
echo "sacreBLEU on detokenised text, case ignored:"
show_scores "$RESULT/bleu_text.json"
if [[ $PROTOCOL == paper ]]; then
  echo "published, not measured here (SRU++ paper, table 8, BLEU on tokens, mean of 4 runs):"
  echo "  srupp_iwslt 36.3 ± 0.2, srupp_iwslt_k2 36.1 ± 0.1, their Transformer 35.9 ± 0.1"
else
  echo "no published number: the SRU++ paper does not use this protocol"
fi
