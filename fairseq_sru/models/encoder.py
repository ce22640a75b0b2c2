"""The SRU++ encoder: tokens -> embedding -> SRU++ layers -> layer norm."""

from __future__ import annotations

import math
from typing import Dict, List

from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from fairseq_sru.models.config import SRUppConfig
from fairseq_sru.models.stack import build_srupp
from fairseq_sru.modules.retained import RetainedDropout
from fairseq_sru.ops import dropout

EncoderOut = Dict[str, List[Tensor]]


class SRUppEncoder(RetainedDropout, FairseqEncoder):
    """Encode source sentences, uni- or bidirectionally.

    Raises:
        ValueError: a bidirectional encoder whose hidden size is odd.
    """

    def __init__(
        self, cfg: SRUppConfig, dictionary: Dictionary, embed_tokens: nn.Embedding
    ) -> None:
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        directions = 2 if cfg.encoder_bidirectional else 1
        if cfg.hidden_size % directions:
            raise ValueError(f"--encoder-bidirectional needs an even --hidden-size, "
                             f"got {cfg.hidden_size}")
        self.embed_tokens = embed_tokens
        self.embed_scale = math.sqrt(cfg.embed_dim) if cfg.scale_embeddings else 1.0
        self.embedding_dropout = cfg.embedding_dropout
        self.max_source_positions = cfg.max_source_positions
        self.stack = build_srupp(
            cfg, cfg.embed_dim, cfg.encoder_layers, cfg.encoder_attention,
            hidden_size=cfg.hidden_size // directions, bidirectional=cfg.encoder_bidirectional)
        self.output_norm = (
            None if cfg.no_encoder_output_norm else nn.LayerNorm(self.stack.output_size)
        )

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
    ) -> EncoderOut:
        """Encode a batch.

        Args:
            src_tokens: (B, S), padded left or right.
            return_all_hiddens: fill ``encoder_states``.

        Returns:
            encoder_out: [(S, B, D)]; encoder_padding_mask: [(B, S)] bool, True = padding, empty
            if nothing is padded; rows: empty, see :meth:`reorder_encoder_out`; encoder_states: the
            first layer's input and every layer's output (S, B, D), before the last layer norm.
        """
        pad = src_tokens.eq(self.padding_idx)
        padded = bool(pad.any()) if pad.device.type == "cpu" else True
        x = self.embed_tokens(src_tokens.t()) * self.embed_scale
        x = dropout(x, self.embedding_dropout, self.drops)
        x, _, inputs, _ = self.stack(x, pad=pad.t() if padded else None)
        states = [*inputs, x] if return_all_hiddens else []
        if self.output_norm is not None:
            x = self.output_norm(x)
        return {
            "encoder_out": [x],
            "encoder_padding_mask": [pad] if padded else [],
            "rows": [],
            "encoder_states": states,
        }

    def reorder_encoder_out(self, encoder_out: EncoderOut, new_order: Tensor) -> EncoderOut:
        """Row i of the result is row new_order[i]. Beams share their sentence: only ``rows``, the
        sentence of each row, is reordered, and nothing of size S is copied."""
        rows = encoder_out["rows"]
        return {**encoder_out, "rows": [rows[0].index_select(0, new_order) if rows else new_order]}

    def max_positions(self) -> int:
        return self.max_source_positions


def expand(encoder_out: EncoderOut) -> EncoderOut:
    """``encoder_out`` with a copy of the source for every row, and no ``rows`` any more."""
    if not encoder_out["rows"]:
        return encoder_out
    rows = encoder_out["rows"][0]
    return {
        "encoder_out": [x.index_select(1, rows) for x in encoder_out["encoder_out"]],
        "encoder_padding_mask": [
            x.index_select(0, rows) for x in encoder_out["encoder_padding_mask"]
        ],
        "rows": [],
        "encoder_states": [x.index_select(1, rows) for x in encoder_out["encoder_states"]],
    }


def source(encoder_out: EncoderOut) -> tuple[Tensor, Tensor | None]:
    """(S, N, D) and its padding mask (S, N) or None."""
    pad = encoder_out["encoder_padding_mask"]
    return encoder_out["encoder_out"][0], pad[0].t() if pad else None
