"""Consistency training: a second, disturbed reading shall predict what the first does.

For any fairseq translation model. Validation is label smoothed cross entropy.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Tuple

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics
from torch import Tensor, nn

from fairseq_sru.criterions.fused import FusedCrossEntropyCriterion
from fairseq_sru.errors import UsageError
from fairseq_sru.ops import divergence


@dataclass
class RDropConfig(LabelSmoothedCrossEntropyCriterionConfig):
    r_drop_weight: float = field(
        default=5.0, metadata={"help": "weight of the divergence between two dropouts"}
    )


@dataclass
class SimCutConfig(LabelSmoothedCrossEntropyCriterionConfig):
    simcut_weight: float = field(
        default=3.0, metadata={"help": "weight of the divergence between whole and cut input"}
    )
    simcut_probability: float = field(
        default=0.05, metadata={"help": "probability that a token's embedding is cut to zero"}
    )


class _ConsistencyCriterion(FusedCrossEntropyCriterion):
    """Cross entropy plus weighted divergence of two readings of a batch."""

    def __init__(
        self, task: Any, cfg: LabelSmoothedCrossEntropyCriterionConfig, weight: float
    ) -> None:
        super().__init__(task, cfg)
        self.weight = weight

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Loss of a batch: its sum, or without ``reduce`` that of each token, (B * T, 1); the size
        that divides it; what is logged, cross entropy and divergence apart, in nats."""
        if not model.training:
            return super().forward(model, sample, reduce)
        first, target = self.read(model, sample)
        second, _ = self.read_again(model, sample)
        parts = self.compare(first, second, target)
        loss, nll_loss, divergence = (part.sum() for part in parts) if reduce else parts
        loss = loss + self.weight * divergence
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.data,
            "nll_loss": nll_loss.data,
            "divergence": divergence.data,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            real = target.ne(self.padding_idx)
            logging_output["n_correct"] = (first.argmax(-1).eq(target) & real).sum()
            logging_output["total"] = real.sum()
        return loss, sample_size, logging_output

    def read(self, model: nn.Module, sample: Dict[str, Any]) -> Tuple[Tensor, Tensor]:
        """Logits (B * T, vocabulary) and targets (B * T)."""
        return self.get_lprobs_and_target(model, model(**sample["net_input"]), sample)

    read_again = read

    def compare(self, first: Tensor, second: Tensor, target: Tensor) -> Tuple[Tensor, ...]:
        """(smoothed cross entropy, cross entropy, divergence) of each token, (B * T, 1)."""
        raise NotImplementedError

    def divergence(self, p: Tensor, q: Tensor, target: Tensor) -> Tensor:
        """KL(p || q) of each token, (B * T, 1), 0 where the target is padding."""
        return divergence(p, q).masked_fill(target.eq(self.padding_idx), 0).unsqueeze(-1)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        super().reduce_metrics(logging_outputs)
        if "divergence" in logging_outputs[0]:
            total = sum(log["divergence"] for log in logging_outputs)
            tokens = sum(log["ntokens"] for log in logging_outputs)
            metrics.log_scalar("divergence", total / tokens, tokens, round=3)


@register_criterion("r_drop", dataclass=RDropConfig)
class RDropCriterion(_ConsistencyCriterion):
    """Two readings differ by their dropout: mean of both cross entropies and, weighted, half the
    mean of the divergences in both directions.

    It is half the loss of the paper, hence on the scale of cross entropy.

    Source: Liang et al. (2021), R-Drop, equations 1 to 3.

    Raises:
        UsageError: an impossible option.
    """

    config = RDropConfig

    def __init__(self, task: Any, cfg: RDropConfig) -> None:
        super().__init__(task, cfg, cfg.r_drop_weight)

    def compare(self, first: Tensor, second: Tensor, target: Tensor) -> Tuple[Tensor, ...]:
        losses = zip(self.cross_entropy(first, target), self.cross_entropy(second, target))
        loss, nll_loss = ((a + b) / 2 for a, b in losses)
        both_ways = self.divergence(first, second, target) + self.divergence(second, first, target)
        return loss, nll_loss, both_ways / 4


@register_criterion("simcut", dataclass=SimCutConfig)
class SimCutCriterion(_ConsistencyCriterion):
    """The second reading lacks some tokens of source and target: their embeddings are zero. Cross
    entropy of the first reading and, weighted, the divergence of the second from it; gradients
    reach both.

    Source: Gao et al. (2022), Bi-SimCut, section 3.

    Raises:
        UsageError: an impossible option, a model whose embeddings cannot be found.
    """

    config = SimCutConfig

    def __init__(self, task: Any, cfg: SimCutConfig) -> None:
        super().__init__(task, cfg, cfg.simcut_weight)
        self.probability = cfg.simcut_probability

    def read_again(self, model: nn.Module, sample: Dict[str, Any]) -> Tuple[Tensor, Tensor]:
        with cut_tokens(model, self.probability):
            return self.read(model, sample)

    def compare(self, first: Tensor, second: Tensor, target: Tensor) -> Tuple[Tensor, ...]:
        return *self.cross_entropy(first, target), self.divergence(first, second, target)


@contextmanager
def cut_tokens(model: nn.Module, probability: float) -> Iterator[None]:
    """Within it, embeddings of tokens are zero with this probability, drawn at every call.

    Raises:
        UsageError: no module of the model has ``embed_tokens``.
    """
    found = (getattr(module, "embed_tokens", None) for module in model.modules())
    embeddings = {module for module in found if isinstance(module, nn.Module)}
    if not embeddings:
        raise UsageError(
            "simcut cuts tokens in the modules called embed_tokens, and this model has none: train "
            "it with --criterion r_drop"
        )

    def cut(_: nn.Module, inputs: Tuple[Tensor, ...], embedded: Tensor) -> Tensor:
        return embedded * draw_kept(inputs[0], probability).unsqueeze(-1).to(embedded.dtype)

    hooks = [module.register_forward_hook(cut) for module in embeddings]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def draw_kept(tokens: Tensor, probability: float) -> Tensor:
    """1 for tokens that stay, 0 for those that are cut, in the shape of ``tokens``."""
    return torch.empty(tokens.shape, device=tokens.device).bernoulli_(1 - probability)
