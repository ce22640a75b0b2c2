"""RAdam, the optimizer of the SRU++ paper, for ``--optimizer radam``."""

import ast
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Set, Tuple

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II

from fairseq_sru.errors import UsageError
from fairseq_sru.options import check_config
from fairseq_sru.ranges import RANGES


@dataclass
class FairseqRAdamConfig(FairseqDataclass):
    radam_betas: Any = field(default=(0.9, 0.999), metadata={"help": "betas for RAdam"})
    radam_eps: float = field(default=1e-8, metadata={"help": "epsilon for RAdam"})
    weight_decay: float = field(
        default=0.0, metadata={"help": "weight decay, decoupled from the gradient as in AdamW"}
    )
    radam_decay: ChoiceEnum(["all", "matrices"]) = field(
        default="all",
        metadata={
            "help": "what weight decay applies to: all parameters, or matrices alone and not "
            "biases, norms, gate vectors and the scale of the attention (alpha)"
        },
    )
    lr: List[float] = II("optimization.lr")


@register_optimizer("radam", dataclass=FairseqRAdamConfig)
class FairseqRAdam(FairseqOptimizer):
    """Rectified Adam (Liu et al., 2020) as PyTorch has it, with decoupled weight decay.

    Raises:
        UsageError: impossible betas, epsilon, learning rate or weight decay, or
            ``--radam-decay matrices`` finds no matrix, as where fairseq flattens all parameters
            into one vector.
    """

    supports_flat_params = True
    supports_memory_efficient_fp16 = True

    def __init__(self, cfg: FairseqRAdamConfig, params: Any) -> None:
        super().__init__(cfg)
        check_config(cfg, FairseqRAdamConfig)
        # foreach is faster on CPUs too: 3 ms against 5 for 150 matrices of 64 x 64
        self._optimizer = RAdam(
            _groups(list(params)) if cfg.radam_decay == "matrices" else params,
            decoupled_weight_decay=True,
            foreach=True,
            **self.optimizer_config,
        )

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """What a resumed run takes from its own command rather than from the checkpoint."""
        lr = self.cfg.lr[0] if isinstance(self.cfg.lr, Sequence) else self.cfg.lr
        return {
            "lr": lr,
            "betas": _pair(self.cfg.radam_betas),
            "eps": self.cfg.radam_eps,
            "weight_decay": self.cfg.weight_decay,
        }

    def load_state_dict(
        self, state_dict: Dict[str, Any], optimizer_overrides: Optional[Dict[str, Any]] = None
    ) -> None:
        if len(state_dict["param_groups"]) != len(self.param_groups):
            raise UsageError(
                "the checkpoint was trained with another --radam-decay: give the same, or start "
                "the optimizer anew with --reset-optimizer"
            )
        super().load_state_dict(state_dict, optimizer_overrides)
        for group in self.param_groups[1:]:  # the overrides are for matrices
            group["weight_decay"] = 0.0


def _is_matrix(p: torch.Tensor) -> bool:
    """Whether p is a matrix, not a vector or two: gates have (2, D)."""
    return p.dim() > 1 and p.size(0) > 2


def _groups(params: List[torch.Tensor]) -> List[Dict[str, Any]]:
    """Matrices with the weight decay of the options, the rest without."""
    matrices = [p for p in params if _is_matrix(p)]
    if not matrices:
        raise UsageError(
            "--radam-decay matrices finds no matrix among the parameters: with --fp16 fairseq "
            "flattens them, add --fp16-no-flatten-grads (or train with --bf16 or --amp)"
        )
    rest = [p for p in params if not _is_matrix(p)]
    return [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]


def _pair(betas: Any) -> Tuple[float, float]:
    try:
        first, second = ast.literal_eval(betas) if isinstance(betas, str) else betas
        pair = float(first), float(second)
    except (SyntaxError, TypeError, ValueError):
        pair = (-1.0, -1.0)
    if pair not in RANGES["radam_betas"]:
        raise UsageError(f"--radam-betas must be {RANGES['radam_betas'].description}, such as "
                         f"'(0.9, 0.999)', got {betas!r}")
    return pair


def _rectifier(step: int, beta2: float) -> Optional[float]:
    """The factor r of Liu et al. (2020), algorithm 2; None while the variance is intractable."""
    limit = 2 / (1 - beta2) - 1
    length = limit - 2 * step * beta2**step / (1 - beta2**step)
    if length <= 5:
        return None
    return math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))


def _lie_alike(*tensors: torch.Tensor) -> bool:
    return all(t.device.type == "cpu" and t.layout == torch.strided and t.is_contiguous()
               for t in tensors)


class RAdam(torch.optim.RAdam):
    """torch.optim.RAdam whose arithmetic and state are float32 for 16-bit parameters, and which
    reads and writes CPU memory once a step.

    fairseq's memory-efficient modes hand over 16-bit parameters and expect float32 of an optimizer:
    in float16 the second moment of a gradient below 2e-4 is zero.
    """

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        originals = [group["params"] for group in self.param_groups]
        widened = [[self._widen(p) for p in params] for params in originals]
        for group, params in zip(self.param_groups, widened):
            group["params"] = self._step_fused(group, params)
        super().step()
        for group, narrows, wides in zip(self.param_groups, originals, widened):
            for narrow, wide in zip(narrows, wides):
                if wide is not narrow:
                    narrow.copy_(wide)
                    self.state[narrow] = self.state.pop(wide)
            group["params"] = narrows
        return loss

    def _step_fused(
        self, group: Dict[str, Any], params: List[torch.Tensor]
    ) -> List[torch.Tensor]:
        """Step the CPU parameters by PyTorch's fused AdamW and return the others.

        Once RAdam rectifies, its step is AdamW's with other factors. The fused one takes numbers
        in the order in which they lie in memory.
        """
        beta1, beta2 = group["betas"]
        steps = defaultdict(list)
        for p in params:
            state = self.state.get(p, {})
            if "step" in state and p.grad is not None and _lie_alike(
                    p, p.grad, state["exp_avg"], state["exp_avg_sq"]):
                steps[int(self.state[p]["step"]) + 1].append(p)
        done: Set[int] = set()
        for step, same in steps.items():
            rectifier = _rectifier(step, beta2)
            if rectifier is None:
                continue
            states = [self.state[p] for p in same]
            counts = [state["step"] for state in states]
            torch._foreach_add_(counts, 1)
            torch._fused_adamw_(
                same,
                [p.grad for p in same if p.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                counts,
                lr=group["lr"] * rectifier,
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"] / rectifier,
                eps=group["eps"] / math.sqrt(1 - beta2**step),
                amsgrad=False,
                maximize=False,
            )
            done.update(map(id, same))
        return [p for p in params if id(p) not in done]

    def _widen(self, narrow: torch.Tensor) -> torch.Tensor:
        if narrow.grad is None or narrow.dtype not in (torch.float16, torch.bfloat16):
            return narrow
        wide = torch.nn.Parameter(narrow.float())
        wide.grad = narrow.grad.float()
        self.state[wide] = self.state.pop(narrow, {})
        return wide
