"""Stacks of SRU++ layers (Lei, 2021)."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairseq_sru.modules.placement import attention_layers
from fairseq_sru.modules.sru import check_input, check_sizes
from fairseq_sru.modules.srupp_layer import SRUppLayer
from fairseq_sru.ops.attention import (
    Reach,
    additive,
    attention_mask,
    attention_packing,
    is_fused,
)
from fairseq_sru.ops.linear import Linear
from fairseq_sru.ops.varlen import suits_varlen
from fairseq_sru.state import DecodingState, Slots


class SRUppOutput(NamedTuple):
    """What :class:`SRUpp` returns."""

    h: Tensor  # (L, B, D)
    c: Tensor  # (layers, B, D)
    inputs: list[Tensor]  # the input of each layer, (L, B, input size): the next segment's memory
    weights: list[Tensor | None]  # (B, H, L, S + L) of each layer, None unless asked for


class SRUpp(nn.Module):
    """A stack of SRU++ layers; only the layers below the last have recurrence dropout.

    Args:
        input_size: size of the input and of the context.
        hidden_size: d of every layer, per direction.
        proj_size: d'.
        num_layers: number of layers.
        attention: which layers attend, see :func:`attention_layers`.
        project_input: if input_size is not D, map the input to D first (no bias).
        dropout: of Wo's input and of the recurrence.
        checkpoint: in training keep only the layers' inputs, and compute the rest anew in the
            backward pass.
        others: see :class:`SRUppLayer`.

    Raises:
        ValueError: impossible sizes or options.

    Source: SRU++ paper section 3; tables 2 and 10 and figure 4 for ``attention``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        num_layers: int = 2,
        attention: str | Sequence[int] = "all",
        num_heads: int = 1,
        alpha: float = 0.0,
        bidirectional: bool = False,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        attn_layer_norm: bool = True,
        layer_norm: str | None = None,
        highway: bool = True,
        highway_bias: float = -2.0,
        rescale: bool = False,
        weight_c: bool = True,
        project_input: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        check_sizes(input_size=input_size, hidden_size=hidden_size, proj_size=proj_size,
                    num_layers=num_layers, num_heads=num_heads)
        if proj_size % num_heads:
            raise ValueError(f"num_heads ({num_heads}) does not divide proj_size ({proj_size})")
        attending = attention_layers(attention, num_layers)
        self.input_size = input_size
        self.output_size = hidden_size * (2 if bidirectional else 1)
        self.input_proj = None
        if project_input and input_size != self.output_size:
            self.input_proj = Linear(input_size, self.output_size, bias=False)
            nn.init.xavier_uniform_(self.input_proj.weight)
            input_size = self.output_size
        self.layers = nn.ModuleList(
            SRUppLayer(
                input_size if i == 0 else self.output_size,
                hidden_size,
                proj_size,
                attention=i + 1 in attending,
                num_heads=num_heads,
                alpha=alpha,
                bidirectional=bidirectional,
                dropout=dropout,
                recurrence_dropout=dropout if i + 1 < num_layers else 0.0,
                attn_dropout=attn_dropout,
                attn_layer_norm=attn_layer_norm,
                layer_norm=layer_norm,
                highway=highway,
                highway_bias=highway_bias,
                rescale=rescale,
                weight_c=weight_c,
            )
            for i in range(num_layers)
        )

    def forward(
        self,
        x: Tensor,
        c0: Tensor | None = None,
        pad: Tensor | None = None,
        context: Tensor | Sequence[Tensor] | None = None,
        context_pad: Tensor | None = None,
        causal: bool = False,
        window: int | None = None,
        mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> SRUppOutput:
        """Run the stack over whole sequences.

        Args:
            x: (L, B, input_size).
            c0: (layers, B, D) or None. pad: (L, B) bool, True = padding.
            context: what all layers (one tensor (S, B, D)) or each of them (a list, None where a
                layer does not attend) attend to besides their input: the encoder's output, or the
                memory of the last segment.
            context_pad: (S, B) bool. causal, window: see :func:`attention_mask`.
            mask: (L, S + L), bool (True = takes part) or float (added to the scores), besides
                the others.
            need_weights: also return the attention weights.

        Raises:
            ValueError: shapes do not fit.
        """
        check_input(x, self.input_size, c0, (len(self.layers), x.size(1), self.output_size), pad)
        contexts = self._contexts(context)
        context_length = next((c.size(0) for c in contexts if c is not None), 0)
        if context_pad is not None and tuple(context_pad.shape) != (context_length, x.size(1)):
            raise ValueError(f"context_pad must be {(context_length, x.size(1))}, "
                             f"got {tuple(context_pad.shape)}")
        reach = self._reach(
            x, pad, context_length, context_pad, causal, window, mask, need_weights)
        if self.input_proj is not None:
            x = self.input_proj(x)
        inputs, cells, weights = [], [], []
        for i, layer in enumerate(self.layers):
            inputs.append(x)
            x, c, w = self._run(
                layer, x, None if c0 is None else c0[i], pad, context=contexts[i],
                need_weights=need_weights, **reach._asdict())
            cells.append(c)
            weights.append(w)
        return SRUppOutput(x, torch.stack(cells), inputs, weights)

    def start(
        self,
        rows: int,
        context: Tensor | None = None,
        context_pad: Tensor | None = None,
        window: int | None = None,
    ) -> DecodingState:
        """State before the first token.

        Args:
            rows: R, hypotheses in all, a multiple of the number of sentences N.
            context: (S, N, D), projected to keys and values here, once per sentence and layer.
            context_pad: (S, N) bool.
            window: see :func:`attention_mask`; tokens out of reach are forgotten.

        Raises:
            ValueError: ``rows`` is not a multiple of N.
        """
        parameter = self.layers[0].q_proj.weight
        if context is None:
            context = parameter.new_zeros(0, rows, parameter.size(1))
        caches = [
            None if layer.kv_proj is None else Slots(
                layer.kv_proj(layer.query(context)).transpose(0, 1).contiguous())
            for layer in self.layers
        ]
        real = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device)
        mask = additive(real if context_pad is None else ~context_pad, parameter.dtype)
        return DecodingState(caches, mask.t(), rows, window)

    def step(
        self, x: Tensor, state: DecodingState, need_weights: bool = False
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Read one token: x (1, R, input_size) -> h (1, R, D), weights per layer
        (N, H, beam, slots) or None. The state is advanced in place."""
        mask = state.grow()
        if self.input_proj is not None:
            x = self.input_proj(x)
        weights = []
        for i, layer in enumerate(self.layers):
            x, state.cells[i], w = layer.step(
                x, state.cells[i], state.caches[i], mask, need_weights)
            weights.append(w)
        return x, weights

    def _run(
        self, layer: SRUppLayer, *args, **options
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.checkpoint and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False, **options)
        return layer(*args, **options)

    def _reach(
        self,
        x: Tensor,
        pad: Tensor | None,
        context_length: int,
        context_pad: Tensor | None,
        causal: bool,
        window: int | None,
        mask: Tensor | None,
        need_weights: bool,
    ) -> Reach:
        """Who attends to whom, with a mask only where no kernel does without. See
        :meth:`forward`; ``context_length`` is S."""
        if all(layer.kv_proj is None for layer in self.layers):
            return Reach()
        layer = self.layers[0]  # all have heads of one size
        head_size = layer.q_proj.out_features // layer.num_heads
        dropout = layer.attn_dropout if self.training else 0.0
        if window is None and mask is None:
            if pad is None and context_pad is None:
                # On the CPU no kernel is causal after a context.
                if causal and is_fused(x, head_size, dropout, need_weights) and (
                        context_length == 0 or x.device.type != "cpu"):
                    return Reach(causal=True)
            elif suits_varlen(x, head_size, context_length + len(x), dropout, need_weights):
                packing = attention_packing(len(x), pad, context_length, context_pad)
                return Reach(causal=causal, packing=packing)
        whole = attention_mask(
            len(x), pad, context_length, context_pad, causal, window, x.device)
        return Reach(_combine(whole, mask, x.dtype))

    def _contexts(
        self, context: Tensor | Sequence[Tensor] | None
    ) -> Sequence[Tensor | None]:
        if context is None or isinstance(context, Tensor):
            return [context] * len(self.layers)
        if len(context) != len(self.layers):
            raise ValueError(f"context must have one tensor for each of the {len(self.layers)} "
                             f"layers, got {len(context)}")
        return context


def _combine(
    mask: Tensor | None, extra: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    if extra is None or mask is None:
        return mask if extra is None else extra
    if extra.dtype == torch.bool:
        return mask & extra
    return additive(mask, dtype) + extra
