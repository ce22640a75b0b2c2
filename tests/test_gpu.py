"""The CUDA kernels and what runs on them, on a GPU.

DEVICE=cpu runs what does not need CUDA itself on the CPU, to test these tests.
"""

from __future__ import annotations

import copy
import math
import os
import re

import pytest
import torch
from conftest import TRAIN_OPTIONS, USER_DIR, run_fairseq
from test_recurrence import OPTIONS, convert, make_inputs, option_id, run

from fairseq_sru.modules import SRUpp
from fairseq_sru.ops import attention, attention_mask, recurrence, recurrence_ref
from fairseq_sru.ops.attention import attention_packing
from fairseq_sru.ops.varlen import runs_varlen

DEVICE = os.environ.get("DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="no GPU: torch.cuda.is_available() is False",
    ),
]
needs_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="about CUDA itself")
PRECISIONS = [torch.float32, torch.bfloat16] + [torch.float16] * (DEVICE == "cuda")
EVERYTHING = dict(c0=True, pad=True, mask_c=True, scale=0.6, bidirectional=True)


def gentle_inputs(*shape, **options):
    """As make_inputs, but v drawn as at initialisation: larger ones make the recurrence chaotic."""
    inputs = make_inputs(*shape, device=DEVICE, **options)
    if inputs["weight_c"] is not None:
        with torch.no_grad():
            inputs["weight_c"].clamp_(-1, 1)
    return inputs


def assert_as_good_as_the_loop(inputs):
    """flash-attention's rule: at most twice the error of the plain loop in the same precision,
    both against the loop in float64. Besides, the GPU's fast exponential and division, good to a
    few units in the last place."""
    truth = run(recurrence_ref, convert(inputs, torch.float64))
    ours, theirs = run(recurrence, inputs), run(recurrence_ref, inputs)
    assert ours.keys() == truth.keys()
    for name, exact in truth.items():
        assert ours[name].dtype == theirs[name].dtype
        error = (ours[name].double() - exact).abs().max()
        allowed = 2 * (theirs[name].double() - exact).abs().max() + 5e-6 * exact.abs().max()
        assert error <= allowed, f"{name}: {error} > {allowed}"


def relative_error(tensor, exact):
    return ((tensor.cpu().double() - exact).norm() / exact.norm()).item()


