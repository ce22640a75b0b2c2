"""The SRU++ decoder: every layer attends to the encoder's output and to the target before it."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from fairseq_sru.models.config import SRUppConfig
from fairseq_sru.models.embedding import draw_embedding
from fairseq_sru.models.encoder import EncoderOut, expand, source
from fairseq_sru.models.stack import build_srupp
from fairseq_sru.ops import Linear, dropout
from fairseq_sru.state import DecodingState

DecoderOut = Tuple[Tensor, Dict[str, Optional[List[Tensor]]]]


class SRUppDecoder(FairseqIncrementalDecoder):
    """Decode target sentences under the causal-plus-source mask.

    Source: SRU++ paper appendix B, machine translation.
    """

    def __init__(
        self,
        cfg: SRUppConfig,
        dictionary: Dictionary,
        embed_tokens: nn.Embedding,
    ) -> None:
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.embed_tokens = embed_tokens
        self.embed_scale = math.sqrt(cfg.embed_dim) if cfg.scale_embeddings else 1.0
        self.embedding_dropout = cfg.embedding_dropout
        self.output_dropout = cfg.output_dropout
        self.max_target_positions = cfg.max_target_positions
        self.stack = build_srupp(cfg, cfg.embed_dim, cfg.decoder_layers, cfg.decoder_attention)
        self.need_attention = False
        self.feature_proj = None
        if self.stack.output_size != cfg.embed_dim:
            self.feature_proj = Linear(self.stack.output_size, cfg.embed_dim, bias=False)
            nn.init.xavier_uniform_(self.feature_proj.weight)
        self.output_projection = Linear(cfg.embed_dim, len(dictionary), bias=False)
        if cfg.share_decoder_input_output_embed or cfg.share_all_embeddings:
            self.output_projection.weight = embed_tokens.weight
        else:
            draw_embedding(self.output_projection.weight, cfg.embed_dim)

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut,
        incremental_state: dict[str, Any] | None = None,
        features_only: bool = False,
        **unused: Any,
    ) -> DecoderOut:
        """Score the next token at every position.

        Args:
            prev_output_tokens: (B, T), shifted right.
            encoder_out: of :class:`SRUppEncoder`.
            incremental_state: with it only the tokens not yet read are scored.

        Returns:
            scores (B, T, vocabulary), or with ``features_only`` features (B, T, embedding size);
            {"attn": [(B, T, S)] or None}, the last attending layer's weights on the source, heads
            averaged: in generation only with --print-alignment.
        """
        features, extra = self.extract_features(prev_output_tokens, encoder_out, incremental_state)
        return (features if features_only else self.output_layer(features)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut,
        incremental_state: dict[str, Any] | None = None,
        **unused: Any,
    ) -> DecoderOut:
        """As :meth:`forward`, without the output projection."""
        if incremental_state is None:
            x, weights = self._read_all(prev_output_tokens, expand(encoder_out))
        else:
            x, weights = self._read_next(prev_output_tokens, encoder_out, incremental_state)
        x = x.transpose(0, 1)
        if self.feature_proj is not None:
            x = self.feature_proj(x)
        x = dropout(x, self.output_dropout, self.training)
        return x, {"attn": None if weights is None else [weights]}

    def output_layer(self, features: Tensor, **unused: Any) -> Tensor:
        """(B, T, embedding size) -> (B, T, vocabulary)"""
        return self.output_projection(features)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens.t()) * self.embed_scale
        return dropout(x, self.embedding_dropout, self.training)

    def _read_all(
        self, tokens: Tensor, encoder_out: EncoderOut
    ) -> tuple[Tensor, Tensor | None]:
        pad = tokens.eq(self.padding_idx).t()
        context, context_pad = source(encoder_out)
        out = self.stack(
            self._embed(tokens), pad=pad, context=context, context_pad=context_pad, causal=True,
            need_weights=self.need_attention)
        return out.h, self._alignment(out.weights, len(context))

    def _read_next(
        self, tokens: Tensor, encoder_out: EncoderOut, incremental_state: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is None:
            state = self._start(tokens.size(0), encoder_out)
            self.set_incremental_state(incremental_state, "decoding", state)
        h, attn = [], []
        for t in range(state.length, tokens.size(1)):
            x, weights = self.stack.step(
                self._embed(tokens[:, t : t + 1]), state, self.need_attention)
            h.append(x)
            aligned = self._alignment(weights, len(encoder_out["encoder_out"][0]))
            if aligned is not None:
                attn.append(aligned.reshape(tokens.size(0), 1, -1))
        return torch.cat(h), torch.cat(attn, 1) if attn else None

    def _start(self, rows: int, encoder_out: EncoderOut) -> DecodingState:
        """Keys and values of the source once per sentence, if its hypotheses are neighbours."""
        context, _ = source(encoder_out)
        order = encoder_out["rows"]
        sentences = torch.arange(context.size(1), device=context.device)
        beam = rows // max(1, context.size(1))
        shared = not order or torch.equal(order[0], sentences.repeat_interleave(beam))
        return self.stack.start(rows, *source(encoder_out if shared else expand(encoder_out)))

    def _alignment(self, weights: list[Tensor | None], length: int) -> Tensor | None:
        """The last attending layer's weights (N, H, T, slots) on the source, (N, T, length)."""
        attending = [w for w in weights if w is not None]
        return attending[-1].mean(1)[..., :length] if attending else None

    def reorder_incremental_state(
        self, incremental_state: dict[str, Any], new_order: Tensor
    ) -> None:
        """Row i continues what row new_order[i] was (beam search)."""
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is not None:
            state.reorder(new_order)

    def make_generation_fast_(self, need_attn: bool = False, **unused: Any) -> None:
        """Called by fairseq before generation; ``need_attn`` is --print-alignment."""
        self.need_attention = need_attn

    def max_positions(self) -> int:
        return self.max_target_positions
