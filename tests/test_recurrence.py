"""The compiled recurrence does what the plain loop does, and its gradients are right."""

import itertools
import subprocess
import sys

import pytest
import torch

from fairseq_sru.ops import recurrence, recurrence_ref, recurrence_tanh
from fairseq_sru.ops.extension import COMPILED
from fairseq_sru.ops.reference import state_dtype

OPTIONS = [
    dict(),
    dict(c0=True),
    dict(pad=True),
    dict(mask_c=True),
    dict(scale=1.7),
    dict(highway="block"),
    dict(highway="none"),
    dict(weight_c=False),
    dict(bidirectional=True),
    dict(c0=True, pad=True, mask_c=True, scale=0.6),
    dict(c0=True, pad=True, mask_c=True, highway="block", bidirectional=True),
    dict(c0=True, pad=True, mask_c=True, highway="none", bidirectional=True, weight_c=False),
    dict(c0=True, pad=True, scale=1.3, bidirectional=True),
]


def option_id(option):
    return "-".join(f"{k}={v}" for k, v in option.items()) or "plain"


def make_inputs(length, batch, size, dtype=torch.float64, seed=0, *, c0=False, pad=False,
                mask_c=False, scale=1.0, highway="x", weight_c=True, bidirectional=False,
                device="cpu"):
    """Arguments of ``recurrence``; floating tensors require gradients."""
    generator = torch.Generator().manual_seed(seed)
    state = state_dtype(dtype)

    def randn(*shape, dtype):
        tensor = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return tensor.to(device=device, dtype=dtype).requires_grad_()

    inputs = dict(
        u=randn(length, batch, 4 if highway == "block" else 3, size, dtype=dtype),
        x=randn(length, batch, size, dtype=dtype) if highway == "x" else None,
        weight_c=randn(2, size, dtype=state) if weight_c else None,
        bias=randn(2, size, dtype=state),
        c0=randn(batch, size, dtype=state) if c0 else None,
        pad=None,
        mask_c=None,
        scale=scale,
        bidirectional=bidirectional,
    )
    if pad:
        lengths = [max(0, length - 2 * i) for i in range(batch)]
        steps = torch.arange(length)
        left = torch.stack([steps < length - n for n in lengths], 1)
        right = torch.stack([steps >= n for n in lengths], 1)
        left[:, ::2] = right[:, ::2]
        inputs["pad"] = left.to(device)
    if mask_c:
        keep = torch.rand(batch, size, generator=generator) < 0.7
        inputs["mask_c"] = (keep.to(state) / 0.7).to(device).requires_grad_()
    return inputs


def run(function, inputs, seed=1):
    """Outputs and the gradients of a random projection of them, as a name -> tensor dict."""
    leaves = {k: v for k, v in inputs.items() if torch.is_tensor(v) and v.requires_grad}
    h, c = function(**inputs)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for t in (h, c)]
    loss = (h * weights[0]).sum().to(c.dtype) + (c * weights[1]).sum()
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    grads = {f"grad {k}": g for (k, v), g in zip(leaves.items(), grads)}
    return {"h": h.detach(), "c": c.detach(), **grads}


def convert(inputs, dtype):
    return {
        k: v.detach().to(dtype if v.is_floating_point() else v.dtype).requires_grad_(
            v.requires_grad)
        if torch.is_tensor(v) else v
        for k, v in inputs.items()
    }


def test_the_extension_is_built():
    assert COMPILED, "run `make install`; without it only the plain loop is tested"


needs_extension = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")


@needs_extension
@pytest.mark.parametrize("shape", [(9, 4, 6), (1, 3, 64), (63, 2, 130), (17, 1, 500)])
@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_equals_the_loop(option, shape):
    inputs = make_inputs(*shape, **option)
    expected, actual = run(recurrence_ref, inputs), run(recurrence, inputs)
    assert expected.keys() == actual.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-10, msg=name)


@needs_extension
@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_gradcheck(option):
    inputs = make_inputs(5, 3, 4, **option)
    names = [k for k, v in inputs.items() if torch.is_tensor(v) and v.requires_grad]

    def function(*tensors):
        return recurrence(**{**inputs, **dict(zip(names, tensors))})

    assert torch.autograd.gradcheck(function, [inputs[k] for k in names])


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_low_precision_error_is_at_most_twice_pytorchs(option, dtype):
    """flash-attention's rule: against the float64 loop, and beside the loop in low precision.

    v is drawn as at initialisation, U(-1, 1); larger ones make the recurrence chaotic, and then the
    largest error of either is luck. So is the largest of few numbers: hence 32 sentences.
    """
    inputs = make_inputs(40, 32, 70, dtype=dtype, **option)
    if inputs["weight_c"] is not None:
        with torch.no_grad():
            inputs["weight_c"].uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    truth = run(recurrence_ref, convert(inputs, torch.float64))
    ours, theirs = run(recurrence, inputs), run(recurrence_ref, inputs)
    for name, exact in truth.items():
        assert ours[name].dtype == theirs[name].dtype
        error = (ours[name].double() - exact).abs().max()
        allowed = 2 * (theirs[name].double() - exact).abs().max() + 1e-6 * exact.abs().max()
        assert error <= allowed, f"{name}: {error} > {allowed}"


@needs_extension
@pytest.mark.parametrize("option", [OPTIONS[0], OPTIONS[9], OPTIONS[10], OPTIONS[11]],
                         ids=option_id)
def test_opcheck(option):
    inputs = make_inputs(5, 3, 4, dtype=torch.float32, **option)
    args = (*inputs.values(), True)
    torch.library.opcheck(torch.ops.fairseq_sru.recurrence.default, args)


