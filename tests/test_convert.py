"""Reference state dicts in and out, and recorded runs of the reference against our modules.

The recorded runs lie in $FAIRSEQ_SRU_REFERENCE. Options they lack are recorded here, from the
formulas of the papers written in the reference's layout.
"""

import copy
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import run_python

from fairseq_sru.convert import ConversionError, build_stack, export_stack, load_stack
from fairseq_sru.convert.recorded.check import check_case, check_folder

SIZES = dict(input_size=6, hidden_size=6)
STACKS = [
    ("SRU", dict(**SIZES)),
    ("SRU", dict(input_size=5, hidden_size=6, projection_size=[3, 0], bidirectional=True,
                 layer_norm=True, rescale=True, highway_bias=-1.0)),
    ("SRU", dict(input_size=5, hidden_size=6, has_skip_term=False, use_tanh=True,
                 proj_input_to_hidden_first=True, v1=True)),
    ("SRUpp", dict(**SIZES, proj_size=4, num_layers=3, attention_every_n_layers=2)),
    ("SRUpp", dict(input_size=5, hidden_size=6, proj_size=4, num_heads=2, bidirectional=True,
                   layer_norm=True, normalize_after=True, attn_layer_norm=False)),
    ("SRUpp", dict(input_size=5, hidden_size=6, proj_size=4, proj_input_to_hidden_first=True,
                   attention_last_n_layers=1, layer_norm=True, rescale=True)),
]


def make_state(kind, options):
    """A reference state dict with random numbers in it."""
    state = export_stack(build_stack(kind, options).double())
    return {
        name: t if "scale_x" in name else t + 0.3 * torch.randn_like(t)
        for name, t in state.items()
    }


@pytest.mark.parametrize("kind, options", STACKS)
def test_in_and_out_keeps_every_bit(kind, options):
    state = make_state(kind, options)
    stack = build_stack(kind, options)
    load_stack(stack, state)
    again = export_stack(stack)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_rescaling_is_the_stored_number():
    stack = build_stack("SRU", dict(**SIZES, rescale=True))
    state = export_stack(stack)
    state["rnn_lst.1.scale_x"] = torch.tensor([1.25])
    load_stack(stack, state)
    assert stack.layers[1].recurrence.scale == 1.25
    with pytest.raises(ConversionError, match="rescale=True"):
        load_stack(build_stack("SRU", SIZES), state)


def test_all_that_does_not_fit_is_listed():
    state = make_state("SRUpp", dict(**SIZES, proj_size=4))
    state["rnn_lst.0.bais"] = state.pop("rnn_lst.0.bias")
    state["rnn_lst.1.transform_module.linear3.weight"] = torch.zeros(3, 3)
    del state["rnn_lst.1.scale_x"]
    with pytest.raises(ConversionError) as error:
        load_stack(build_stack("SRUpp", dict(**SIZES, proj_size=4)), state)
    for part in ("rnn_lst.0.bias is missing", "rnn_lst.1.scale_x is missing",
                 "rnn_lst.0.bais is unknown", "linear3.weight is (3, 3), not (18, 4)"):
        assert part in str(error.value)


@pytest.mark.parametrize("kind, options, message", [
    ("GRU", {}, "kind"), ("SRU", dict(input_size=3), "hidden_size is missing"),
    ("SRU", dict(**SIZES, proj_size=3), "proj_size is unknown"),
    ("SRUpp", dict(**SIZES, proj_size=4, use_tanh=True), "use_tanh is unknown"),
])
def test_unknown_options_are_refused(kind, options, message):
    with pytest.raises(ConversionError, match=message):
        build_stack(kind, options)


def test_recorded_runs(reference):
    results = list(check_folder(reference))
    assert len(results) >= 14
    assert all(result.passed for result in results), "\n".join(map(str, results))


