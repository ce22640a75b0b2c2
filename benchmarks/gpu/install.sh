#!/usr/bin/env bash
# Without a network: a virtual environment on top of this machine's PyTorch, with the packed wheels
# in it, and this checkout's extension, its CUDA kernels built for this machine's GPU.
# PYTHON  the Python that has PyTorch (default python3)
# VENV    the environment to make (default runs/gpu-venv); a complete one is left as it is
# DEVICE  cuda (default) or cpu
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PYTHON=${PYTHON:-python3}
VENV=${VENV:-$ROOT/runs/gpu-venv}
WHEELS=$ROOT/runs/wheels

make_environment() {
  [[ -d $WHEELS ]] || {
    echo "no $WHEELS: run benchmarks/gpu/pack.sh where there is a network and bring that folder" >&2
    return 1
  }
  # PYTHON may live in a virtual environment itself, which --system-site-packages would miss.
  "$PYTHON" -m venv --clear --without-pip "$VENV"
  "$PYTHON" - "$VENV"/lib/python*/site-packages "$ROOT" << 'END'
import sys
from pathlib import Path

folders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
lines = [f"import site; site.addsitedir({path!r})\n" for path in folders]
Path(sys.argv[1], "machine.pth").write_text("".join([*lines, sys.argv[2], "\n"]))
END
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-index --no-deps --ignore-installed "$WHEELS"/*.whl
  touch "$VENV/complete"
}

[[ -e $VENV/complete ]] || make_environment

cd "$ROOT"
export FAIRSEQ_SRU_CUDA=0
if [[ ${DEVICE:-cuda} == cuda ]]; then
  export FAIRSEQ_SRU_CUDA=1
  TORCH_CUDA_ARCH_LIST=$("$VENV/bin/python" -c '
import torch
print("{}.{}".format(*torch.cuda.get_device_capability()))')
  export TORCH_CUDA_ARCH_LIST
fi
# What was built before may be for another device, or no longer what is in csrc.
wanted="$FAIRSEQ_SRU_CUDA ${TORCH_CUDA_ARCH_LIST:-} $(cat setup.py csrc/* | cksum)"
if [[ $(cat "$VENV/built" 2> /dev/null) != "$wanted" ]]; then
  "$VENV/bin/python" setup.py --quiet build_ext --inplace --force
  echo "$wanted" > "$VENV/built"
fi

echo "ninja: $(command -v ninja || echo none)"
"$VENV/bin/python" -c '
import sysconfig
from pathlib import Path
print("Python.h:", Path(sysconfig.get_path("include"), "Python.h").exists())'
"$VENV/bin/python" -c "import fairseq_cli.train, pytest, sacrebleu, sentencepiece, matplotlib"
"$VENV/bin/python" -m fairseq_sru
"$VENV/bin/python" -m pip freeze --disable-pip-version-check
