"""SRU++ (Lei, 2021): SRU whose linear map is a low rank with attention inside."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairseq_sru.modules.placement import attention_layers
from fairseq_sru.modules.sru import Recurrence, check_input, check_sizes, layer_norms, post_norm
from fairseq_sru.ops.attention import additive, attention, attention_mask, is_fused
from fairseq_sru.ops.dropout import dropout
from fairseq_sru.ops.linear import Linear
from fairseq_sru.ops.step_attention import step_attention
from fairseq_sru.state import DecodingState, Slots


class SRUppOutput(NamedTuple):
    """What :class:`SRUpp` returns."""

    h: Tensor  # (L, B, D)
    c: Tensor  # (layers, B, D)
    inputs: list[Tensor]  # the input of each layer, (L, B, input size): the next segment's memory
    weights: list[Tensor | None]  # (B, H, L, S + L) of each layer, None unless asked for


class SRUppLayer(nn.Module):
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
        alpha: start value of the learned scalar.
        dropout: of Wo's input. recurrence_dropout: of c - s, one mask per sequence.
        attn_dropout: of the attention weights.
        attn_layer_norm: normalise what Wo reads.
        layer_norm: None, "pre" (of X and the context) or "post" (of h).
        others: see :class:`fairseq_sru.modules.sru.Recurrence`.

    Source: SRU++ paper section 3.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        attention: bool = True,
        num_heads: int = 1,
        alpha: float = 0.0,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrence_dropout: float = 0.0,
        attn_dropout: float = 0.0,
        attn_layer_norm: bool = True,
        layer_norm: str | None = None,
        highway: bool = True,
        highway_bias: float = -2.0,
        rescale: bool = False,
        weight_c: bool = True,
    ) -> None:
        super().__init__()
        output_size = hidden_size * (2 if bidirectional else 1)
        self.num_heads = num_heads
        self.dropout = dropout
        self.attn_dropout = attn_dropout
        self.initial_alpha = alpha
        self.recurrence = Recurrence(
            input_size, output_size, bidirectional, recurrence_dropout, highway, highway_bias,
            rescale, weight_c)
        self.q_proj = Linear(input_size, proj_size, bias=False)
        self.kv_proj = Linear(proj_size, 2 * proj_size, bias=False) if attention else None
        self.alpha = nn.Parameter(torch.empty(1)) if attention else None
        self.attn_norm = nn.LayerNorm(proj_size) if attn_layer_norm else None
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
            nn.init.constant_(self.alpha, self.initial_alpha)

    def forward(
        self,
        x: Tensor,
        c0: Tensor | None = None,
        pad: Tensor | None = None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        need_weights: bool = False,
        causal: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Run the layer over a whole sequence.

        Args:
            x: (L, B, input_size).
            c0: (B, D). pad: (L, B) bool, True = padding.
            mask, causal: of :func:`fairseq_sru.ops.attention`, over S + L.
            context: (S, B, input_size), what X attends to besides itself.

        Returns:
            h (L, B, D), c (B, D), weights (B, H, L, S + L) or None.
        """
        q = self.query(x)
        if self.kv_proj is None:
            return (*self._recur(q, x, c0, pad), None)
        z = q if context is None else torch.cat([self.query(context), q])
        k, v = self.kv_proj(z).chunk(2, dim=-1)
        a, weights = attention(
            q, k, v, mask, self.num_heads, self.attn_dropout if self.training else 0.0,
            need_weights, causal)
        return (*self._recur(torch.addcmul(q, a, self.alpha), x, c0, pad), weights)

    def step(
        self,
        x: Tensor,
        c0: Tensor | None,
        cache: Slots | None,
        mask: Tensor,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Read one token of N sentences with ``beam`` hypotheses each, R = N * beam.

        Args:
            x: (1, R, input_size). c0: (R, D) or None.
            cache: keys and values (N, slots, 2 d') of the tokens before; this token's are added.
            mask: (N, 1, beam, slots) float, the slots each hypothesis may see.

        Returns:
            h (1, R, D), c (R, D), weights (N, H, beam, slots) or None.
        """
        q = self.query(x)
        if self.kv_proj is None:
            return (*self._recur(q, x, c0, None), None)
        sentences, _, beam, _ = mask.shape
        cache.append(self.kv_proj(q).view(sentences, beam, -1))
        y, weights = step_attention(
            q, cache.values, mask, self.alpha, self.num_heads, need_weights)
        return (*self._recur(y, x, c0, None), weights)

    def query(self, x: Tensor) -> Tensor:
        """Wq X: (L, B, input_size) -> (L, B, d')."""
        return self.q_proj(x if self.pre_norm is None else self.pre_norm(x))

    def _recur(
        self, y: Tensor, x: Tensor, c0: Tensor | None, pad: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.attn_norm is not None:
            y = self.attn_norm(y)
        u = self.out_proj(dropout(y, self.dropout, self.training))
        h, c = self.recurrence(u, x, c0, pad)
        return post_norm(self.post_norm, h, pad), c


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
        attends = any(layer.kv_proj is not None for layer in self.layers)
        only_causal = causal and all(m is None for m in (window, mask, pad, context_pad))
        bare = only_causal and self._needs_no_mask(x, context_length, need_weights)
        attn_mask = None
        if attends and not bare:
            attn_mask = attention_mask(
                x.size(0), pad, context_length, context_pad, causal, window, x.device)
            attn_mask = _combine(attn_mask, mask, x.dtype)
        if self.input_proj is not None:
            x = self.input_proj(x)
        inputs, cells, weights = [], [], []
        for i, layer in enumerate(self.layers):
            inputs.append(x)
            x, c, w = self._run(
                layer, x, None if c0 is None else c0[i], pad, attn_mask, contexts[i], need_weights,
                bare)
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

    def _run(self, layer: SRUppLayer, *args) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.checkpoint and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)

    def _needs_no_mask(self, x: Tensor, context_length: int, need_weights: bool) -> bool:
        """Whether a kernel can be causal by itself; on the CPU it cannot with a context."""
        layer = self.layers[0]
        head_size = layer.q_proj.out_features // layer.num_heads
        dropout = layer.attn_dropout if self.training else 0.0
        return is_fused(x, head_size, dropout, need_weights) and (
            context_length == 0 or x.device.type != "cpu")

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
