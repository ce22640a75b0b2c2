"""A JSON line about this machine and what is measured on it."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone

import torch

print(json.dumps({
    "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    "PyTorch": torch.__version__,
    "CUDA": torch.version.cuda,
    "Python": sys.version.split()[0],
    "commit": os.environ.get("COMMIT", "unknown"),
    "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
}))
