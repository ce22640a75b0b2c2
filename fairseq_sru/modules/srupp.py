"""SRU++ (Lei, 2021): SRU whose linear map is a low rank with attention inside, as a layer and as a
stack."""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor, nn

from fairseq_sru.modules.checks import (
    check_context,
    check_direction,
    check_layer_input,
    check_type,
)
from fairseq_sru.modules.formats import refuse_tracing
from fairseq_sru.modules.norm import layer_norms, post_norm
from fairseq_sru.modules.placement import attention_layers
from fairseq_sru.modules.recurrence import Recurrence
from fairseq_sru.modules.retained import RetainedDropout
from fairseq_sru.modules.stack import Stack
from fairseq_sru.ops import Linear, dropout, step_attention
from fairseq_sru.ops import attention as attend
from fairseq_sru.ops.padding import zero_padding
from fairseq_sru.ops.varlen import Packing
from fairseq_sru.ranges import check_ranges
from fairseq_sru.state import Slots


class SRUppLayer(RetainedDropout, nn.Module):
    """One SRU++ layer.

    ::

        Q = Wq X;  K, V = Wk Q, Wv Q          over [context ; X]
        A = dropout(softmax(Q K^T / sqrt(head size) + mask)) V
        U = Wo dropout(layernorm(Q + alpha A))
        h, c = recurrence(U, X)

    Args:
        input_size: size of X and of the context.
        hidden_size: d, per direction. The output has size D = d or 2 d.
        proj_size: d', the attention size.
        attention: without it U = Wo dropout(layernorm(Wq X)).
        num_heads: divides d'.
        alpha_init: start value of the learned scalar.
        dropout: of Wo's input. recurrence_dropout: of c - s, one mask per sequence.
        attention_dropout: of the attention weights.
        attention_norm: normalise what Wo reads.
        layer_norm: None, "pre" (of X and the context) or "post" (of h).
        recurrence: options of :class:`fairseq_sru.modules.recurrence.Recurrence`.

    Raises:
        ValueError: impossible sizes or options.

    Source: SRU++ paper section 3.
    """

    kv_proj: Any  # Linear, None without attention
    alpha: Any  # Parameter, None without attention

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        *,
        attention: bool = True,
        num_heads: int = 1,
        alpha_init: float = 0.0,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrence_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        attention_norm: bool = True,
        layer_norm: str | None = None,
        highway_bias: float = -2.0,
        **recurrence: Any,
    ) -> None:
        super().__init__()
        check_ranges(
            hidden_size=hidden_size, proj_size=proj_size, num_heads=num_heads,
            alpha_init=alpha_init, dropout=dropout, recurrence_dropout=recurrence_dropout,
            attention_dropout=attention_dropout, bidirectional=bidirectional,
            attention_norm=attention_norm)
        if not isinstance(attention, bool):
            raise ValueError(f"attention of a layer must be True or False, got {attention!r}")
        if proj_size % num_heads:
            raise ValueError(f"num_heads ({num_heads}) does not divide proj_size ({proj_size})")
        output_size = hidden_size * (2 if bidirectional else 1)
        self.input_size = input_size
        self.attends = attention
        self.num_heads = num_heads
        self.head_size = proj_size // num_heads
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.alpha_init = alpha_init
        self.recurrence = Recurrence(
            input_size, output_size, bidirectional=bidirectional, dropout=recurrence_dropout,
            highway_bias=highway_bias, **recurrence)
        self.q_proj = Linear(input_size, proj_size, bias=False)
        self.kv_proj = Linear(proj_size, 2 * proj_size, bias=False) if attention else None
        self.alpha = nn.Parameter(torch.empty(1)) if attention else None
        self.attn_norm = nn.LayerNorm(proj_size) if attention_norm else None
        self.out_proj = Linear(
            proj_size, self.recurrence.num_blocks * output_size, bias=False)
        self.pre_norm, self.post_norm = layer_norms(layer_norm, input_size, output_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.q_proj.weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        with torch.no_grad():
            self.out_proj.weight.mul_((1 - self.dropout) ** 0.5)
        if self.kv_proj is not None:
            nn.init.xavier_uniform_(self.kv_proj.weight)
            nn.init.constant_(self.alpha, self.alpha_init)

    def forward(
        self,
        x: Tensor,
        c0: Tensor | None = None,
        pad: Tensor | None = None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        need_weights: bool = False,
        causal: bool = False,
        packing: tuple[Packing, Packing] | None = None,
        mask_c: Tensor | None = None,
        zeroed: bool = False,
        projected: bool = False,
    ) -> tuple[Any, ...]:
        """Run the layer over a whole sequence.

        Args:
            x: (L, B, input_size).
            c0: (B, D). pad: (L, B) bool, True = padding.
            mask, causal, packing: of :func:`fairseq_sru.ops.attention`, over S + L.
            context: (S, B, input_size), what X attends to besides itself; finite, where it is
                padded too.
            mask_c: of :class:`fairseq_sru.modules.recurrence.Recurrence`.
            zeroed: x is zero where it is padded, as the h of another layer is.
            projected: the context is keys and values, (S, B, 2 d'), which an earlier call returned.

        Returns:
            h (L, B, D), c (B, D), weights (B, H, L, S + L) or None; with ``projected`` also the
            keys and values of X, (L, B, 2 d').

        Raises:
            TypeError: x is a PackedSequence, or what should be a tensor is none.
            ValueError: x, pad, context or mask have another shape or type, or ``causal`` and both
                directions.
        """
        refuse_tracing()
        check_layer_input(x, pad, self.input_size, self.out_proj)
        check_direction(causal, self.recurrence)
        x = x if zeroed else zero_padding(x, pad)
        q = self.query(x)
        if self.kv_proj is None:
            return (*self._recur(q, x, c0, pad, mask_c), None)
        size = 2 * self.num_heads * self.head_size if projected else self.input_size
        check_context(context, x.size(1), size)
        if context is not None:
            check_type("context", context, self.out_proj)
        own = self.kv_proj(q) if projected else None
        if own is None:
            z = q if context is None else torch.cat([self.query(context), q])
            keys_values = self.kv_proj(z)
        else:
            keys_values = own if context is None else torch.cat([context, own])
        k, v = keys_values.chunk(2, dim=-1)
        a, weights = attend(
            q, k, v, mask=mask, num_heads=self.num_heads,
            dropout=self.attention_dropout if self.drops else 0.0,
            need_weights=need_weights, causal=causal, packing=packing)
        h, c = self._recur(torch.addcmul(q, a, self.alpha), x, c0, pad, mask_c)
        return (h, c, weights) if own is None else (h, c, weights, own)

    def start(self, rows: int, context: Tensor | None) -> Slots:
        """Keys and values (N, S, 2 d') of the context (S, N, input_size) that ``rows`` hypotheses
        share; without one, none yet."""
        if context is None:
            weight = self.kv_proj.weight
            return Slots(weight.new_zeros(rows, 0, weight.size(0)))
        return Slots(self.kv_proj(self.query(context)).transpose(0, 1).contiguous())

    def step(
        self,
        x: Tensor,
        c0: Tensor | None,
        cache: Slots,
        mask: Tensor,
        need_weights: bool = False,
        mask_c: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Read one token of N sentences with ``beam`` hypotheses each, R = N * beam; only of a
        layer that attends.

        Args:
            x: (1, R, input_size). c0: (R, D) or None.
            cache: keys and values (N, slots, 2 d') of the tokens before; this token's are added.
            mask: (N, 1, beam, slots) float, the slots each hypothesis may see.
            mask_c: of :class:`fairseq_sru.modules.recurrence.Recurrence`.

        Returns:
            h (1, R, D), c (R, D), weights (N, H, beam, slots) or None.
        """
        check_type("input", x, self.out_proj)
        q = self.query(x)
        sentences, _, beam, _ = mask.shape
        cache.append(self.kv_proj(q).view(sentences, beam, -1))
        y, weights = step_attention(
            q, cache.values, mask, self.alpha, self.num_heads,
            dropout=self.attention_dropout if self.drops else 0.0, need_weights=need_weights)
        return (*self._recur(y, x, c0, None, mask_c), weights)

    def query(self, x: Tensor) -> Tensor:
        """Wq X: (L, B, input_size) -> (L, B, d')."""
        return self.q_proj(x if self.pre_norm is None else self.pre_norm(x))

    def _recur(
        self,
        y: Tensor,
        x: Tensor,
        c0: Tensor | None,
        pad: Tensor | None,
        mask_c: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self.attn_norm is not None:
            y = self.attn_norm(y)
        u = self.out_proj(dropout(y, self.dropout, self.drops))
        h, c = self.recurrence(u, x, c0, pad, mask_c)
        return post_norm(self.post_norm, h, pad), c


class SRUpp(Stack):
    """A stack of SRU++ layers; only the layers below the last have recurrence dropout.

    Args:
        input_size: size of the input and of the context.
        hidden_size: d of every layer, per direction.
        proj_size: d'.
        num_layers: number of layers.
        attention: which layers attend, see
            :func:`fairseq_sru.modules.placement.attention_layers`.
        dropout: of Wo's input and of the recurrence.
        options: of :class:`Stack`, :class:`SRUppLayer` and
            :class:`fairseq_sru.modules.recurrence.Recurrence`.

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
        *,
        attention: str | Sequence[int] = "all",
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        check_ranges(num_layers=num_layers)
        attending = attention_layers(attention, num_layers)

        def build_layer(i: int, size: int, **layer: Any) -> SRUppLayer:
            return SRUppLayer(
                size, hidden_size, proj_size, attention=i + 1 in attending, dropout=dropout,
                recurrence_dropout=dropout if i + 1 < num_layers else 0.0, **layer)

        super().__init__(input_size, hidden_size, num_layers, build_layer, **options)

    forward = Stack.read
