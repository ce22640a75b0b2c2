"""Label smoothed cross entropy from the logits themselves."""

from dataclasses import dataclass
from typing import Any, Dict, Tuple

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.models import BaseFairseqModel, FairseqDecoder
from fairseq.models.transformer import TransformerModelBase
from torch import Tensor, nn

from fairseq_sru.ops import cross_entropy
from fairseq_sru.options import check_config


@dataclass
class FusedCrossEntropyConfig(LabelSmoothedCrossEntropyCriterionConfig):
    pass


@register_criterion("fused_label_smoothed_cross_entropy", dataclass=FusedCrossEntropyConfig)
class FusedCrossEntropyCriterion(LabelSmoothedCrossEntropyCriterion):
    """fairseq's ``label_smoothed_cross_entropy``, the same loss and options, without a tensor of
    log probabilities, for any model of translation or of language.

    Raises:
        UsageError: an impossible option.
    """

    config: type = FusedCrossEntropyConfig  # the dataclass of its options

    def __init__(self, task: Any, cfg: LabelSmoothedCrossEntropyCriterionConfig) -> None:
        check_config(cfg, type(self).config)
        super().__init__(
            task,
            sentence_avg=cfg.sentence_avg,
            label_smoothing=cfg.label_smoothing,
            ignore_prefix_size=cfg.ignore_prefix_size,
            report_accuracy=cfg.report_accuracy,
        )

    @classmethod
    def build_criterion(
        cls, cfg: LabelSmoothedCrossEntropyCriterionConfig, task: Any
    ) -> "FusedCrossEntropyCriterion":
        return cls(task, cfg)

    def get_lprobs_and_target(
        self, model: nn.Module, net_output: Any, sample: Dict[str, Any]
    ) -> Tuple[Tensor, Tensor]:
        """Logits, or log probabilities, which are some, (B * T, vocabulary) and targets (B * T)."""
        if not predicts_by_softmax(model):
            return super().get_lprobs_and_target(model, net_output, sample)
        logits: Tensor = net_output[0]
        target: Tensor = model.get_targets(sample, net_output)  # type: ignore[operator]
        if self.ignore_prefix_size > 0:
            logits = logits[:, self.ignore_prefix_size :]
            target = target[:, self.ignore_prefix_size :]
        return logits.reshape(-1, logits.size(-1)), target.reshape(-1)

    def compute_loss(
        self, model: nn.Module, net_output: Any, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Tensor]:
        loss, nll = self.cross_entropy(*self.get_lprobs_and_target(model, net_output, sample))
        return (loss.sum(), nll.sum()) if reduce else (loss, nll)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
        """(smoothed, plain) of each token, (B * T, 1), 0 where the target is padding."""
        nll, mean_nll = cross_entropy(logits, target, self.padding_idx)
        types = logits.size(-1)
        share = self.eps * types / (types - 1)  # fairseq's eps leaves out the target
        return ((1 - share) * nll + share * mean_nll).unsqueeze(-1), nll.unsqueeze(-1)


def predicts_by_softmax(model: nn.Module) -> bool:
    """Whether its probabilities are fairseq's softmax of what it returns first."""
    decoder = getattr(model, "decoder", None)
    return (
        decoder is not None
        and getattr(decoder, "adaptive_softmax", None) is None
        and _inherits(model, BaseFairseqModel, TransformerModelBase)
        and _inherits(decoder, FairseqDecoder)
    )


def _inherits(module: Any, *bases: Any) -> bool:
    """Whether a model or decoder has the probabilities of one of these classes."""
    return all(
        getattr(getattr(module, name), "__func__", None) in [getattr(base, name) for base in bases]
        for name in ("get_normalized_probs", "get_normalized_probs_scriptable")
    )
