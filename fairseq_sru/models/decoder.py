"""The SRU++ decoder: every layer attends to the encoder's output and to the target before it."""

from __future__ import annotations

import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from fairseq_sru.models.config import SRUppConfig
from fairseq_sru.models.embedding import draw_embedding
from fairseq_sru.models.encoder import EncoderOut, expand, source
from fairseq_sru.models.stack import build_srupp
from fairseq_sru.modules.retained import RetainedDropout
from fairseq_sru.ops import Linear, dropout
from fairseq_sru.state import DecodingState

DecoderOut = Tuple[Tensor, Dict[str, List[Optional[Tensor]]]]


class _Read(NamedTuple):
    h: Tensor  # (T, B, D)
    attn: Tensor | None  # (B, T, S)
    states: list[Tensor | None]  # the first layer's input and every layer's output, (T, B, D)


class SRUppDecoder(RetainedDropout, FairseqIncrementalDecoder):
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
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
    ) -> DecoderOut:
        """Score the next token at every position. Arguments and results are those of fairseq's
        Transformer.

        Args:
            prev_output_tokens: (B, T), shifted right.
            encoder_out: of :class:`SRUppEncoder`.
            incremental_state: with it only the tokens not yet read are scored.
            alignment_layer: whose attention to return, from 0; None: the last that attends.
            alignment_heads: average over so many heads; None: over all.
            return_all_hiddens: also return "inner_states"; not with ``incremental_state``.

        Returns:
            scores (B, T, vocabulary), or with ``features_only`` features (B, T, embedding size);
            {"attn": [(B, T, S)], "inner_states": [(T, B, D), ...]}: weights on the source, None
            where no layer attends; the first layer's input and every layer's output.

        Raises:
            ValueError: ``alignment_layer`` does not attend.
        """
        features, extra = self.extract_features(
            prev_output_tokens, encoder_out, incremental_state, alignment_layer, alignment_heads,
            return_all_hiddens=return_all_hiddens)
        return (features if features_only else self.output_layer(features)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut,
        incremental_state: dict[str, Any] | None = None,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
    ) -> DecoderOut:
        """As :meth:`forward`, without the output projection."""
        aligned = self._aligned_layer(alignment_layer)
        if incremental_state is None:
            read = self._read_all(
                prev_output_tokens, expand(encoder_out), aligned, alignment_heads)
        else:
            read = self._read_next(
                prev_output_tokens, encoder_out, incremental_state, aligned, alignment_heads)
        x = read.h.transpose(0, 1)
        if self.feature_proj is not None:
            x = self.feature_proj(x)
        x = dropout(x, self.output_dropout, self.drops)
        return x, {"attn": [read.attn], "inner_states": read.states if return_all_hiddens else []}

    def output_layer(self, features: Tensor) -> Tensor:
        """(B, T, embedding size) -> (B, T, vocabulary)"""
        return self.output_projection(features)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens.t()) * self.embed_scale
        return dropout(x, self.embedding_dropout, self.drops)

    def _aligned_layer(self, number: int | None) -> list[int]:
        """The layer whose attention is returned; none where none attends."""
        attending = [i for i, layer in enumerate(self.stack.layers) if layer.attends]
        if number is None:
            return attending[-1:]
        if number not in attending:
            raise ValueError(f"alignment_layer {number} does not attend: those that do are "
                             f"{attending}, counted from 0")
        return [number]

    def _read_all(
        self, tokens: Tensor, encoder_out: EncoderOut, aligned: list[int], heads: int | None
    ) -> _Read:
        pad = tokens.eq(self.padding_idx).t()
        context, context_pad = source(encoder_out)
        out = self.stack(
            self._embed(tokens), pad=pad, context=context, context_pad=context_pad, causal=True,
            need_weights=aligned)
        return _Read(
            out.h, _on_source(out.weights, aligned, heads, len(context)), [*out.inputs, out.h])

    def _read_next(
        self,
        tokens: Tensor,
        encoder_out: EncoderOut,
        incremental_state: dict[str, Any],
        aligned: list[int],
        heads: int | None,
    ) -> _Read:
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is None:
            state = self._start(tokens.size(0), encoder_out)
            self.set_incremental_state(incremental_state, "decoding", state)
        h, attn = [], []
        for t in range(state.length, tokens.size(1)):
            x, weights = self.stack.step(self._embed(tokens[:, t : t + 1]), state, aligned)
            h.append(x)
            on_source = _on_source(
                weights, aligned, heads, len(encoder_out["encoder_out"][0]))
            if on_source is not None:
                attn.append(on_source.reshape(tokens.size(0), 1, -1))
        return _Read(torch.cat(h), torch.cat(attn, 1) if attn else None, [])

    def _start(self, rows: int, encoder_out: EncoderOut) -> DecodingState:
        """Keys and values of the source once per sentence, if its hypotheses are neighbours."""
        context, _ = source(encoder_out)
        order = encoder_out["rows"]
        sentences = torch.arange(context.size(1), device=context.device)
        beam = rows // max(1, context.size(1))
        shared = not order or torch.equal(order[0], sentences.repeat_interleave(beam))
        return self.stack.start(rows, *source(encoder_out if shared else expand(encoder_out)))

    def reorder_incremental_state(
        self, incremental_state: dict[str, Any], new_order: Tensor
    ) -> None:
        """Row i continues what row new_order[i] was (beam search)."""
        state = self.get_incremental_state(incremental_state, "decoding")
        if state is not None:
            state.reorder(new_order)

    def max_positions(self) -> int:
        return self.max_target_positions


def _on_source(
    weights: list[Tensor | None], aligned: list[int], heads: int | None, length: int
) -> Tensor | None:
    """A layer's weights (N, H, T, slots) on the source, (N, T, length)."""
    for number in aligned:
        of_layer = weights[number]
        assert of_layer is not None
        return of_layer[:, :heads, :, :length].mean(1)
    return None
