"""Layer norm of whole layers."""

from __future__ import annotations

from torch import Tensor, nn

from fairseq_sru.ops.padding import zero_padding


def layer_norms(
    placement: str | None, input_size: int, output_size: int
) -> tuple[nn.LayerNorm | None, nn.LayerNorm | None]:
    """(pre, post) layer norm of a layer for ``placement`` None, "pre" or "post".

    Raises:
        ValueError: another placement.
    """
    if placement not in (None, "pre", "post"):
        raise ValueError(f"layer_norm must be None, 'pre' or 'post', got {placement!r}")
    return (
        nn.LayerNorm(input_size) if placement == "pre" else None,
        nn.LayerNorm(output_size) if placement == "post" else None,
    )


def post_norm(norm: nn.LayerNorm | None, h: Tensor, pad: Tensor | None) -> Tensor:
    """Normalise h (L, B, D), keeping padded steps 0."""
    return h if norm is None else zero_padding(norm(h), pad)
