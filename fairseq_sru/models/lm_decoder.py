"""The decoder of the language models: embedding -> a stack of layers -> softmax, and memory."""

from __future__ import annotations

import sys
from typing import Any, Callable

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from fairseq_sru.errors import UsageError
from fairseq_sru.models.embedding import (
    TiedAdaptiveSoftmax,
    build_adaptive_input,
    build_embedding,
    draw_embedding,
)
from fairseq_sru.models.lm_config import LMConfig
from fairseq_sru.modules import Stack
from fairseq_sru.modules.retained import RetainedDropout
from fairseq_sru.ops import Linear, dropout
from fairseq_sru.state import StreamMemory, StreamState


class LMDecoder(RetainedDropout, FairseqIncrementalDecoder):
    """Predict every next token from those before.

    Without memory a row is a text of its own; with it, the next segment of a stream whose cells,
    and layer inputs (or keys and values) where layers attend, the memory carries.

    Args:
        build_stack: the layers, from the options and the size of their input.
        narrow_features: an output that is not tied reads features of the embedding's size, as a
            tied one must; otherwise of --hidden-size.
        generation_context: how many tokens before itself a token sees in generation; None: all.
        project_memory: the memory holds keys and values.
        input_types: size of the vocabulary that is read; None: of ``dictionary``.
        max_target_positions: most tokens of a text; None: any number.

    Raises:
        ValueError: impossible sizes or options.

    Source: SRU paper section 4.4; SRU++ paper sections 3 and 4, appendix B.
    """

    def __init__(
        self,
        cfg: LMConfig,
        dictionary: Dictionary,
        build_stack: Callable[[Any, int], Stack],
        *,
        narrow_features: bool = True,
        generation_context: int | None = None,
        project_memory: bool = False,
        input_types: int | None = None,
        max_target_positions: int | None = None,
    ) -> None:
        super().__init__(dictionary)
        if input_types is None:
            input_types = len(dictionary)
        tied = cfg.share_decoder_input_output_embed or bool(cfg.adaptive_cutoff)
        if tied and input_types != len(dictionary):
            raise ValueError("--output-dictionary-size needs an output of its own: leave out "
                             "--share-decoder-input-output-embed and --adaptive-cutoff")
        self.max_target_positions = _default(max_target_positions, sys.maxsize)
        embed_dim = cfg.hidden_size if cfg.embed_dim is None else cfg.embed_dim
        self.generation_context = generation_context
        self.project_memory = project_memory
        self.padding_idx = dictionary.pad()
        self.embedding_dropout = _default(cfg.embedding_dropout, cfg.dropout)
        self.output_dropout = _default(cfg.output_dropout, cfg.dropout)
        self.feature_proj: Linear | None = None
        self.output_projection: Linear | None = None
        self.adaptive_softmax: TiedAdaptiveSoftmax | None = None
        if cfg.adaptive_cutoff:
            self._build_adaptive(cfg, cfg.adaptive_cutoff, len(dictionary), embed_dim)
        else:
            self._build_plain(cfg, input_types, embed_dim, narrow_features)
        self.stack = build_stack(cfg, cfg.hidden_size if cfg.adaptive_cutoff else embed_dim)

    def _build_plain(
        self, cfg: LMConfig, input_types: int, embed_dim: int, narrow_features: bool
    ) -> None:
        if cfg.tie_adaptive_proj:
            raise ValueError("--tie-adaptive-proj needs --adaptive-cutoff")
        tied = cfg.share_decoder_input_output_embed
        features = embed_dim if tied or narrow_features else cfg.hidden_size
        self.embed_tokens = build_embedding(input_types, embed_dim, self.padding_idx)
        if features != cfg.hidden_size:
            self.feature_proj = Linear(cfg.hidden_size, features, bias=False)
            nn.init.xavier_uniform_(self.feature_proj.weight)
        output = self.output_projection = Linear(features, len(self.dictionary))
        nn.init.zeros_(output.bias)
        if tied:
            output.weight = self.embed_tokens.weight
        else:
            draw_embedding(output.weight, embed_dim)

    def _build_adaptive(
        self, cfg: LMConfig, cutoff: str, vocabulary: int, embed_dim: int
    ) -> None:
        if cfg.share_decoder_input_output_embed:
            raise ValueError("--adaptive-cutoff ties the embeddings itself: leave out "
                             "--share-decoder-input-output-embed")
        self.embed_tokens = build_adaptive_input(
            vocabulary, self.padding_idx, embed_dim, cfg.adaptive_factor, cfg.hidden_size, cutoff)
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
        src_lengths: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Score the next token at every position.

        Args:
            prev_output_tokens: (B, T), shifted right.
            incremental_state: with it only the tokens not yet read are scored.
            memory: of the streams whose next segments these are.
            padded: whether any token is padding; None: find out.

        Returns:
            scores (B, T, vocabulary), or features (B, T, embedding or hidden size) with
            ``features_only`` and for the adaptive softmax; {"attn": [None]}.

        Raises:
            UsageError: the memory holds layer inputs instead of keys and values, or vice versa.
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
        src_lengths: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """As :meth:`forward`, without the output projection."""
        if incremental_state is not None:
            x = self._read_next(prev_output_tokens, incremental_state)
        else:
            x = self._read_all(prev_output_tokens, memory, padded)
        x = x.transpose(0, 1)
        if self.feature_proj is not None:
            x = self.feature_proj(x)
        return dropout(x, self.output_dropout, self.drops), {"attn": [None]}

    def output_layer(self, features: Tensor) -> Tensor:
        """(B, T, embedding or hidden size) -> (B, T, vocabulary); the adaptive softmax reads
        features."""
        return features if self.output_projection is None else self.output_projection(features)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens.t())
        return dropout(x, self.embedding_dropout, self.drops)

    def _read_all(
        self, tokens: Tensor, memory: StreamMemory | None, padded: bool | None
    ) -> Tensor:
        pad = None if padded is False else tokens.eq(self.padding_idx).t()
        if padded is None and pad is not None and pad.device.type == "cpu" and not pad.any():
            pad = None
        x = self._embed(tokens)
        if memory is None:
            return self.stack.read(x, pad=pad, causal=True).h
        before = memory.before_of(self)
        if before is not None:
            if before.projected != self.project_memory:
                raise UsageError(
                    "the streams' memory was written with the other value of --project-memory: "
                    "use the same, or start a new epoch with --reset-dataloader")
            before = before.to(x.device)
        out = self.stack.read(
            x,
            pad=pad,
            c0=None if before is None else before.cells,
            context=None if before is None else before.inputs,
            context_pad=None if before is None else before.pad,
            causal=True,
            window=None if self.training else memory.eval_context,
            projected=self.project_memory,
        )
        attended = [
            x if layer.attends else None for x, layer in zip(out.inputs, self.stack.layers)]
        context = memory.train_context if self.training else memory.eval_context
        memory.leave(StreamState.after(
            before, out.c, attended, pad, context, self.project_memory), self)
        return out.h

    def _read_next(self, tokens: Tensor, incremental_state: dict[str, Any]) -> Tensor:
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is None:
            state = self.stack.start(tokens.size(0), window=self.generation_context)
            self.set_incremental_state(incremental_state, "decoding", state)
        x = self._embed(tokens[:, state.length :])
        pieces = x.split(1) if self.stack.attends else [x]
        return torch.cat([self.stack.step(piece, state)[0] for piece in pieces])

    def reorder_incremental_state(
        self, incremental_state: dict[str, Any], new_order: Tensor
    ) -> None:
        """Row i continues what row new_order[i] was (beam search)."""
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is not None:
            state.reorder(new_order)

    def max_positions(self) -> int:
        """--max-target-positions; the model itself has no limit."""
        return self.max_target_positions


def _default(value: Any, otherwise: Any) -> Any:
    """``value``, or ``otherwise`` if there is none."""
    return otherwise if value is None else value
