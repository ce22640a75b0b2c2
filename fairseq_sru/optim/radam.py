"""RAdam, the optimizer of the SRU++ paper, for ``--optimizer radam``."""

import ast
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II

from fairseq_sru.errors import UsageError


@dataclass
class FairseqRAdamConfig(FairseqDataclass):
    radam_betas: Any = field(default=(0.9, 0.999), metadata={"help": "betas for RAdam"})
    radam_eps: float = field(default=1e-8, metadata={"help": "epsilon for RAdam"})
    weight_decay: float = field(
        default=0.0, metadata={"help": "weight decay, decoupled from the gradient as in AdamW"}
    )
    lr: List[float] = II("optimization.lr")


@register_optimizer("radam", dataclass=FairseqRAdamConfig)
class FairseqRAdam(FairseqOptimizer):
    """Rectified Adam (Liu et al., 2020) as PyTorch has it, with decoupled weight decay.

    Raises:
        ValueError: impossible betas, epsilon, learning rate or weight decay (UsageError if the
            betas are not two numbers).
    """

    supports_flat_params = True
    supports_memory_efficient_fp16 = True

    def __init__(self, cfg: FairseqRAdamConfig, params):
        super().__init__(cfg)
        # foreach is faster on CPUs too: 3 ms against 5 for 150 matrices of 64 x 64
        self._optimizer = RAdam(
            params, decoupled_weight_decay=True, foreach=True, **self.optimizer_config
        )

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """What a resumed run takes from its own command rather than from the checkpoint."""
        lr = self.cfg.lr[0] if isinstance(self.cfg.lr, Collection) else self.cfg.lr
        return {
            "lr": lr,
            "betas": _pair(self.cfg.radam_betas),
            "eps": self.cfg.radam_eps,
            "weight_decay": self.cfg.weight_decay,
        }


def _pair(betas: Any) -> Tuple[float, float]:
    try:
        first, second = ast.literal_eval(betas) if isinstance(betas, str) else betas
        return float(first), float(second)
    except (SyntaxError, TypeError, ValueError):
        raise UsageError(
            f"--radam-betas must be two numbers such as '(0.9, 0.999)', not {betas!r}"
        ) from None


class RAdam(torch.optim.RAdam):
    """torch.optim.RAdam whose arithmetic and state are float32 for 16-bit parameters.

    fairseq's memory-efficient modes hand over 16-bit parameters and expect this of an optimizer:
    in float16 the second moment of a gradient below 2e-4 is zero.
    """

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [group["params"] for group in self.param_groups]
        for group in self.param_groups:
            group["params"] = [self._widen(p) for p in group["params"]]
        super().step()
        for group, originals in zip(self.param_groups, groups):
            for wide, narrow in zip(group["params"], originals):
                if wide is not narrow:
                    narrow.copy_(wide)
                    self.state[narrow] = self.state.pop(wide)
            group["params"] = originals
        return loss

    def _widen(self, narrow: torch.Tensor) -> torch.Tensor:
        if narrow.grad is None or narrow.dtype not in (torch.float16, torch.bfloat16):
            return narrow
        wide = torch.nn.Parameter(narrow.float())
        wide.grad = narrow.grad.float()
        self.state[wide] = self.state.pop(narrow, {})
        return wide
