"""SRU (Lei et al., 2018): the recurrence behind a linear map, as a layer and as a stack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor, nn

from fairseq_sru.ops import Linear, dropout, recurrence, recurrence_tanh


class Recurrence(nn.Module):
    """Parameters of the elementwise recurrence, and the call itself.

    Args:
        input_size: size of the layer input x, the highway input.
        output_size: D, over both directions.
        bidirectional: half of D runs from the last step to the first.
        dropout: of c - s, one mask per sequence (variational).
        highway: h mixes c with the highway input; if x has not size D, with a fourth block of u.
        highway_bias: start value of b_r.
        rescale: multiply x by sqrt(1 + 2 exp(highway_bias)), SRU paper section 3.2.
        weight_c: gates read c[t-1] (``v * c``, SRU paper section 2.1).
        tanh: h reads tanh(c), see :func:`fairseq_sru.ops.recurrence_tanh`.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bidirectional: bool = False,
        dropout: float = 0.0,
        highway: bool = True,
        highway_bias: float = 0.0,
        rescale: bool = False,
        weight_c: bool = True,
        tanh: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.highway = highway
        self.highway_bias = highway_bias
        self.tanh = tanh
        self.num_blocks = 4 if highway and input_size != output_size else 3
        rescale = rescale and highway
        self.scale = highway_scale(highway_bias) if rescale else 1.0
        self.weight_c = nn.Parameter(torch.empty(2, output_size)) if weight_c else None
        self.bias = nn.Parameter(torch.empty(2, output_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            if self.weight_c is not None:
                self.weight_c.uniform_(-1, 1)
            self.bias[0] = 0
            self.bias[1] = self.highway_bias

    def forward(
        self, u: Tensor, x: Tensor, c0: Tensor | None = None, pad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """u (L, B, k * D), x (L, B, input_size), c0 (B, D), pad (L, B) -> h (L, B, D), c (B, D)."""
        mask_c = None
        if self.training and self.dropout > 0:
            mask_c = dropout(self.bias.new_ones(u.size(1), self.output_size), self.dropout)
        run = recurrence_tanh if self.tanh else recurrence
        return run(
            u.view(u.size(0), u.size(1), self.num_blocks, self.output_size),
            x if self.highway and self.num_blocks == 3 else None,
            self.weight_c,
            self.bias,
            c0,
            pad,
            mask_c,
            self.scale,
            self.bidirectional,
        )


class SRULayer(nn.Module):
    """One layer: U = W x (or W2 W1 x with ``proj_size``), then the recurrence.

    Args:
        hidden_size: d, per direction. The output has size D = d or 2 d.
        layer_norm: None, "pre" (of what W reads) or "post" (of h).
        others: see :class:`Recurrence`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int | None = None,
        bidirectional: bool = False,
        dropout: float = 0.0,
        layer_norm: str | None = None,
        highway: bool = True,
        highway_bias: float = 0.0,
        rescale: bool = True,
        weight_c: bool = True,
        tanh: bool = False,
    ) -> None:
        super().__init__()
        output_size = hidden_size * (2 if bidirectional else 1)
        self.recurrence = Recurrence(
            input_size, output_size, bidirectional, dropout, highway, highway_bias, rescale,
            weight_c, tanh)
        out_features = self.recurrence.num_blocks * output_size
        if proj_size:
            self.in_proj = Linear(input_size, proj_size, bias=False)
            self.out_proj = Linear(proj_size, out_features, bias=False)
        else:
            self.in_proj = None
            self.out_proj = Linear(input_size, out_features, bias=False)
        self.pre_norm, self.post_norm = layer_norms(layer_norm, input_size, output_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero mean and variance 1/fan-in, SRU paper section 3.2."""
        for linear in (self.in_proj, self.out_proj):
            if linear is not None:
                bound = math.sqrt(3.0 / linear.in_features)
                nn.init.uniform_(linear.weight, -bound, bound)

    def forward(
        self, x: Tensor, c0: Tensor | None = None, pad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (L, B, input_size), c0 (B, D), pad (L, B) bool -> h (L, B, D), c (B, D)."""
        z = x if self.pre_norm is None else self.pre_norm(x)
        if self.in_proj is not None:
            z = self.in_proj(z)
        h, c = self.recurrence(self.out_proj(z), x, c0, pad)
        return post_norm(self.post_norm, h, pad), c


@dataclass
class SRUState:
    """What R hypotheses carry from one token to the next.

    Attributes:
        cells: (layers, R, D). length: number of tokens read.
    """

    cells: Tensor
    length: int = 0

    def reorder(self, new_order: Tensor) -> None:
        """Row i continues what row new_order[i] was."""
        self.cells = self.cells.index_select(1, new_order)


class SRU(nn.Module):
    """A stack of SRU layers; only the layers below the last have dropout.

    Args:
        input_size, hidden_size: of the input, and d of every layer, per direction.
        num_layers: number of layers.
        proj_size: of every layer, or a list of one a layer; None or 0: no projection.
        project_input: if input_size is not D, map the input to D first (no bias).
        others: see :class:`SRULayer`.

    Raises:
        ValueError: impossible sizes or options.

    Source: SRU paper sections 2 and 3.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 2,
        proj_size: int | Sequence[int] | None = None,
        bidirectional: bool = False,
        dropout: float = 0.0,
        layer_norm: str | None = None,
        highway: bool = True,
        highway_bias: float = 0.0,
        rescale: bool = True,
        weight_c: bool = True,
        tanh: bool = False,
        project_input: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        proj_sizes = proj_size if isinstance(proj_size, Sequence) else [proj_size] * num_layers
        if len(proj_sizes) != num_layers:
            raise ValueError(f"proj_size must be one size or {num_layers}, got {proj_size}")
        self.input_size = input_size
        self.output_size = hidden_size * (2 if bidirectional else 1)
        self.input_proj = None
        if project_input and input_size != self.output_size:
            self.input_proj = Linear(input_size, self.output_size, bias=False)
            nn.init.xavier_uniform_(self.input_proj.weight)
            input_size = self.output_size
        self.layers = nn.ModuleList(
            SRULayer(
                input_size if i == 0 else self.output_size,
                hidden_size,
                proj_sizes[i],
                bidirectional,
                dropout if i + 1 < num_layers else 0.0,
                layer_norm,
                highway,
                highway_bias,
                rescale,
                weight_c,
                tanh,
            )
            for i in range(num_layers)
        )

    def forward(
        self, x: Tensor, c0: Tensor | None = None, pad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the stack.

        Args:
            x: (L, B, input_size).
            c0: (layers, B, D), the cell states before the first step, or None.
            pad: (L, B) bool, True = padding.

        Returns:
            h (L, B, D) of the last layer, c (layers, B, D).
        """
        check_input(x, self.input_size, c0, (len(self.layers), x.size(1), self.output_size), pad)
        if self.input_proj is not None:
            x = self.input_proj(x)
        cells: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, c = layer(x, None if c0 is None else c0[i], pad)
            cells.append(c)
        return x, torch.stack(cells)

    def start(self, rows: int) -> SRUState:
        """State of ``rows`` hypotheses before the first token."""
        parameter = self.layers[0].recurrence.bias
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        return SRUState(
            parameter.new_zeros(len(self.layers), rows, self.output_size, dtype=dtype))

    def step(self, x: Tensor, state: SRUState) -> Tensor:
        """Read the next tokens, one or more: x (L, R, input_size) -> h (L, R, D). The state is
        advanced in place."""
        h, state.cells = self(x, state.cells)
        state.length += x.size(0)
        return h


def highway_scale(highway_bias: float) -> float:
    """The factor of the highway input that keeps its variance, SRU paper section 3.2."""
    return math.sqrt(1 + 2 * math.exp(highway_bias))


def layer_norms(
    placement: str | None, input_size: int, output_size: int
) -> tuple[nn.LayerNorm | None, nn.LayerNorm | None]:
    """(pre, post) layer norm of a layer for ``placement`` None, "pre" or "post"."""
    if placement not in (None, "pre", "post"):
        raise ValueError(f"layer_norm must be None, 'pre' or 'post', got {placement!r}")
    return (
        nn.LayerNorm(input_size) if placement == "pre" else None,
        nn.LayerNorm(output_size) if placement == "post" else None,
    )


def post_norm(norm: nn.LayerNorm | None, h: Tensor, pad: Tensor | None) -> Tensor:
    """Normalise h, keeping padded steps 0."""
    if norm is None:
        return h
    h = norm(h)
    return h if pad is None else h.masked_fill(pad.unsqueeze(-1), 0)


def check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def check_input(
    x: Tensor, input_size: int, c0: Tensor | None, c_shape: tuple[int, ...],
    pad: Tensor | None,
) -> None:
    if x.dim() != 3 or x.size(-1) != input_size:
        raise ValueError(f"input must be (L, B, {input_size}), got {tuple(x.shape)}")
    if c0 is not None and tuple(c0.shape) != c_shape:
        raise ValueError(f"c0 must be {c_shape}, got {tuple(c0.shape)}")
    if pad is not None and tuple(pad.shape) != tuple(x.shape[:2]):
        raise ValueError(f"pad must be {tuple(x.shape[:2])}, got {tuple(pad.shape)}")
