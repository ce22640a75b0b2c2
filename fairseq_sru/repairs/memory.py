"""The memory of trainings on a CPU."""

from __future__ import annotations

import torch
from fairseq.trainer import Trainer

from fairseq_sru.ops.extension import COMPILED, keep_freed_memory
from fairseq_sru.repairs.patching import replace


def apply() -> None:
    """Keep freed memory for later updates, within bounds: see docs/reliability.md."""

    @replace(Trainer, "__init__")
    def __init__(original, self, cfg, *args, **kwargs):
        if COMPILED and (cfg.common.cpu or not torch.cuda.is_available()):
            keep_freed_memory()
        original(self, cfg, *args, **kwargs)
