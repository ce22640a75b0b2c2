"""Linear maps by oneDNN equal PyTorch's, values and gradients, and step aside where they must."""

import argparse
import importlib

import pytest
import torch
import torch.nn.functional as F
from test_translation import build
from torch import nn
from torch.ao import quantization

from fairseq_sru.models.transformer_sru import TransformerSRUModel
from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.ops import Linear, linear

module = importlib.import_module("fairseq_sru.ops.linear")  # the package's linear is the function

SHAPES = [((7, 3, 65), 33), ((160, 256), 100), ((4, 1), 1), ((9, 2, 5, 24), 48)]


@pytest.fixture
def calls(monkeypatch):
    """How often oneDNN was called."""
    if not module._AVAILABLE:
        pytest.skip("PyTorch has no oneDNN, or the CPU no AVX-512")
    counted = []
    original = module._OneDNNLinear.forward

    def forward(ctx, *args):
        counted.append(args)
        return original(ctx, *args)

    monkeypatch.setattr(module._OneDNNLinear, "forward", staticmethod(forward))
    return counted


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("shape, out", SHAPES)
def test_equals_float64(calls, shape, out, with_bias):
    torch.manual_seed(1)
    x = torch.randn(*shape, requires_grad=True)
    weight = torch.randn(out, shape[-1], requires_grad=True)
    bias = torch.randn(out, requires_grad=True) if with_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    y = linear(x, weight, bias)
    g = torch.randn_like(y)
    grads = torch.autograd.grad(y, inputs, g)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = F.linear(*wide)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)
    for grad, want in zip(grads, torch.autograd.grad(expected, wide, g.double())):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad.double(), want, atol=1e-4, rtol=1e-5)
    assert calls


def test_second_gradients(calls):
    x = torch.randn(8, 5, requires_grad=True)
    weight = torch.randn(6, 5, requires_grad=True)

    def second(function):
        first = torch.autograd.grad(
            function(x, weight).pow(3).sum(), [x, weight], create_graph=True)
        return torch.autograd.grad(sum(g.pow(2).sum() for g in first), [x, weight])

    for ours, theirs in zip(second(linear), second(F.linear)):
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-4)


def test_strided_input(calls):
    x = torch.randn(6, 5, 16)
    weight = torch.randn(3, 32)[:, ::2]
    torch.testing.assert_close(
        linear(x.transpose(0, 1), weight), F.linear(x.transpose(0, 1), weight))
    assert len(calls) == 1


def test_steps_aside(calls):
    weight = torch.randn(3, 16)
    few = torch.randn(2, 16, requires_grad=True)
    assert torch.equal(linear(few, weight), F.linear(few, weight))
    assert linear(torch.empty(0, 16), weight).shape == (0, 3)
    many = torch.randn(20, 16)
    for dtype in (torch.float64, torch.bfloat16):
        assert linear(many.to(dtype), weight.to(dtype)).dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(many, weight).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(linear(many, weight), F.linear(many, weight))
    assert not calls


def test_module_is_a_linear():
    torch.manual_seed(2)
    ours = Linear(16, 8)
    plain = torch.nn.Linear(16, 8)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(20, 16)
    torch.testing.assert_close(ours(x), plain(x))


def model_of(kind):
    if kind == "srupp":
        return SRUpp(8, 12, 4)
    if kind == "sru":
        return nn.Sequential(nn.Linear(4, 8), SRU(8, 12))
    return build()


@pytest.mark.parametrize("kind", ["srupp", "sru", "translation"])
@pytest.mark.parametrize("quantise", [
    lambda model: quantization.quantize_dynamic(model, {nn.Linear}),
    lambda model: quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.float16),
    lambda model: quantization.prepare_qat(configured(model).train()),
    lambda model: quantization.prepare(configured(model).eval()),
])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantisation_by_type_is_refused(kind, quantise):
    """It would convert nothing, or what decoding cannot use."""
    with pytest.raises(NotImplementedError, match="python -m fairseq_sru.export.*int8") as caught:
        quantise(model_of(kind))
    assert "\n" not in str(caught.value)


def configured(model):
    model.qconfig = quantization.default_qconfig
    return model


class Wrapped(torch.Tensor):
    """As libraries that quantise or share out weights wrap them."""

    seen: list = []

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is F.linear:
            cls.seen.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("rows", [1, 8])
def test_subclasses_of_tensors_see_their_product(rows):
    """And no kernel of ours reads their memory."""
    x, weight = torch.randn(rows, 8), torch.randn(6, 8)
    Wrapped.seen.clear()
    y = linear(x, weight.as_subclass(Wrapped))
    assert Wrapped.seen == [F.linear]
    torch.testing.assert_close(torch.Tensor(y), x @ weight.t())


@pytest.mark.parametrize("option", ["quant_noise_pq", "quant_noise_scalar"])
def test_quantisation_noise_without_the_sru_layers_is_refused(option):
    args = argparse.Namespace(**{option: 0.1})
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')} reaches"):
        TransformerSRUModel.build_model(args, None)
