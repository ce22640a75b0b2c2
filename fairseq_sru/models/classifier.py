"""Sentence classifiers for fairseq's ``sentence_prediction`` task: tokens -> embedding -> filters
if there are any -> layers -> pooling -> a linear head."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.data import Dictionary
from fairseq.models import BaseFairseqModel
from torch import Tensor, nn

from fairseq_sru.models.classifier_config import (
    SRU_PRESETS,
    ClassifierConfig,
    SRUClassifierConfig,
    SRUppClassifierConfig,
)
from fairseq_sru.models.config import SRULayerConfig
from fairseq_sru.models.embedding import Dropout, build_embedding, load_vectors
from fairseq_sru.models.stack import build_srupp, layer_options
from fairseq_sru.modules import SRU, pool
from fairseq_sru.ops import Linear
from fairseq_sru.ops.padding import zero_padding
from fairseq_sru.options import check_config
from fairseq_sru.registry import register_model, register_presets

logger = logging.getLogger(__name__)


class Filters(nn.Module):
    """A convolution: a word reads itself, the ``width // 2`` words before it and the
    ``(width - 1) // 2`` after it. QRNN's (Bradbury et al., 2017, section 2.1) has those before."""

    def __init__(self, input_size: int, output_size: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(input_size, output_size, width, padding=width // 2)

    def forward(self, x: Tensor, pad: Tensor | None = None) -> Tensor:
        """(L, B, input_size) -> (L, B, output_size). Padding, ``pad`` (L, B), counts as zeros."""
        if pad is not None:
            x = zero_padding(x, pad)
        return self.conv(x.permute(1, 2, 0))[..., : len(x)].permute(2, 0, 1)


class SentenceClassifier(BaseFairseqModel):
    """Embedding, an encoder of any kind, and a head for every classification.

    Args:
        encoder: called with x (L, B, embedding size) and ``pad`` (L, B) or None; the first of what
            it returns is h (L, B, D), D its ``output_size``.
        filters: what the encoder reads instead of the embeddings, from them.
        pooling, bidirectional: of :func:`fairseq_sru.modules.pool`.
        embedding_dropout, output_dropout: of the embeddings, and of what the heads read.
    """

    def __init__(
        self,
        embed_tokens: nn.Embedding,
        encoder: nn.Module,
        *,
        filters: Filters | None = None,
        pooling: str = "last",
        bidirectional: bool = False,
        embedding_dropout: float = 0.0,
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed_tokens = embed_tokens
        self.padding_idx: Any = embed_tokens.padding_idx
        self.filters = filters
        self.encoder: Any = encoder
        self.pooling = pooling
        self.bidirectional = bidirectional
        name = type(self).__name__
        self.embedding_dropout = Dropout(embedding_dropout, module_name=name)
        self.output_dropout = Dropout(output_dropout, module_name=name)
        self.classification_heads = nn.ModuleDict()

    def register_classification_head(self, name: str, num_classes: int, **unused: Any) -> None:
        """Add the head ``name``, whose biases start at zero. fairseq's task does it."""
        head = Linear(self.encoder.output_size, num_classes)
        nn.init.zeros_(head.bias)
        self.classification_heads[name] = head

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        features_only: bool = True,
        classification_head_name: str | None = None,
    ) -> tuple[Tensor, None]:
        """Classify a batch.

        Args:
            src_tokens: (B, L), padded left or right.
            features_only: as fairseq's criterion says; there is nothing else.

        Returns:
            logits (B, classes) of the head, or what it would read, (B, D), without a name; None.
        """
        padding = src_tokens.t().eq(self.padding_idx)
        pad = None if padding.device.type == "cpu" and not padding.any() else padding
        x = self.embedding_dropout(self.embed_tokens(src_tokens.t()))
        if self.filters is not None:
            x = self.filters(x, pad)
        h, *_ = self.encoder(x, pad=pad)
        x = self.output_dropout(pool(h, pad, self.pooling, self.bidirectional))
        if classification_head_name is not None:
            x = self.classification_heads[classification_head_name](x)
        return x, None

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """As RoBERTa's: a checkpoint's heads that this model has not, or not for as many classes,
        are left out with a warning, and this model's others keep their start values."""
        super().upgrade_state_dict_named(state_dict, name)
        prefix = f"{name}." if name else ""
        own = self.classification_heads.state_dict(prefix=f"{prefix}classification_heads.")
        for key in [key for key in state_dict if key.startswith(f"{prefix}classification_heads.")]:
            if key not in own or own[key].shape != state_dict[key].shape:
                logger.warning(f"the checkpoint's {key} is left out: this model's heads differ")
                del state_dict[key]
        for key, start in own.items():
            state_dict.setdefault(key, start)

    def get_normalized_probs(
        self, net_output: tuple[Tensor, Any], log_probs: bool, sample: Any = None
    ) -> Tensor:
        """(Logarithms of) the probabilities of the classes, from what :meth:`forward` returns."""
        logits = net_output[0].float()
        return logits.log_softmax(-1) if log_probs else logits.softmax(-1)


@register_model("sru_classifier", dataclass=SRUClassifierConfig)
class SRUClassifier(SentenceClassifier):
    """SRU layers (SRU paper, section 4.1)."""

    @classmethod
    def build_model(cls, cfg: SRUClassifierConfig, task: Any) -> SRUClassifier:
        """Build from options and the task's dictionary.

        Raises:
            ValueError: impossible sizes or options, or a malformed --embed-path.
        """
        check_config(cfg, SRUClassifierConfig)
        _check(task)
        filters, input_size = _filters(cfg)
        stack = SRU(input_size, cfg.hidden_size, cfg.layers, bidirectional=cfg.bidirectional,
                    **layer_options(cfg, SRULayerConfig))
        return cls(_embedding(cfg, task.source_dictionary), stack, filters=filters, **_options(cfg))


@register_model("srupp_classifier", dataclass=SRUppClassifierConfig)
class SRUppClassifier(SentenceClassifier):
    """SRU++ layers, which attend to the whole sentence."""

    @classmethod
    def build_model(cls, cfg: SRUppClassifierConfig, task: Any) -> SRUppClassifier:
        """Build from options and the task's dictionary.

        Raises:
            ValueError: impossible sizes or options, or a malformed --embed-path.
        """
        check_config(cfg, SRUppClassifierConfig)
        _check(task)
        filters, input_size = _filters(cfg)
        stack = build_srupp(
            cfg, input_size, cfg.layers, cfg.attention, bidirectional=cfg.bidirectional)
        return cls(_embedding(cfg, task.source_dictionary), stack, filters=filters, **_options(cfg))


def _check(task: Any) -> None:
    if getattr(getattr(task, "cfg", None), "add_prev_output_tokens", False):
        raise ValueError("--add-prev-output-tokens is for models with a decoder, which a sentence "
                         "classifier has not: leave it out")


def _embedding(cfg: ClassifierConfig, dictionary: Dictionary) -> nn.Embedding:
    embedding = build_embedding(len(dictionary), cfg.embed_dim, dictionary.pad())
    if cfg.embed_path is not None:
        load_vectors(embedding, Path(cfg.embed_path), dictionary)
        with torch.no_grad():  # to length 1, as in the SRU paper's section 4.1
            embedding.weight.copy_(F.normalize(embedding.weight, dim=-1))
    embedding.weight.requires_grad = not cfg.freeze_embed
    return embedding


def _filters(cfg: Any) -> tuple[Filters | None, int]:
    """What comes before the layers, and the size of what they read."""
    if cfg.filter_width == 1:
        return None, cfg.embed_dim
    size = cfg.hidden_size * (2 if cfg.bidirectional else 1)
    return Filters(cfg.embed_dim, size, cfg.filter_width), size


def _options(cfg: Any) -> dict[str, Any]:
    return dict(
        pooling=str(cfg.pooling),
        bidirectional=cfg.bidirectional,
        embedding_dropout=_default(cfg.embedding_dropout, cfg.dropout),
        output_dropout=_default(cfg.output_dropout, cfg.dropout),
    )


def _default(value: float | None, default: float) -> float:
    return default if value is None else value


register_presets("sru_classifier", SRU_PRESETS)
