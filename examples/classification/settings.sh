# Sourced by the scripts of this folder.
# SET   MR, SUBJ, TREC, SST-2, CR or MPQA, or the NAME of NAME.all or of NAME.train, NAME.test and
#       perhaps NAME.dev (default SST-2)
# FOLD  which of the ten folds of NAME.all is the test set, from 0 (default 0)
# CLASSIFICATION  folder of these files, plain or .gz (default ../shared/data/classification)
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

SET=${SET:-SST-2}
FOLD=${FOLD:-0}
CLASSIFICATION=${CLASSIFICATION:-$ROOT/../shared/data/classification}
DIR=$OUT/$SET-$FOLD

# in_python SCRIPT [ARGUMENT...]: a script of this folder, with the package of this checkout
in_python() {
  PYTHONPATH=$ROOT "$PYTHON" "$HERE/$1" "${@:2}"
}
