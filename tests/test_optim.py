"""RAdam: the numbers of the paper's algorithm, every precision, fairseq's options."""

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.optim import (
    OPTIMIZER_REGISTRY,
    FP16Optimizer,
    MemoryEfficientFP16Optimizer,
    build_optimizer,
)
from omegaconf import OmegaConf

from fairseq_sru.errors import UsageError
from fairseq_sru.optim import FairseqRAdam
from fairseq_sru.optim.radam import RAdam


def config(**options):
    values = {"_name": "radam", "lr": [0.1], "weight_decay": 0.0, **options}
    common = {"fp16_init_scale": 4, "fp16_scale_window": 1, "fp16_scale_tolerance": 0.0,
              "threshold_loss_scale": None, "min_loss_scale": 1e-4, "bf16": True}
    return OmegaConf.create({
        "optimizer": values, "common": common,
        "optimization": {"update_freq": [1], "lr": values["lr"]},
        "distributed_training": {"distributed_world_size": 1},
    })


def radam(params, **options):
    return build_optimizer(config(**options).optimizer, params)


def paper(weight, gradients, lr, betas, eps, weight_decay):
    """Algorithm 2 of Liu et al. (2020), with decoupled decay, on one float64 number."""
    beta1, beta2 = betas
    m = v = 0.0
    limit = 2 / (1 - beta2) - 1
    for t, gradient in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        corrected = m / (1 - beta1**t)
        length = limit - 2 * t * beta2**t / (1 - beta2**t)
        weight -= lr * weight_decay * weight
        if length > 5:
            rectifier = math.sqrt((length - 4) * (length - 2) * limit
                                  / ((limit - 4) * (limit - 2) * length))
            adaptive = math.sqrt(1 - beta2**t) / (math.sqrt(v) + eps)
            weight -= lr * corrected * rectifier * adaptive
        else:
            weight -= lr * corrected
    return weight


@pytest.mark.parametrize("options", [
    {}, {"weight_decay": 0.1}, {"radam_betas": "(0.8, 0.99)", "radam_eps": 1e-3},
])
def test_equals_the_paper(options):
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = radam([weight], **options)
    assert isinstance(optimizer, FairseqRAdam)
    assert OPTIMIZER_REGISTRY["radam"] is FairseqRAdam
    gradients = [math.sin(3 * t) for t in range(12)]
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    settings = optimizer.optimizer_config
    expected = paper(2.0, gradients, **settings)
    assert weight.item() == pytest.approx(expected, abs=1e-12)
    assert settings["lr"] == 0.1


@pytest.mark.parametrize("betas", ["0.9", "(0.9,)", "nine", (0.9, 0.99, 0.999)])
def test_betas_are_two_numbers(betas):
    with pytest.raises(ValueError, match="--radam-betas must be two numbers"):
        radam([torch.nn.Parameter(torch.zeros(1))], radam_betas=betas)


LAYOUTS = {
    "contiguous": torch.clone,
    "transposed": lambda x: x.t().contiguous().t(),
    "every other": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "with gaps": lambda x: torch.cat([x, x], 1)[:, : x.size(1)],
}


