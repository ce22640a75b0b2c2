"""The SRU++ language model: embedding -> SRU++ layers -> softmax, with or without memory."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder, FairseqLanguageModel
from torch import Tensor, nn

from fairseq_sru.compat import register_model
from fairseq_sru.models.adaptive import TiedAdaptiveSoftmax, build_adaptive_input
from fairseq_sru.models.embedding import build_embedding
from fairseq_sru.models.lm_config import SRUppLMConfig
from fairseq_sru.models.lm_presets import PRESETS
from fairseq_sru.models.presets import register_presets
from fairseq_sru.modules import SRUpp
from fairseq_sru.ops import dropout
from fairseq_sru.state import StreamMemory, StreamState


class SRUppLMDecoder(FairseqIncrementalDecoder):
    """Predict every next token from those before.

    Without memory a row is a text of its own; with it, the next segment of a stream whose cells
    and layer inputs the memory carries.

    Raises:
        ValueError: impossible sizes or options.

    Source: SRU++ paper sections 3 and 4, appendix B.
    """

    def __init__(self, cfg: SRUppLMConfig, dictionary: Dictionary) -> None:
        super().__init__(dictionary)
        embed_dim = cfg.hidden_size if cfg.embed_dim is None else cfg.embed_dim
        self.padding_idx = dictionary.pad()
        self.generation_context = cfg.generation_context
        self.embedding_dropout = _default(cfg.embedding_dropout, cfg.dropout)
        self.output_dropout = _default(cfg.output_dropout, cfg.dropout)
        self.feature_proj = self.output_projection = self.adaptive_softmax = None
        if cfg.adaptive_cutoff:
            self._build_adaptive(cfg, len(dictionary), embed_dim)
        else:
            self._build_plain(cfg, len(dictionary), embed_dim)
        self.stack = SRUpp(
            cfg.hidden_size if cfg.adaptive_cutoff else embed_dim,
            cfg.hidden_size,
            cfg.proj_size,
            cfg.layers,
            attention=cfg.attention,
            num_heads=cfg.num_heads,
            alpha=cfg.alpha_init,
            dropout=cfg.dropout,
            attn_dropout=_default(cfg.attention_dropout, cfg.dropout),
            attn_layer_norm=not cfg.no_attention_norm,
            layer_norm=None if str(cfg.layer_norm) == "none" else str(cfg.layer_norm),
            highway_bias=cfg.highway_bias,
            rescale=cfg.rescale,
            project_input=True,
        )

    def _build_plain(self, cfg: SRUppLMConfig, vocabulary: int, embed_dim: int) -> None:
        if cfg.tie_adaptive_proj:
            raise ValueError("--tie-adaptive-proj needs --adaptive-cutoff")
        self.embed_tokens = build_embedding(vocabulary, embed_dim, self.padding_idx)
        if embed_dim != cfg.hidden_size:
            self.feature_proj = nn.Linear(cfg.hidden_size, embed_dim, bias=False)
            nn.init.xavier_uniform_(self.feature_proj.weight)
        self.output_projection = nn.Linear(embed_dim, vocabulary)
        nn.init.zeros_(self.output_projection.bias)
        if cfg.share_decoder_input_output_embed:
            self.output_projection.weight = self.embed_tokens.weight
        else:
            bound = math.sqrt(3.0 / embed_dim)
            nn.init.uniform_(self.output_projection.weight, -bound, bound)

    def _build_adaptive(self, cfg: SRUppLMConfig, vocabulary: int, embed_dim: int) -> None:
        if cfg.share_decoder_input_output_embed:
            raise ValueError("--adaptive-cutoff ties the embeddings itself: leave out "
                             "--share-decoder-input-output-embed")
        self.embed_tokens = build_adaptive_input(
            vocabulary, self.padding_idx, embed_dim, cfg.adaptive_factor, cfg.hidden_size,
            cfg.adaptive_cutoff)
        self.adaptive_softmax = TiedAdaptiveSoftmax(
            self.embed_tokens, cfg.hidden_size, self.output_dropout, cfg.tie_adaptive_proj)
        self.output_dropout = 0.0  # the softmax has it

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: None = None,
        incremental_state: dict[str, Any] | None = None,
        features_only: bool = False,
        memory: StreamMemory | None = None,
        padded: bool | None = None,
        **unused,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Score the next token at every position.

        Args:
            prev_output_tokens: (B, T), shifted right.
            incremental_state: with it only the tokens not yet read are scored.
            memory: of the streams whose next segments these are.
            padded: whether any token is padding; None: find out.

        Returns:
            scores (B, T, vocabulary), or features (B, T, embedding or hidden size) with
            ``features_only`` and for the adaptive softmax; {"attn": None}.
        """
        features, extra = self.extract_features(
            prev_output_tokens, encoder_out, incremental_state, memory, padded)
        return (features if features_only else self.output_layer(features)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: None = None,
        incremental_state: dict[str, Any] | None = None,
        memory: StreamMemory | None = None,
        padded: bool | None = None,
        **unused,
    ) -> tuple[Tensor, dict[str, Any]]:
        """As :meth:`forward`, without the output projection."""
        if incremental_state is not None:
            x = self._read_next(prev_output_tokens, incremental_state)
        else:
            x = self._read_all(prev_output_tokens, memory, padded)
        x = x.transpose(0, 1)
        if self.feature_proj is not None:
            x = self.feature_proj(x)
        return dropout(x, self.output_dropout, self.training), {"attn": None}

    def output_layer(self, features: Tensor, **unused) -> Tensor:
        """(B, T, embedding size) -> (B, T, vocabulary); the adaptive softmax reads features."""
        return features if self.output_projection is None else self.output_projection(features)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens.t())
        return dropout(x, self.embedding_dropout, self.training)

    def _read_all(
        self, tokens: Tensor, memory: StreamMemory | None, padded: bool | None
    ) -> Tensor:
        pad = None if padded is False else tokens.eq(self.padding_idx).t()
        if padded is None and tokens.device.type == "cpu" and not pad.any():
            pad = None
        x = self._embed(tokens)
        if memory is None:
            return self.stack(x, pad=pad, causal=True).h
        context = memory.train_context if self.training else memory.eval_context
        before = None if memory.before is None else memory.before.to(x.device)
        out = self.stack(
            x,
            c0=None if before is None else before.cells,
            pad=pad,
            context=None if before is None else before.inputs,
            context_pad=None if before is None else before.pad,
            causal=True,
            window=None if self.training else context,
        )
        attended = [
            x if layer.kv_proj is not None else None
            for x, layer in zip(out.inputs, self.stack.layers)
        ]
        memory.leave(StreamState.after(before, out.c, attended, pad, context))
        return out.h

    def _read_next(self, tokens: Tensor, incremental_state: dict[str, Any]) -> Tensor:
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is None:
            state = self.stack.start(tokens.size(0), window=self.generation_context)
            self.set_incremental_state(incremental_state, "decoding", state)
        return torch.cat([
            self.stack.step(self._embed(tokens[:, t : t + 1]), state)[0]
            for t in range(state.length, tokens.size(1))
        ])

    def reorder_incremental_state(
        self, incremental_state: dict[str, Any], new_order: Tensor
    ) -> None:
        """Row i continues what row new_order[i] was (beam search)."""
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is not None:
            state.reorder(new_order)

    def max_positions(self) -> int:
        """There is no limit."""
        return sys.maxsize


@register_model("srupp_lm", dataclass=SRUppLMConfig)
class SRUppLanguageModel(FairseqLanguageModel):
    """SRU++ language model (SRU++ paper, section 4 and appendix B)."""

    @classmethod
    def build_model(cls, cfg: SRUppLMConfig, task: Any) -> SRUppLanguageModel:
        """Build from options and the task's dictionary.

        Raises:
            ValueError: impossible sizes or options.
        """
        return cls(SRUppLMDecoder(cfg, task.target_dictionary))


def _default(value: float | None, default: float) -> float:
    return default if value is None else value


register_presets("srupp_lm", PRESETS)
