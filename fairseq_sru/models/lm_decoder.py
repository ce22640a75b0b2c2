"""What the language models share: embedding -> a stack of layers -> softmax, and memory."""

from __future__ import annotations

import math
import sys
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from fairseq_sru.models.adaptive import TiedAdaptiveSoftmax, build_adaptive_input
from fairseq_sru.models.embedding import build_embedding
from fairseq_sru.models.lm_config import SRUppLMConfig
from fairseq_sru.models.sru_lm_config import SRULMConfig
from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.modules.sru import SRUState
from fairseq_sru.ops import Linear, dropout
from fairseq_sru.state import DecodingState, StreamMemory, StreamState


class LMDecoder(FairseqIncrementalDecoder):
    """Predict every next token from those before.

    Without memory a row is a text of its own; with it, the next segment of a stream whose cells,
    and layer inputs where layers attend, the memory carries. A subclass builds the stack and runs
    it.

    Raises:
        ValueError: impossible sizes or options.
    """

    #: an output of its own reads features of the embedding's size, as a tied one must
    narrow_features = True

    def __init__(self, cfg: SRUppLMConfig | SRULMConfig, dictionary: Dictionary) -> None:
        super().__init__(dictionary)
        embed_dim = cfg.hidden_size if cfg.embed_dim is None else cfg.embed_dim
        self.padding_idx = dictionary.pad()
        self.embedding_dropout = default(cfg.embedding_dropout, cfg.dropout)
        self.output_dropout = default(cfg.output_dropout, cfg.dropout)
        self.feature_proj = self.output_projection = self.adaptive_softmax = None
        if cfg.adaptive_cutoff:
            self._build_adaptive(cfg, len(dictionary), embed_dim)
        else:
            self._build_plain(cfg, len(dictionary), embed_dim)
        self.stack = self.build_stack(cfg, cfg.hidden_size if cfg.adaptive_cutoff else embed_dim)

    def build_stack(self, cfg: SRUppLMConfig | SRULMConfig, input_size: int) -> SRU | SRUpp:
        """The layers, from embeddings of ``input_size`` to --hidden-size."""
        raise NotImplementedError

    def read_segment(
        self, x: Tensor, pad: Tensor | None, before: StreamState | None, memory: StreamMemory | None
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Run the stack over whole texts, or over a segment of streams.

        Args:
            x: (L, B, input_size). pad: (L, B) bool, True = padding, or None.
            before: state of the streams. memory: whose, None for whole texts.

        Returns:
            h (L, B, D), c (layers, B, D), the input (L, B, C) of each layer that attends, None of
            the others.
        """
        raise NotImplementedError

    def start(self, rows: int) -> DecodingState | SRUState:
        """State of ``rows`` hypotheses before the first token."""
        raise NotImplementedError

    def step(self, x: Tensor, state: DecodingState | SRUState) -> Tensor:
        """Read the next tokens: x (L, R, input_size) -> h (L, R, D); advances the state."""
        raise NotImplementedError

    def _build_plain(
        self, cfg: SRUppLMConfig | SRULMConfig, vocabulary: int, embed_dim: int
    ) -> None:
        if cfg.tie_adaptive_proj:
            raise ValueError("--tie-adaptive-proj needs --adaptive-cutoff")
        tied = cfg.share_decoder_input_output_embed
        features = embed_dim if tied or self.narrow_features else cfg.hidden_size
        self.embed_tokens = build_embedding(vocabulary, embed_dim, self.padding_idx)
        if features != cfg.hidden_size:
            self.feature_proj = Linear(cfg.hidden_size, features, bias=False)
            nn.init.xavier_uniform_(self.feature_proj.weight)
        self.output_projection = Linear(features, vocabulary)
        nn.init.zeros_(self.output_projection.bias)
        if tied:
            self.output_projection.weight = self.embed_tokens.weight
        else:
            bound = math.sqrt(3.0 / embed_dim)
            nn.init.uniform_(self.output_projection.weight, -bound, bound)

    def _build_adaptive(
        self, cfg: SRUppLMConfig | SRULMConfig, vocabulary: int, embed_dim: int
    ) -> None:
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
        """(B, T, embedding or hidden size) -> (B, T, vocabulary); the adaptive softmax reads
        features."""
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
        before = None
        if memory is not None and memory.before is not None:
            before = memory.before.to(x.device)
        h, c, attended = self.read_segment(x, pad, before, memory)
        if memory is not None:
            context = memory.train_context if self.training else memory.eval_context
            memory.leave(StreamState.after(before, c, attended, pad, context))
        return h

    def _read_next(self, tokens: Tensor, incremental_state: dict[str, Any]) -> Tensor:
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is None:
            state = self.start(tokens.size(0))
            self.set_incremental_state(incremental_state, "decoding", state)
        return self.step(self._embed(tokens[:, state.length :]), state)

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


def default(value: float | None, otherwise: float) -> float:
    """``value``, or ``otherwise`` if there is none."""
    return otherwise if value is None else value