@pytest.mark.parametrize("part", ["parameter", "gradient", "state"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_numbers_may_lie_in_any_order(layout, part):
    torch.manual_seed(0)
    start = torch.randn(4, 3)
    parameter = torch.nn.Parameter(layout(start) if part == "parameter" else start.clone())
    other = torch.nn.Parameter(start.clone())
    ours, theirs = RAdam([parameter], lr=0.1), torch.optim.RAdam([other], lr=0.1)
    for _ in range(9):
        other.grad = torch.randn(4, 3)
        parameter.grad = layout(other.grad) if part == "gradient" else other.grad.clone()
        if part == "state":
            for name in ours.state[parameter].keys() & {"exp_avg", "exp_avg_sq"}:
                ours.state[parameter][name] = layout(ours.state[parameter][name])
        ours.step()
        theirs.step()
        torch.testing.assert_close(parameter, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_parameters_have_float32_arithmetic(dtype):
    """Gradients whose square is 0 in float16 move the weights as they do in float32."""
    torch.manual_seed(0)
    narrow = [torch.nn.Parameter(torch.randn(5, 3).to(dtype)) for _ in range(2)]
    unused = torch.nn.Parameter(torch.ones(1, dtype=dtype))
    wide = [torch.nn.Parameter(p.detach().float()) for p in narrow]
    ours, theirs = RAdam([*narrow, unused], lr=1e-2), torch.optim.RAdam(wide, lr=1e-2)
    for _ in range(8):
        for p, q in zip(narrow, wide):
            p.grad = (torch.randn(5, 3) * 1e-5).to(dtype)
            q.grad = p.grad.float()
        ours.step()
        theirs.step()
        for p, q in zip(narrow, wide):
            assert torch.equal(p, q.detach().to(dtype))
            q.data.copy_(p)  # the parameter itself is rounded
    assert ours.state[narrow[0]]["exp_avg_sq"].dtype == torch.float32
    assert torch.equal(ours.state[narrow[1]]["exp_avg"], theirs.state[wide[1]]["exp_avg"])
    assert ours.param_groups[0]["params"][0] is narrow[0] and unused.item() == 1


@pytest.mark.parametrize("wrapper", [FP16Optimizer, MemoryEfficientFP16Optimizer])
def test_bf16_resumes_bitwise(wrapper):
    """fairseq's 16-bit wrappers take it, and a saved and loaded state goes on as if never left."""

    def run(steps, params=None, state=None):
        params = params or [torch.nn.Parameter(torch.ones(4, 2, dtype=torch.bfloat16))]
        optimizer = wrapper.build_optimizer(config(weight_decay=0.1), params)
        if state is not None:
            optimizer.load_state_dict(state)
        for step in steps:
            optimizer.zero_grad()
            optimizer.backward((params[0] * (step + 1) * 1e-3).sum())
            optimizer.clip_grad_norm(1.0)
            optimizer.step()
        return params, optimizer.state_dict()

    whole, final = run(range(10))
    half, state = run(range(6))
    resumed, again = run(range(6, 10), half, state)
    if wrapper is MemoryEfficientFP16Optimizer:  # the other keeps its float32 copy to itself
        assert torch.equal(whole[0], resumed[0])
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(final["state"][0][key], again["state"][0][key])
        assert again["state"][0][key].dtype == torch.float32
    assert not torch.equal(whole[0], torch.ones_like(whole[0]))


def test_flat_parameters():
    """--fp16 hands over all parameters as one vector: same numbers."""
    torch.manual_seed(0)
    parts = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    flat = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in parts]))
    separate, together = radam(parts, weight_decay=0.1), radam([flat], weight_decay=0.1)
    assert together.supports_flat_params and together.supports_memory_efficient_fp16
    for _ in range(8):
        flat.grad = torch.randn(10)
        parts[0].grad, parts[1].grad = flat.grad[:6].view(3, 2), flat.grad[6:].clone()
        separate.step()
        together.step()
    torch.testing.assert_close(torch.cat([p.detach().flatten() for p in parts]), flat.detach(),
                               rtol=0, atol=1e-7)


def vectors_and_matrix():
    torch.manual_seed(0)
    gates, alpha, norm = torch.randn(2, 5), torch.ones(1), torch.ones(5)
    return [torch.nn.Parameter(p) for p in (gates, alpha, torch.randn(4, 5), norm)]


@pytest.mark.parametrize("wrapper", [None, FP16Optimizer, MemoryEfficientFP16Optimizer])
def test_decay_of_matrices_alone(wrapper):
    """Without a gradient decay alone moves weights; a resumed run decays the same ones."""
    options = {"weight_decay": 0.5, "radam_decay": "matrices"}

    def build(params):
        if wrapper is None:
            return radam(params, **options)
        return wrapper.build_optimizer(config(**options), params)

    params = vectors_and_matrix()
    optimizer = build(params)
    for _ in range(2):
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = torch.zeros_like(p)
        if wrapper is not None:
            optimizer.backward(sum((p * 0).sum() for p in params))
        optimizer.step()
        for p, old in zip(params, before):
            factor = 1 - 0.1 * 0.5 if p.shape == (4, 5) else 1
            torch.testing.assert_close(p.detach(), old * factor)
        state = optimizer.state_dict()
        optimizer = build(params)
        optimizer.load_state_dict(state, optimizer.optimizer_config)


def test_decay_of_matrices_needs_matrices():
    with pytest.raises(UsageError, match="--fp16-no-flatten-grads"):
        radam([torch.nn.Parameter(torch.ones(10))], radam_decay="matrices")


def test_another_decay_is_refused_on_resumption():
    params = vectors_and_matrix()
    state = radam(params).state_dict()
    with pytest.raises(UsageError, match="--radam-decay"):
        radam(params, radam_decay="matrices").load_state_dict(state)


def test_learning_rate_follows_the_schedule():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = radam([weight])
    optimizer.set_lr(0.0)
    weight.grad = torch.ones(1)
    optimizer.step()
    assert weight.item() == 1 and optimizer.get_lr() == 0
    assert FairseqRAdam(SimpleNamespace(
        lr=0.5, radam_betas=(0.9, 0.99), radam_eps=1e-8, weight_decay=0.0, radam_decay="all"
    ), [weight]).get_lr() == 0.5
