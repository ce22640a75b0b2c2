"""SRU (Lei et al., 2018): the recurrence behind a linear map, as a layer and as a stack."""

from __future__ import annotations

import math
from typing import Any, Sequence

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fairseq_sru.modules.checks import check_layer_input
from fairseq_sru.modules.formats import refuse_tracing
from fairseq_sru.modules.norm import layer_norms, post_norm
from fairseq_sru.modules.recurrence import Recurrence
from fairseq_sru.modules.stack import Stack
from fairseq_sru.ops import Linear
from fairseq_sru.ops.padding import zero_padding
from fairseq_sru.ranges import check_ranges


class SRULayer(nn.Module):
    """One layer: U = W x (or W2 W1 x with ``proj_size``), then the recurrence.

    Args:
        hidden_size: d, per direction. The output has size D = d or 2 d.
        layer_norm: None, "pre" (of what W reads) or "post" (of h).
        recurrence: options of :class:`Recurrence`.

    Raises:
        ValueError: impossible sizes or options.
    """

    attends = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int | None = None,
        *,
        bidirectional: bool = False,
        layer_norm: str | None = None,
        rescale: bool = True,
        **recurrence: Any,
    ) -> None:
        super().__init__()
        check_ranges(hidden_size=hidden_size, bidirectional=bidirectional)
        if proj_size not in (None, 0):
            check_ranges(proj_size=proj_size)
        self.input_size = input_size
        output_size = hidden_size * (2 if bidirectional else 1)
        self.recurrence = Recurrence(
            input_size, output_size, bidirectional=bidirectional, rescale=rescale, **recurrence)
        out_features = self.recurrence.num_blocks * output_size
        self.in_proj = Linear(input_size, proj_size, bias=False) if proj_size else None
        self.out_proj = Linear(proj_size or input_size, out_features, bias=False)
        self.pre_norm, self.post_norm = layer_norms(layer_norm, input_size, output_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero mean and variance 1/fan-in, SRU paper section 3.2."""
        for linear in (self.in_proj, self.out_proj):
            if linear is not None:
                bound = math.sqrt(3.0 / linear.in_features)
                nn.init.uniform_(linear.weight, -bound, bound)

    def forward(
        self,
        x: Tensor,
        c0: Tensor | None = None,
        pad: Tensor | None = None,
        mask_c: Tensor | None = None,
        zeroed: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """x (L, B, input_size), c0 (B, D), pad (L, B) bool, mask_c of :class:`Recurrence` ->
        h (L, B, D), c (B, D).

        ``zeroed``: x is zero where it is padded, as the h of another layer is.

        Raises:
            TypeError: x is a PackedSequence.
            ValueError: x or pad have another shape or type.
        """
        refuse_tracing()
        check_layer_input(x, pad, self.input_size, self.out_proj)
        x = x if zeroed else zero_padding(x, pad)
        z = x if self.pre_norm is None else self.pre_norm(x)
        if self.in_proj is not None:
            z = self.in_proj(z)
        h, c = self.recurrence(self.out_proj(z), x, c0, pad, mask_c)
        return post_norm(self.post_norm, h, pad), c


class SRU(Stack):
    """A stack of SRU layers; only the layers below the last have dropout.

    Args:
        input_size, hidden_size: of the input, and d of every layer, per direction.
        num_layers: number of layers.
        proj_size: of every layer, or a list of one a layer; None or 0: no projection.
        dropout: of the recurrence.
        options: of :class:`Stack`, :class:`SRULayer` and :class:`Recurrence`.

    Raises:
        ValueError: impossible sizes or options.

    Source: SRU paper sections 2 and 3.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 2,
        proj_size: int | Sequence[int | None] | None = None,
        *,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        check_ranges(num_layers=num_layers, dropout=dropout)
        proj_sizes = proj_size if isinstance(proj_size, Sequence) else [proj_size] * num_layers
        if len(proj_sizes) != num_layers:
            raise ValueError(f"proj_size must be one size or {num_layers}, got {proj_size}")

        def build_layer(i: int, size: int, **layer: Any) -> SRULayer:
            kept = dropout if i + 1 < num_layers else 0.0
            return SRULayer(size, hidden_size, proj_sizes[i], dropout=kept, **layer)

        super().__init__(input_size, hidden_size, num_layers, build_layer, **options)

    def forward(
        self, x: Tensor | PackedSequence, c0: Tensor | None = None, pad: Tensor | None = None
    ) -> tuple[Any, Tensor]:
        """:meth:`Stack.read`'s h (L, B, D), or a PackedSequence, and c (layers, B, D)."""
        h, c, *_ = self.read(x, c0, pad)
        return h, c
