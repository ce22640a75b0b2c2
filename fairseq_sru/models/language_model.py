"""The SRU++ and SRU language models."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqLanguageModel
from torch import Tensor

from fairseq_sru.compat import register_model
from fairseq_sru.models import sru_lm_presets
from fairseq_sru.models.lm_config import SRUppLMConfig
from fairseq_sru.models.lm_decoder import LMDecoder, default
from fairseq_sru.models.lm_presets import PRESETS
from fairseq_sru.models.presets import register_presets
from fairseq_sru.models.sru_lm_config import SRULMConfig
from fairseq_sru.models.stack import build_stack
from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.modules.sru import SRUState
from fairseq_sru.state import DecodingState, StreamMemory, StreamState


class SRUppLMDecoder(LMDecoder):
    """SRU++ layers, whose memory holds cells and the inputs of the layers that attend.

    Source: SRU++ paper sections 3 and 4, appendix B.
    """

    def __init__(self, cfg: SRUppLMConfig, dictionary: Dictionary) -> None:
        super().__init__(cfg, dictionary)
        self.generation_context = cfg.generation_context

    def build_stack(self, cfg: SRUppLMConfig, input_size: int) -> SRUpp:
        return build_stack(
            cfg, input_size, cfg.layers, cfg.attention, default(cfg.attention_dropout, cfg.dropout))

    def read_segment(
        self, x: Tensor, pad: Tensor | None, before: StreamState | None, memory: StreamMemory | None
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        banded = memory is not None and not self.training
        out = self.stack(
            x,
            c0=None if before is None else before.cells,
            pad=pad,
            context=None if before is None else before.inputs,
            context_pad=None if before is None else before.pad,
            causal=True,
            window=memory.eval_context if banded else None,
        )
        attended = [
            x if layer.kv_proj is not None else None
            for x, layer in zip(out.inputs, self.stack.layers)
        ]
        return out.h, out.c, attended

    def start(self, rows: int) -> DecodingState:
        return self.stack.start(rows, window=self.generation_context)

    def step(self, x: Tensor, state: DecodingState) -> Tensor:
        return torch.cat([self.stack.step(token, state)[0] for token in x.split(1)])


class SRULMDecoder(LMDecoder):
    """SRU layers, whose memory holds cells alone: a token sees all before it, whatever
    --eval-context says.

    Source: SRU paper section 4.4; which layers have a projection, and sizes of embedding and
    output, as in its authors' training script.
    """

    narrow_features = False

    def build_stack(self, cfg: SRULMConfig, input_size: int) -> SRU:
        if cfg.proj_size is not None and not 0 < cfg.proj_size < cfg.hidden_size:
            raise ValueError(f"--proj-size must be between 0 and --hidden-size "
                             f"({cfg.hidden_size}), got {cfg.proj_size}")
        proj_sizes = [cfg.proj_size] * cfg.layers
        if cfg.proj_size is not None and not cfg.project_input and input_size <= cfg.proj_size:
            proj_sizes[:1] = [None]  # it would widen the first layer's input, not narrow it
        return SRU(
            input_size,
            cfg.hidden_size,
            cfg.layers,
            proj_sizes,
            dropout=cfg.dropout,
            layer_norm=None if str(cfg.layer_norm) == "none" else str(cfg.layer_norm),
            highway=not cfg.no_highway,
            highway_bias=cfg.highway_bias,
            rescale=not cfg.no_rescale,
            weight_c=not cfg.no_weight_c,
            project_input=cfg.project_input,
        )

    def read_segment(
        self, x: Tensor, pad: Tensor | None, before: StreamState | None, memory: StreamMemory | None
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        h, c = self.stack(x, None if before is None else before.cells, pad)
        return h, c, [None] * len(self.stack.layers)

    def start(self, rows: int) -> SRUState:
        return self.stack.start(rows)

    def step(self, x: Tensor, state: SRUState) -> Tensor:
        return self.stack.step(x, state)


class LanguageModel(FairseqLanguageModel):
    """A decoder of ``decoder_class`` alone."""

    decoder_class: type[LMDecoder]

    @classmethod
    def build_model(cls, cfg: SRUppLMConfig | SRULMConfig, task: Any) -> LanguageModel:
        """Build from options and the task's dictionary.

        Raises:
            ValueError: impossible sizes or options.
        """
        return cls(cls.decoder_class(cfg, task.target_dictionary))


@register_model("srupp_lm", dataclass=SRUppLMConfig)
class SRUppLanguageModel(LanguageModel):
    """SRU++ language model (SRU++ paper, section 4 and appendix B)."""

    decoder_class = SRUppLMDecoder


@register_model("sru_lm", dataclass=SRULMConfig)
class SRULanguageModel(LanguageModel):
    """SRU language model (SRU paper, section 4.4)."""

    decoder_class = SRULMDecoder


register_presets("srupp_lm", PRESETS)
register_presets("sru_lm", sru_lm_presets.PRESETS)