@pytest.mark.command
def test_one_wrong_number_fails(reference, tmp_path):
    def check():
        return subprocess.run(
            [sys.executable, "-m", "fairseq_sru.convert", "--check", str(tmp_path)],
            capture_output=True, text=True)

    for name in ("sru_uni.pt", "op_k4.pt"):
        torch.save(torch.load(reference / name, weights_only=True), tmp_path / name)
    run = check()
    assert run.returncode == 0 and "2 cases, 0 failed" in run.stdout, run.stderr
    case = torch.load(reference / "op_k4.pt", weights_only=True)
    case["grads"]["bias"][3] += 1e-9
    torch.save(case, tmp_path / "op_k4.pt")
    run = check()
    assert run.returncode == 1 and "FAILED grad bias" in run.stdout
    (tmp_path / "op_k4.pt").write_bytes(b"no checkpoint")
    assert check().returncode == 1


@pytest.mark.command
def test_an_empty_folder_fails(tmp_path):
    run = subprocess.run([sys.executable, "-m", "fairseq_sru.convert", "--check", str(tmp_path)],
                         capture_output=True, text=True)
    assert run.returncode != 0 and "no *.pt files" in run.stderr


@pytest.mark.command
@pytest.mark.parametrize("arguments", [
    (), ("model.pt",), ("--check", "folder", "model.pt"), ("--check", "folder", "model.pt", "out"),
])
def test_a_conversion_or_a_check(arguments):
    run = run_python("-m", "fairseq_sru.convert", *arguments)
    assert run.returncode == 2 and "give --check DIR, or a source and a target" in run.stderr


def run_theirs(state, ctor, x, c0, pad, memory, memory_pad, draw):
    """SRU++ in the reference's layout and with its two faults; ``draw(shape, p)``: a mask."""
    inputs, cells, i = [], [], 0
    while f"rnn_lst.{i}.bias" in state:
        p = {k[len(f"rnn_lst.{i}."):]: v for k, v in state.items() if k.startswith(f"rnn_lst.{i}.")}
        t = {k[len("transform_module."):]: v for k, v in p.items() if "transform" in k}
        last = f"rnn_lst.{i + 1}.bias" not in state
        inputs.append(x)
        length, batch, size = x.shape
        norm = "layer_norm.weight" in p
        pre = norm and not ctor["normalize_after"]
        mask_c = 1 if last else draw((batch, p["bias"].numel() // 2), ctor["dropout"])
        z = F.layer_norm(x, (size,), p["layer_norm.weight"], p["layer_norm.bias"]) if pre else x
        q = z @ t["linear1.weight"].t()
        w_out = t.get("linear3.weight", t["linear2.weight"])
        y = q
        if "alpha" in t:
            context = torch.cat([memory[i] @ t["linear1.weight"].t(), q]) if memory else q
            hidden = pad if not memory else torch.cat([memory_pad, pad])
            k, v = (context @ t["linear2.weight"].t()).chunk(2, -1)
            heads = [part.unflatten(-1, (ctor["num_heads"], -1)) for part in (q, k, v)]
            scores = torch.einsum("lbhc,sbhc->bhls", *heads[:2]) / math.sqrt(heads[0].size(-1))
            scores = scores.masked_fill(hidden.t()[:, None, None], -math.inf).softmax(-1)
            scores = scores * draw(scores.shape, ctor["attn_dropout"])
            a = torch.einsum("bhls,sbhc->lbhc", scores, heads[2]).flatten(2)
            y = q + t["alpha"] * a
        y = F.layer_norm(y, y.shape[-1:], t["layer_norm.weight"], t["layer_norm.bias"])
        u = (y * draw(y.shape, ctor["dropout"])) @ w_out.t()
        u = u.view(length, batch, p["bias"].numel() // 2, -1)  # (D, k), k fastest
        (v_f, v_r), (b_f, b_r) = p["weight_c"].view(2, -1), p["bias"].view(2, -1)
        c, h = c0[i], []
        for step in range(length):
            f = torch.sigmoid(u[step, ..., 1] + v_f * c + b_f)
            r = torch.sigmoid(u[step, ..., 2] + v_r * c + b_r)
            new = f * c + (1 - f) * u[step, ..., 0]
            s = x[step] if u.size(-1) == 3 else u[step, ..., 3]
            real = (~pad[step]).to(x.dtype).unsqueeze(-1)
            c = new * real + c * (1 - real)
            h.append((s + (c - s) * mask_c * r) * real)
        x = torch.stack(h)
        if norm and not pre:
            x = F.layer_norm(x, x.shape[-1:], p["layer_norm.weight"], p["layer_norm.bias"])
        cells.append(c)
        i += 1
    return x, torch.stack(cells), inputs


def record(train=False, padded_column=False, memory_length=0, **options):
    ctor = dict(input_size=5, hidden_size=6, proj_size=4, num_layers=3, num_heads=2, dropout=0.0,
                attn_dropout=0.0, normalize_after=False, **options)
    state = make_state("SRUpp", ctor)
    length, batch = 5, 3
    x = torch.randn(length, batch, 5, dtype=torch.float64)
    c0 = torch.randn(3, batch, 6, dtype=torch.float64)
    pad = torch.zeros(length, batch, dtype=torch.bool)
    pad[3:, 1] = True
    pad[:, 2] = padded_column
    sizes = (5, 6, 6)
    memory = [torch.randn(memory_length, batch, n, dtype=torch.float64) for n in sizes]
    memory_pad = torch.zeros(memory_length, batch, dtype=torch.bool)
    memory_pad[:1, 0] = True
    memory, memory_pad = (memory, memory_pad) if memory_length else (None, None)
    if train:
        ctor.update(dropout=0.3, attn_dropout=0.2)
    tape = []

    def draw(shape, p):
        if not train or p == 0:
            return 1
        mask = torch.full(shape, 1 - p, dtype=torch.float64).bernoulli() / (1 - p)
        tape.append(dict(kind="dropout", p=p, mask=mask))
        return mask

    leaves = {"input": x, "c0": c0, **{f"memory.{i}": m for i, m in enumerate(memory or [])}}
    params = {k: v for k, v in state.items() if "scale_x" not in k}
    for leaf in (*leaves.values(), *params.values()):
        leaf.requires_grad_()
    h, c, saved = run_theirs({**state, **params}, ctor, x, c0, pad, memory, memory_pad, draw)
    cotangents = dict(h=torch.randn_like(h), c=torch.randn_like(c))
    loss = (h * cotangents["h"]).sum() + (c * cotangents["c"]).sum()
    tensors = {**leaves, **params}
    grads = dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values()))))
    for tensor in tensors.values():
        tensor.requires_grad_(False)
    return dict(
        kind="SRUpp", ctor=ctor, train=train, state_dict=state, dropout_tape=tape,
        inputs=dict(input=x, c0=c0, mask_pad=pad, attn_mask=None, memory=memory,
                    memory_mask_pad=memory_pad),
        outputs=dict(h=h.detach(), c=c.detach(), saved_inputs=[s.detach() for s in saved]),
        cotangents=cotangents, loss=loss.item(),
        grad_inputs={k: grads[k] for k in leaves}, grad_params={k: grads[k] for k in params})


