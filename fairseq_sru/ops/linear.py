"""Linear maps by the fastest library at hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_sru.ops.derivatives import transformed
from fairseq_sru.ops.extension import COMPILED

_ONEDNN_ROWS = 4  # below, calling oneDNN costs more than the product
_FEW_ROWS = {torch.float32: 5, torch.bfloat16: 3}  # up to here our kernel is the fastest


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; on the CPU a few rows, a step of decoding, by our kernel, and float32 with AVX-512
    by oneDNN.

    A product of a few rows is as fast as the weights are read, and MKL reads them with one thread.
    PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on AMD's CPUs: oneDNN
    is 2.2 to 2.6 times faster there, for the products of the backward pass too.

    Args:
        x: (..., in). weight: (out, in). bias: (out,) or None.

    Raises:
        ValueError, RuntimeError: shapes do not fit.
    """
    if x.device.type != "cpu" or weight.dtype != x.dtype or not _plain(weight) or (
            not _plain_mode(x)):
        return F.linear(x, weight, bias)
    rows = x.numel() // x.size(-1)
    if rows <= _FEW_ROWS.get(x.dtype, 0) and COMPILED and not _needs_grad(x, weight, bias):
        y = torch.ops.fairseq_sru.few_rows(x.reshape(rows, x.size(-1)), weight, bias)
        return y.view(*x.shape[:-1], weight.size(0))
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rows = x.numel() // x.size(-1)
    fits = rows >= _ONEDNN_ROWS and x.dtype == torch.float32 and not transformed()
    if fits and _onednn_wanted():
        return _OneDNNLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """torch.nn.Linear whose product is :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)

    def _refuse_quantisation(self, qconfig: Any) -> None:
        raise NotImplementedError(
            "PyTorch's quantisation matches torch.nn.Linear by its type and would leave the maps "
            "of these layers as they are: for int8 use `python -m fairseq_sru.export`, or "
            "fairseq-generate --srupp-engine int8; of a larger model quantise the other parts")

    # what quantize_dynamic, prepare and prepare_qat set on every module
    qconfig = property(fset=_refuse_quantisation)


_AVAILABLE = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def _plain(weight: Tensor) -> bool:
    """Whether it is no subclass, such as those that quantise or share out weights."""
    return type(weight) in (Tensor, nn.Parameter)


def _plain_mode(x: Tensor) -> bool:
    return (
        x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not transformed()
    )


def _needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _onednn_wanted() -> bool:
    return _AVAILABLE and torch._C._get_mkldnn_enabled()


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad_weight = grad_bias = None
        if needs_weight or needs_bias:
            rows = x.numel() // x.size(-1)
            grad_weight, grad_bias = _parameter_gradients(
                grad.reshape(rows, -1), x.reshape(rows, -1), weight, needs_bias)
        return _product(grad, weight.t()) if needs_x else None, grad_weight, grad_bias


def _parameter_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, needs_bias: bool
) -> tuple[Tensor, Tensor | None]:
    """From grad (rows, out) and x (rows, in)."""
    # oneDNN's own has no derivative, and is slower than a product of copies where x is wider
    if torch.is_grad_enabled() or transformed() or x.size(1) > grad.size(1):
        return _product(grad.t(), x.t()), grad.sum(0) if needs_bias else None
    grad_weight, grad_bias = torch.ops.aten.mkldnn_linear_backward_weights(
        grad.to_mkldnn(), x.to_mkldnn(), weight, needs_bias)
    return grad_weight.to_dense(), grad_bias.to_dense() if needs_bias else None


if COMPILED:

    @torch.library.register_fake("fairseq_sru::few_rows")
    def _(x, weight, bias):
        return x.new_empty(x.size(0), weight.size(0))
