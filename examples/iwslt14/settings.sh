# Sourced by prepare.sh, train.sh and evaluate.sh, with the variables of ../settings.sh and
# PROTOCOL  paper (default) or fairseq: see README.md; the data go to OUT/PROTOCOL
# ARCH      srupp_iwslt (default), srupp_iwslt_k2 or any other architecture
# RUN       name of the run, its folder beside the data (default ARCH)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

PROTOCOL=${PROTOCOL:-paper}
ARCH=${ARCH:-srupp_iwslt}
case $PROTOCOL in
  paper) # up to 125 pieces and the end of sentence, in training and in testing
    LIMITS="--max-source-positions 126 --max-target-positions 126"
    LIMITS+=" --skip-invalid-size-inputs-valid-test"
    ;;
  fairseq) LIMITS= ;;
  *)
    echo "PROTOCOL=$PROTOCOL: use paper or fairseq" >&2
    exit 1
    ;;
esac
"$PYTHON" -c "import sacremoses" 2> /dev/null || {
  echo "no sacremoses beside $PYTHON: run \`$PYTHON -m pip install sacremoses\`" >&2
  exit 1
}

OUT=$OUT/$PROTOCOL
RUN=$OUT/${RUN:-$ARCH}
mkdir -p "$OUT"