CASES = {
    "dropout": dict(train=True, memory_length=4),
    "dropout, attention every second": dict(train=True, attention_every_n_layers=2),
    "pre-norm": dict(layer_norm=True),
    "pre-norm, memory": dict(layer_norm=True, memory_length=4),
    "padded column": dict(padded_column=True),
    "padded column, memory": dict(padded_column=True, memory_length=4),
    "padded column, no attention": dict(padded_column=True, attention_every_n_layers=9),
}


@pytest.mark.parametrize("name", CASES)
def test_recorded_here(name):
    torch.manual_seed(0)
    case = record(**CASES[name])
    result = check_case(case).result(name)
    assert result.passed, result
    assert bool(result.notes) == (name in ("pre-norm, memory", "padded column"))
    changed = copy.deepcopy(case)
    changed["grad_inputs"]["input"][2, 1, 3] += 1e-8
    assert not check_case(changed).result(name).passed
    changed = copy.deepcopy(case)
    changed["outputs"]["h"][2, 0, 3] = math.nan
    assert not check_case(changed).result(name).passed
    if case["dropout_tape"]:
        changed = copy.deepcopy(case)
        changed["dropout_tape"][3]["mask"].view(-1)[0] += 0.1
        assert not check_case(changed).result(name).passed
        case["dropout_tape"].pop()
        with pytest.raises(ConversionError, match="dropout tape"):
            check_case(case)
    else:
        case["dropout_tape"].append(dict(p=0.5, mask=torch.ones(3, 6)))
        with pytest.raises(ConversionError, match="too many"):
            check_case(case)
