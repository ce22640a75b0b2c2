#!/usr/bin/env bash
# Ours and the peers on one or more sets, in one process each: $OUT/runs.jsonl, a table, curves.png.
# SETS      default "MR SUBJ TREC SST-2"
# MODELS    default: ours of 2, 4 and 8 layers, bidirectional, with filters, QRNN, SRU++,
#           and the peers
# EPOCHS    default 20
# DROPOUTS  what every model tries in its first two runs; the others have the best (default "0.3 0.5")
# RUNS      seeds or folds (default 5 or 10)
# CLASSIFICATION: see settings.sh. Arguments are passed on to compare.py, such as --embed-path.
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

MODELS=${MODELS:-sru_classifier_2 sru_classifier_4 sru_classifier_8 sru_classifier_bidirectional
  sru_classifier_filters qrnn_classifier srupp_classifier lstm lstm_bidirectional cnn transformer}
for name in ${SETS:-MR SUBJ TREC SST-2}; do
  in_python compare.py "$OUT/runs.jsonl" --folder "$CLASSIFICATION" --set "$name" --models $MODELS \
    --epochs "${EPOCHS:-20}" --dropouts ${DROPOUTS:-0.3 0.5} ${RUNS:+--runs "$RUNS"} "$@"
done
in_python table.py "$OUT/runs.jsonl" --figure "$OUT/curves.png" | tee "$OUT/table.md"
