"""Parameters of the elementwise recurrence that SRU and SRU++ layers end in."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fairseq_sru.modules.formats import NoScript
from fairseq_sru.modules.retained import RetainedDropout
from fairseq_sru.ops import dropout, recurrence, recurrence_tanh
from fairseq_sru.ranges import check_ranges


class Recurrence(RetainedDropout, NoScript, nn.Module):
    """Parameters of the elementwise recurrence, and the call itself.

    Args:
        input_size: size of the layer input x, the highway input.
        output_size: D, over both directions.
        bidirectional: half of D runs from the last step to the first.
        dropout: of c - s, one mask per sequence (variational).
        highway: h mixes c with the highway input; if x has not size D, with a fourth block of u.
        forget_bias: start value of b_f; above 0 the cells remember longer at first (Jozefowicz et
            al., 2015, section 2.2).
        highway_bias: start value of b_r.
        rescale: multiply x by sqrt(1 + 2 exp(highway_bias)), SRU paper section 3.2.
        weight_c: gates read c[t-1] (``v * c``, SRU paper section 2.1).
        tanh: h reads tanh(c), see :func:`fairseq_sru.ops.recurrence_tanh`.

    Raises:
        ValueError: impossible sizes or options.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        highway: bool = True,
        forget_bias: float = 0.0,
        highway_bias: float = 0.0,
        rescale: bool = False,
        weight_c: bool = True,
        tanh: bool = False,
    ) -> None:
        super().__init__()
        check_ranges(
            input_size=input_size, output_size=output_size, dropout=dropout,
            forget_bias=forget_bias, highway_bias=highway_bias, bidirectional=bidirectional,
            highway=highway, rescale=rescale, weight_c=weight_c, tanh=tanh)
        self.output_size = output_size
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.highway = highway
        self.forget_bias = forget_bias
        self.highway_bias = highway_bias
        self.tanh = tanh
        self.num_blocks = 4 if highway and input_size != output_size else 3
        self.scale = highway_scale(highway_bias) if rescale and highway else 1.0
        self.weight_c = nn.Parameter(torch.empty(2, output_size)) if weight_c else None
        self.bias = nn.Parameter(torch.empty(2, output_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            if self.weight_c is not None:
                self.weight_c.uniform_(-1, 1)
            self.bias[0] = self.forget_bias
            self.bias[1] = self.highway_bias

    def draw_mask(self, rows: int) -> Tensor | None:
        """Dropout mask (rows, D) of as many sequences; None where nothing is dropped."""
        if not self.drops or self.dropout == 0:
            return None
        return dropout(self.bias.new_ones(rows, self.output_size), self.dropout)

    def forward(
        self,
        u: Tensor,
        x: Tensor,
        c0: Tensor | None = None,
        pad: Tensor | None = None,
        mask_c: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """u (L, B, k * D), x (L, B, input_size), c0 (B, D), pad (L, B) -> h (L, B, D), c (B, D).

        Args:
            mask_c: of :meth:`draw_mask`, for sequences that are read piece by piece; None: draw it.
        """
        if mask_c is None:
            mask_c = self.draw_mask(u.size(1))
        run = recurrence_tanh if self.tanh else recurrence
        return run(
            u.view(u.size(0), u.size(1), self.num_blocks, self.output_size),
            x if self.highway and self.num_blocks == 3 else None,
            self.weight_c,
            self.bias,
            c0=c0,
            pad=pad,
            mask_c=mask_c,
            scale=self.scale,
            bidirectional=self.bidirectional,
        )


def highway_scale(highway_bias: float) -> float:
    """The factor of the highway input that keeps its variance, SRU paper section 3.2."""
    return math.sqrt(1 + 2 * math.exp(highway_bias))