def capture(function):
    """The graph of a function's kernels, and what a replay writes its results to."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function()
    return graph, results


@needs_cuda
def test_the_kernels_are_built():
    assert torch._C._dispatch_has_kernel_for_dispatch_key("fairseq_sru::recurrence", "CUDA")


@pytest.mark.parametrize("shape", [(9, 4, 6), (1, 3, 64), (63, 2, 130), (17, 1, 500)])
@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_float64_equals_the_loop(option, shape):
    inputs = gentle_inputs(*shape, **option)
    expected, actual = run(recurrence_ref, inputs), run(recurrence, inputs)
    assert expected.keys() == actual.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_error_is_at_most_twice_pytorchs(option, dtype):
    assert_as_good_as_the_loop(gentle_inputs(40, 32, 72, dtype=dtype, **option))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", [
    (1, 1, 2),  # a single step of few channels
    (3, 5, 34),  # no pairs of 16-bit channels in each direction
    (7, 1, 512), (8, 1, 512), (9, 1, 512),  # around a group of steps,
    (31, 1, 512), (32, 1, 512), (33, 1, 512),  # a ring of wide rows,
    (63, 1, 512), (64, 1, 512), (65, 1, 512),  # and one of narrow ones
    (70, 3, 48), (70, 3, 2064),  # warps with lanes to spare
    (1, 128, 4096),  # 524,288 columns, one step
    (24, 128, 4096),
    (3000, 2, 66),  # long
], ids=str)
def test_shapes(shape, dtype):
    assert_as_good_as_the_loop(gentle_inputs(*shape, dtype=dtype, **EVERYTHING))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("kernel", ["pair", "single", "wide", "small"])
@pytest.mark.parametrize("shape", [(40, 3, 208), (127, 1, 64), (128, 1, 64), (200, 2, 64)], ids=str)
def test_kernels(shape, kernel, dtype, monkeypatch):
    """Each by itself, whatever the number of tiles would choose, around the deepest ring."""
    monkeypatch.setenv("FAIRSEQ_SRU_KERNEL", kernel)
    assert_as_good_as_the_loop(gentle_inputs(*shape, dtype=dtype, **EVERYTHING))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("size", [7, 33])
def test_odd_sizes(size, dtype):
    options = {**EVERYTHING, "bidirectional": False}
    assert_as_good_as_the_loop(gentle_inputs(19, 37, size, dtype=dtype, **options))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_unaligned_input(dtype):
    """Tensors that start in the middle of a word: another kernel, the same result."""
    inputs = gentle_inputs(20, 3, 64, dtype=dtype, **EVERYTHING)
    shifted = {}
    for name, tensor in inputs.items():
        if torch.is_tensor(tensor):
            storage = tensor.new_empty(tensor.numel() + 1)
            moved = storage[1:].view(tensor.shape).copy_(tensor.detach())
            shifted[name] = moved.requires_grad_(tensor.requires_grad)
    expected, actual = run(recurrence, inputs), run(recurrence, {**inputs, **shifted})
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_repeated_runs_are_bitwise_equal(dtype):
    inputs = gentle_inputs(64, 24, 1026, dtype=dtype, **EVERYTHING)
    first = run(recurrence, inputs)
    for _ in range(3):
        again = run(recurrence, inputs)
        for name in first:
            assert torch.equal(first[name], again[name]), name


@needs_cuda
def test_the_operator_passes_pytorchs_checks():
    inputs = gentle_inputs(6, 3, 8, **EVERYTHING)
    torch.library.opcheck(torch.ops.fairseq_sru.recurrence.default, (*inputs.values(), True))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("gate", [-math.inf, -1e4, 1e4, math.inf])
def test_saturated_gates(gate, dtype):
    """A closed one carries the state exactly, an open one takes the candidate; gradients stay
    finite."""
    inputs = gentle_inputs(9, 4, 64, dtype=dtype, c0=True)
    with torch.no_grad():
        inputs["u"][:, :, :2] = gate
    result = run(recurrence, inputs)
    expected = inputs["c0"] if gate > 0 else inputs["u"][-1, :, 2].to(inputs["c0"].dtype)
    assert torch.equal(result["c"], expected)
    assert all(tensor.isfinite().all() for tensor in result.values())


@needs_cuda
def test_runs_on_the_current_stream():
    """The input arrives on that stream, long after the CPU has gone on."""
    inputs = gentle_inputs(20, 4, 64, dtype=torch.bfloat16, **EVERYTHING)
    expected = run(recurrence, inputs)
    late = {**inputs, "u": torch.zeros_like(inputs["u"]).requires_grad_()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**9)
        late["u"].data.copy_(inputs["u"].detach())
        actual = run(recurrence, late)
    stream.synchronize()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


@needs_cuda
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_cuda_graph(dtype):
    """Captured once with some numbers, replayed with others."""
    inputs = gentle_inputs(20, 4, 64, dtype=dtype, **EVERYTHING)
    leaves = [t for t in inputs.values() if torch.is_tensor(t) and t.requires_grad]
    grad_h = torch.randn(20, 4, 64, device=DEVICE).to(dtype)

    def forward_backward():
        h, c = recurrence(**inputs)
        return h, c, *torch.autograd.grad((h, c), leaves, (grad_h, torch.ones_like(c)))

    graph, captured = capture(forward_backward)
    for tensor in leaves:
        tensor.data.copy_(torch.randn_like(tensor))
    graph.replay()
    for replayed, expected in zip(captured, forward_backward()):
        assert torch.equal(replayed, expected)


@needs_cuda
@pytest.mark.parametrize("padded", [False, True])
def test_cuda_graph_of_a_stack(padded):
    """A whole training step of the layers, captured once and replayed with another input."""
    torch.manual_seed(0)
    stack = SRUpp(48, 64, 32, 3, num_heads=2, alpha_init=0.7, layer_norm="pre", project_input=True)
    stack = stack.to(DEVICE, torch.bfloat16)
    pad = torch.zeros(300, 5, dtype=torch.bool, device=DEVICE)
    pad[217:, 1] = True
    x = torch.randn(300, 5, 48, device=DEVICE).bfloat16().requires_grad_()

    def forward_backward():
        out = stack(x, pad=pad if padded else None, causal=True)
        loss = out.h.float().square().sum()
        return loss, *torch.autograd.grad(loss, (x, *stack.parameters()))

    graph, captured = capture(forward_backward)
    x.data.copy_(torch.randn_like(x))
    graph.replay()
    for replayed, expected in zip(captured, forward_backward()):
        assert relative_error(replayed, expected.cpu().double()) < 1e-2


@pytest.mark.parametrize("dtype, tolerance", [
    (dtype, {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype])
    for dtype in PRECISIONS
])
@pytest.mark.parametrize("heads, size", [(1, 88), (4, 88), (1, 256), (1, 480), (3, 480), (1, 1024)])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("causal, padded, masked", [
    (False, False, True), (True, False, True), (True, False, False), (True, True, True)])
def test_attention(causal, padded, masked, need_weights, heads, size, dtype, tolerance):
    """Output and gradients of every path against float64 on the CPU."""
    length, context, batch = 37, 50, 3
    generator = torch.Generator().manual_seed(size)
    tensors = [torch.randn(n, batch, size, generator=generator).to(dtype)
               for n in (length, context + length, context + length, length)]
    pad = context_pad = None
    if padded:
        pad = torch.zeros(length, batch, dtype=torch.bool)
        context_pad = torch.zeros(context, batch, dtype=torch.bool)
        pad[30:, 0] = context_pad[:7, 1] = context_pad[:, 2] = True

    def out_and_gradients(dtype, device, masked=True):
        q, k, v = (t.to(device, dtype).requires_grad_() for t in tensors[:3])
        pads = [None if p is None else p.to(device) for p in (pad, context_pad)]
        mask = None
        if masked:
            mask = attention_mask(length, pads[0], context, pads[1], causal, device=device)
        out, _ = attention(
            q, k, v, mask, heads, need_weights=need_weights, causal=causal and not masked)
        if pad is not None:
            out = out.masked_fill(pads[0].unsqueeze(-1), 0)
        return out, *torch.autograd.grad(out, (q, k, v), tensors[3].to(device, dtype))

    exact = out_and_gradients(torch.float64, "cpu")
    for actual, expected in zip(out_and_gradients(dtype, DEVICE, masked), exact):
        assert relative_error(actual, expected) < tolerance


@needs_cuda
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("heads, size", [(1, 88), (4, 352), (1, 256)])
@pytest.mark.parametrize("causal", [False, True])
def test_varlen_attention(causal, heads, size, dtype, tolerance):
    """Output and gradients of the kernel without a mask, padding in the middle, on either side,
    and everywhere, against a mask in float64 on the CPU."""
    if not runs_varlen(torch.device(DEVICE)):
        pytest.skip("no varlen_attn: PyTorch before 2.11 or a GPU before sm_80")
    length, context, batch = 137, 150, 5
    generator = torch.Generator().manual_seed(size)
    tensors = [torch.randn(n, batch, size, generator=generator).to(dtype)
               for n in (length, context + length, context + length, length)]
    pad = torch.zeros(length, batch, dtype=torch.bool)
    context_pad = torch.zeros(context, batch, dtype=torch.bool)
    pad[30:, 0] = pad[7:9, 1] = pad[:, 3] = True
    context_pad[:7, 0] = context_pad[-9:, 1] = context_pad[:, 2] = context_pad[:, 3] = True

    def out_and_gradients(dtype, device):
        q, k, v = (t.to(device, dtype).requires_grad_() for t in tensors[:3])
        pads = length, pad.to(device), context, context_pad.to(device)
        reach = ({"mask": attention_mask(*pads, causal)} if device == "cpu"
                 else {"packing": attention_packing(*pads), "causal": causal})
        out, _ = attention(q, k, v, num_heads=heads, **reach)
        assert out.isfinite().all()
        out = out.masked_fill(pad.to(device).unsqueeze(-1), 0)
        return out, *torch.autograd.grad(out, (q, k, v), tensors[3].to(device, dtype))

    exact = out_and_gradients(torch.float64, "cpu")
    for actual, expected in zip(out_and_gradients(dtype, DEVICE), exact):
        assert relative_error(actual, expected) < tolerance


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("size", [88, 480])
def test_nothing_to_attend_to_is_finite(size, dtype):
    q, k, v = (torch.randn(9, 2, size, device=DEVICE, dtype=dtype, requires_grad=True)
               for _ in range(3))
    pad = torch.tensor([[True, False]] * 9, device=DEVICE)
    out, _ = attention(q, k, v, attention_mask(9, pad))
    out.sum().backward()
    assert all(t.isfinite().all() for t in (out, q.grad, k.grad, v.grad))


@pytest.mark.parametrize("dtype, tolerance", [
    (torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_equal_those_of_the_cpu(bidirectional, dtype, tolerance):
    """Output, states and gradients of a stack with context, padding and a causal mask."""
    torch.manual_seed(0)
    stack = SRUpp(48, 64, 32, 3, attention="1,3", num_heads=2, alpha_init=0.7, layer_norm="pre",
                  bidirectional=bidirectional, project_input=True).double()
    width = stack.output_size
    x, context = torch.randn(21, 5, 48).double(), torch.randn(13, 5, width).double()
    pad, context_pad = torch.zeros(21, 5, dtype=torch.bool), torch.zeros(13, 5, dtype=torch.bool)
    pad[17:, 1] = context_pad[:4, 2] = True

    def out_and_gradients(dtype, device):
        model = copy.deepcopy(stack).to(device, dtype)
        inputs = [t.to(device, dtype).requires_grad_() for t in (x, context)]
        out = model(inputs[0], pad=pad.to(device), context=inputs[1],
                    context_pad=context_pad.to(device), causal=not bidirectional)
        loss = out.h.double().square().sum() + out.c.double().sum()
        leaves = [*inputs, *model.parameters()]
        return out.h, out.c, *torch.autograd.grad(loss, leaves)

    exact = out_and_gradients(torch.float64, "cpu")
    for actual, expected in zip(out_and_gradients(dtype, DEVICE), exact):
        assert actual.device.type == DEVICE
        assert relative_error(actual, expected) < tolerance


@torch.no_grad()
def test_decoding_steps_equal_the_whole():
    torch.manual_seed(0)
    stack = SRUpp(24, 32, 16, 3, num_heads=2, alpha_init=0.7, project_input=True).to(DEVICE).eval()
    x = torch.randn(9, 4, 24, device=DEVICE)
    context = torch.randn(7, 2, 32, device=DEVICE)
    context_pad = torch.zeros(7, 2, dtype=torch.bool, device=DEVICE)
    context_pad[4:, 1] = True
    twice = torch.tensor([0, 0, 1, 1], device=DEVICE)
    whole = stack(x, context=context[:, twice], context_pad=context_pad[:, twice], causal=True).h
    state = stack.start(4, context, context_pad)
    for t in range(len(x)):
        h, _ = stack.step(x[t : t + 1], state)
        torch.testing.assert_close(h[0], whole[t], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["--bf16"] + ["--fp16"] * (DEVICE == "cuda"))
def test_train_and_generate(data, tmp_path, precision):
    """fairseq's own commands: the loss falls, every sentence is translated."""
    device = ["--cpu"] * (DEVICE == "cpu")
    options = [option for option in TRAIN_OPTIONS if option != "--cpu"]
    log = run_fairseq("train", data, *options, *device, precision, "--max-update", "20",
                      "--save-dir", tmp_path).stdout
    losses = [float(loss) for loss in re.findall(r"train_inner \|.*? loss=([\d.]+)", log)]
    assert len(losses) == 5 and all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    found = run_fairseq("generate", data, "--user-dir", USER_DIR, *device, "--beam", "3",
                        "--path", tmp_path / "checkpoint_last.pt", "--max-len-b", "12").stdout
    assert sorted(map(int, re.findall(r"^H-(\d+)\t", found, re.M))) == list(range(20))
