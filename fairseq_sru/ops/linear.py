"""Linear maps by the fastest library at hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Fewer rows than this with a smaller weight: the call costs more than the product. A large weight
# comes from memory, and MKL reads it with one thread.
_FEWEST_ROWS = 4
_LARGE_WEIGHT = 2**18


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; float32 on AVX-512 CPUs by oneDNN.

    PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on AMD's CPUs: oneDNN
    is 2.2 to 2.6 times faster there, for the products of the backward pass too. A single row, a
    step of decoding, reads large weights at up to 2.6 times the rate.

    Args:
        x: (..., in). weight: (out, in). bias: (out,) or None.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu" or not _onednn_wanted(x, weight):
        return F.linear(x, weight, bias)
    return _OneDNNLinear.apply(x, weight, bias)


class Linear(nn.Linear):
    """torch.nn.Linear whose product is :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


_AVAILABLE = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def _onednn_wanted(x: Tensor, weight: Tensor) -> bool:
    return (
        _AVAILABLE
        and weight.dtype == x.dtype
        and (x.numel() >= _FEWEST_ROWS * x.size(-1) or weight.numel() >= _LARGE_WEIGHT)
        and x.numel() > 0
        and torch._C._get_mkldnn_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad_weight = grad_bias = None
        if needs_weight or needs_bias:
            grad_weight, grad_bias = _parameter_gradients(
                grad.flatten(0, -2), x.flatten(0, -2), weight, needs_bias)
        return linear(grad, weight.t()) if needs_x else None, grad_weight, grad_bias


def _parameter_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, needs_bias: bool
) -> tuple[Tensor, Tensor | None]:
    """From grad (rows, out) and x (rows, in)."""
    # oneDNN's own has no derivative, and is slower than a product of copies where x is wider
    if torch.is_grad_enabled() or x.size(1) > grad.size(1):
        return linear(grad.t(), x.t()), grad.sum(0) if needs_bias else None
    grad_weight, grad_bias = torch.ops.aten.mkldnn_linear_backward_weights(
        grad.to_mkldnn(), x.to_mkldnn(), weight, needs_bias)
    return grad_weight.to_dense(), grad_bias.to_dense() if needs_bias else None
