"""Dynamic evaluation: a language model goes on learning from the text that it is tested on.

Source: Krause et al. (2018), Dynamic evaluation of neural sequence models: RMS with decay.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Iterable, Iterator

import torch
from fairseq import utils
from fairseq.criterions.adaptive_loss import AdaptiveLoss
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from torch import Tensor, nn

from fairseq_sru.errors import UsageError
from fairseq_sru.options import check_options


class DynamicEvaluation:
    """Batches in order; when the next one is asked for, the models learn from the one before, which
    has been scored by then. At the end of the text they are what they were.

    A parameter p whose gradients on the training text have the root mean square r moves by

        p <- p - lr * gradient / (r + epsilon) + min(1, decay * r / mean r) * (p at the start - p)

    Args:
        batches: segments of streams, with the memory of each.
        learners: the models, each with the r of its parameters.
        lr, decay, epsilon: see above.

    Raises:
        UsageError: a rate that is not a number, or negative; epsilon 0.
    """

    def __init__(
        self, batches: Any, learners: list[Learner], lr: float, decay: float, epsilon: float
    ) -> None:
        self.batches = batches
        self.learners = learners
        self.rates = {"lr": lr, "decay": decay, "epsilon": epsilon}
        named = {f"dynamic_{name}": rate for name, rate in self.rates.items()}
        check_options(SimpleNamespace(**named), named)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            for batch in self.batches:
                yield batch
                for learner in self.learners:
                    learner.learn(batch, **self.rates)
        finally:
            for learner in self.learners:
                learner.forget()


class Learner:
    """A language model that learns while it is evaluated.

    Args:
        model: in evaluation mode, in float32 or wider.
        task: whose padding the loss leaves out.

    Raises:
        UsageError: 16-bit parameters, in which small steps are lost.
    """

    def __init__(self, model: nn.Module, task: Any) -> None:
        self.model = model
        self.parameters: list[Tensor] = list(model.parameters())
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in self.parameters):
            raise UsageError("dynamic evaluation needs float32 parameters: leave out --fp16")
        adaptive = getattr(model.decoder, "adaptive_softmax", None) is not None
        criterion = AdaptiveLoss if adaptive else CrossEntropyCriterion
        self.criterion = criterion(task, sentence_avg=False)
        self.start = [p.detach().clone() for p in self.parameters]
        self.deviations: list[Tensor] = []
        self.mean_deviation = 0.0

    def gradients(self, batch: dict[str, Any]) -> list[Tensor]:
        """Those of the mean loss of a batch's tokens."""
        device = self.parameters[0].device
        if device.type == "cuda":
            batch = utils.move_to_cuda(batch, device)
        with torch.enable_grad():
            loss, tokens, _ = self.criterion(self.model, batch)
            return list(
                torch.autograd.grad(loss / tokens, self.parameters, materialize_grads=True))

    def measure(self, batches: Iterable[dict[str, Any]]) -> None:
        """Take the root mean square of every parameter's gradients on these batches.

        Raises:
            UsageError: there is no batch.
        """
        squares = [torch.zeros_like(p) for p in self.parameters]
        count = 0
        for batch in batches:
            gradients = self.gradients(batch)
            torch._foreach_addcmul_(squares, gradients, gradients)
            count += 1
        if count == 0:
            raise UsageError("dynamic evaluation needs a training text")
        self.deviations = [square.div_(count).sqrt_() for square in squares]
        total = sum(float(r.sum()) for r in self.deviations)
        self.mean_deviation = total / sum(r.numel() for r in self.deviations)

    @torch.no_grad()
    def learn(self, batch: dict[str, Any], lr: float, decay: float, epsilon: float) -> None:
        """One step, see :class:`DynamicEvaluation`."""
        everything = zip(self.parameters, self.gradients(batch), self.deviations, self.start)
        for p, gradient, r, start in everything:
            back = (r * (decay / self.mean_deviation)).clamp_(max=1) * (start - p)
            p.addcdiv_(gradient, r + epsilon, value=-lr).add_(back)

    @torch.no_grad()
    def forget(self) -> None:
        """Go back to the parameters of the start."""
        torch._foreach_copy_(self.parameters, self.start)
