#!/usr/bin/env bash
# Without a network: a virtual environment on top of this machine's PyTorch, the packed wheels in
# it, and this checkout with its extension, its CUDA kernels built for this machine's GPU.
# PYTHON  the Python that has PyTorch (default python3)
# VENV    the environment to make (default runs/gpu-venv); one that is complete is left alone
# DEVICE  cuda (default) or cpu
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PYTHON=${PYTHON:-python3}
VENV=${VENV:-$ROOT/runs/gpu-venv}
WHEELS=$ROOT/runs/wheels

if [[ -e $VENV/complete ]]; then
  echo "$VENV is there"
  exit
fi
[[ -d $WHEELS ]] || {
  echo "no $WHEELS: run benchmarks/gpu/pack.sh where there is a network and bring that folder" >&2
  exit 1
}

# That Python may live in a virtual environment itself, which --system-site-packages would miss.
"$PYTHON" -m venv --clear --without-pip "$VENV"
"$PYTHON" - "$VENV"/lib/python*/site-packages << 'END'
import sys
from pathlib import Path

folders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
lines = [f"import site; site.addsitedir({path!r})\n" for path in folders]
Path(sys.argv[1], "machine.pth").write_text("".join(lines))
END

pip() {
  "$VENV/bin/python" -m pip --quiet --disable-pip-version-check "$@"
}

pip install --no-index --no-deps --ignore-installed "$WHEELS"/*.whl

export FAIRSEQ_SRU_CUDA=0
if [[ ${DEVICE:-cuda} == cuda ]]; then
  export FAIRSEQ_SRU_CUDA=1
  TORCH_CUDA_ARCH_LIST=$("$VENV/bin/python" -c '
import torch
print("{}.{}".format(*torch.cuda.get_device_capability()))')
  export TORCH_CUDA_ARCH_LIST
fi
pip install --no-index --no-deps --no-build-isolation --editable "$ROOT"

cd "$ROOT"
"$VENV/bin/python" -c "import fairseq_cli.train, pytest, sacrebleu, sentencepiece, matplotlib"
"$VENV/bin/python" -m fairseq_sru
"$VENV/bin/python" -m pip freeze --disable-pip-version-check
touch "$VENV/complete"
