#!/usr/bin/env bash
# Average the last checkpoints, translate the test set with beam 4, score.
# ARCH     as for train.sh
# AVERAGE  how many checkpoints (default 5)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

ARCH=${ARCH:-transformer_sru_wmt_en_de}
RUN=$OUT/$ARCH
SOURCE_LANGUAGE=en TARGET_LANGUAGE=de

once "$RUN/model.pt" average "$RUN" "${AVERAGE:-5}"
once "$RUN/generated.txt" generate "$RUN/model.pt" --beam 4 --lenpen 0.6 --max-tokens 8000
once "$RUN/translation.de" translations "$RUN/generated.txt"
once "$RUN/bleu.json" score "$OUT/corpus/test.de" "$RUN/translation.de" -m bleu chrf
show_scores "$RUN/bleu.json"