def compiles_into_one_graph(inputs):
    compiled = torch.compile(recurrence, fullgraph=True, backend="aot_eager")
    expected, actual = run(recurrence, inputs), run(compiled, inputs)
    for name in expected:
        assert torch.equal(expected[name], actual[name]), name


@needs_extension
def test_compiles_into_one_graph():
    compiles_into_one_graph(
        make_inputs(6, 2, 8, dtype=torch.float32, c0=True, pad=True, mask_c=True))


@needs_extension
def test_repeated_runs_are_bitwise_equal_whatever_the_number_of_threads():
    inputs = make_inputs(64, 8, 300, dtype=torch.float32, c0=True, pad=True, mask_c=True)
    first = run(recurrence, inputs)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            again = run(recurrence, inputs)
            assert all(torch.equal(first[k], again[k]) for k in first)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_saturated_gates_stay_finite(dtype):
    inputs = make_inputs(8, 2, 33, dtype=dtype)
    with torch.no_grad():
        inputs["u"][::2] *= 1e4
    for name, tensor in run(recurrence, inputs).items():
        assert tensor.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_are_sigmoids_however_large_what_they_read(dtype):
    """Where exp overflows, too: both gates of one step, the other one open."""
    far = 10 ** torch.linspace(3, 38, 200)
    read = torch.cat([-far, torch.linspace(-1000, 1000, 4001), far]).to(dtype)
    expected = torch.sigmoid(read.double()).to(dtype)
    inputs = dict(x=None, weight_c=None, bias=torch.zeros(2, len(read), dtype=dtype))
    for gate in range(2):
        u = torch.full((1, 1, 3, len(read)), -60.0, dtype=dtype)
        u[0, 0, gate], u[0, 0, 2] = read, 1
        h, c = recurrence(u, **inputs)
        torch.testing.assert_close(h[0, 0] if gate else 1 - c[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_nothing(bidirectional):
    """A sentence alone, padded left, padded right: same outputs, state and gradients."""
    inputs = make_inputs(5, 1, 6, c0=True, bidirectional=bidirectional)
    alone = run(recurrence, inputs)
    for before, after in itertools.product((0, 3), (0, 2)):
        padded = {k: v for k, v in inputs.items()}
        fill = [0, 0] * 2 + [before, after]
        padded["u"] = torch.nn.functional.pad(inputs["u"], [0, 0] + fill, value=7.0)
        padded["x"] = torch.nn.functional.pad(inputs["x"], fill, value=7.0)
        padded["pad"] = torch.ones(5 + before + after, 1, dtype=torch.bool)
        padded["pad"][before : before + 5] = False
        h, c = recurrence(**padded)
        torch.testing.assert_close(h[before : before + 5], alone["h"], rtol=0, atol=1e-14)
        torch.testing.assert_close(c, alone["c"], rtol=0, atol=1e-14)
        assert not h[:before].any() and not h[before + 5 :].any()


def test_segments_equal_the_whole():
    inputs = make_inputs(12, 2, 6, c0=True)
    whole_h, whole_c = recurrence(**inputs)
    c, parts = inputs["c0"], []
    for start, end in ((0, 1), (1, 5), (5, 12)):
        part = {**inputs, "u": inputs["u"][start:end], "x": inputs["x"][start:end], "c0": c}
        h, c = recurrence(**part)
        parts.append(h)
    torch.testing.assert_close(torch.cat(parts), whole_h, rtol=0, atol=1e-14)
    torch.testing.assert_close(c, whole_c, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4)])
def test_empty(shape):
    inputs = make_inputs(*shape, c0=True)
    result = run(recurrence, inputs)
    assert result["h"].shape == shape
    assert torch.equal(result["c"], inputs["c0"])


@needs_extension
def test_inputs_that_are_copied_on_write_are_not_copied():
    inputs = make_inputs(3, 2, 4, c0=True, pad=True, mask_c=True)
    lazy = {name: torch._lazy_clone(value.detach()) if torch.is_tensor(value) else value
            for name, value in inputs.items()}
    recurrence(**lazy)
    assert all(torch._C._is_cow_tensor(t) for t in lazy.values() if torch.is_tensor(t))


@pytest.mark.parametrize("change, message", [
    (dict(u=torch.zeros(5, 3, 2, 4)), "u must be"),
    (dict(x=torch.zeros(5, 3, 5, dtype=torch.float64)), "x must be"),
    (dict(c0=torch.zeros(2, 4, dtype=torch.float64)), "c0 must be"),
    (dict(bias=torch.zeros(4, dtype=torch.float64)), "bias must be"),
    (dict(pad=torch.zeros(5, 3)), "pad must be bool"),
    (dict(u=torch.zeros(5, 3, 4, 4, dtype=torch.float64)), "x must be None"),
    (dict(u=torch.zeros(5, 3, 3, 4, dtype=torch.int64)), "floating point"),
    (dict(u=torch.zeros(5, 3, 3, 3), x=None, bidirectional=True), "even number of channels"),
    (dict(bias=torch.zeros(2, 4, dtype=torch.float64, device="meta")), "bias is on meta"),
])
@pytest.mark.parametrize("function", [recurrence, recurrence_tanh])
def test_bad_input_is_refused(function, change, message):
    with pytest.raises(ValueError, match=message):
        function(**{**make_inputs(5, 3, 4), **change})


@pytest.mark.command
def test_without_the_extension_the_loop_runs_and_warns_once():
    program = (
        "import importlib.abc, sys, warnings\n"
        "class Missing(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'fairseq_sru_ext':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import torch\n"
        "from fairseq_sru.ops import recurrence\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2):\n"
        "        recurrence(torch.randn(3, 2, 3, 4), None, None, torch.zeros(2, 4))\n"
        "print(len(caught), caught[0].message)\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.startswith("1 fairseq_sru_ext is not built") and "pip install" in out.stdout
