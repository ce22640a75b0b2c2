"""What people bring from nn.LSTM, and PyTorch's other formats: each works or says what does."""

import pytest
import torch
from test_language_model import build as build_lm
from test_translation import build as build_translation
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from fairseq_sru.models.transformer_sru import SRUInside
from fairseq_sru.modules import SRU, SRULayer, SRUpp, SRUppLayer

LENGTHS = [3, 7, 1, 7, 5]


def stack(kind, **options):
    torch.manual_seed(0)
    layer = SRU(6, 8, **options) if kind == "sru" else SRUpp(6, 8, 4, alpha_init=1.0, **options)
    return layer.double().eval()


def batch(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in lengths]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["sru", "srupp"])
@pytest.mark.parametrize("options", [
    dict(), dict(bidirectional=True), dict(batch_first=True), dict(project_input=True)], ids=str)
def test_packed_sequences(kind, options):
    """As nn.LSTM: h in the order of x, c in the order of the sequences."""
    model, rows = stack(kind, **options), batch()
    packed = pack_sequence(rows, enforce_sorted=False)
    h, c, *_ = model(packed)
    assert torch.equal(h.batch_sizes, packed.batch_sizes)
    assert torch.equal(h.sorted_indices, packed.sorted_indices)
    first = options.get("batch_first", False)
    padded, lengths = pad_packed_sequence(h, batch_first=True)
    assert lengths.tolist() == LENGTHS
    for i, row in enumerate(rows):
        alone, cell, *_ = model(row[None] if first else row[:, None])
        close(padded[i, : len(row)], alone[0] if first else alone[:, 0])
        close(c[:, i], cell[:, 0])
    states = torch.randn_like(c)
    h, again, *_ = model(packed, states)
    alone, cell, *_ = model(rows[1][None] if first else rows[1][:, None], states[:, 1:2])
    close(pad_packed_sequence(h, batch_first=True)[0][1], alone[0] if first else alone[:, 0])
    close(again[:, 1:2], cell)


@pytest.mark.parametrize("kind", ["sru", "srupp"])
def test_packed_rows_stay_where_they_were(kind):
    """Whoever uses ``data`` alone, as many do, gets each token's own output."""
    model, rows = stack(kind), batch()
    for packed in (
        pack_sequence(sorted(rows, key=len, reverse=True)),
        pack_sequence(rows, enforce_sorted=False),
        pack_padded_sequence(nn.utils.rnn.pad_sequence(rows), torch.tensor(LENGTHS),
                             enforce_sorted=False),
    ):
        h, *_ = model(packed)
        markers = packed._replace(data=packed.data[:, :1])
        tokens, _ = pad_packed_sequence(markers)
        outputs, _ = pad_packed_sequence(h)
        for token, output in zip(packed.data, h.data):
            place = (tokens == token[0]).nonzero()[0]
            close(outputs[place[0], place[1]], output)


def test_gradients_reach_packed_data():
    model = stack("srupp")
    rows = [row.requires_grad_() for row in batch()]
    model(pack_sequence(rows, enforce_sorted=False)).h.data.sum().backward()
    assert all(row.grad is not None and row.grad.abs().sum() > 0 for row in rows)


def test_packed_sequences_that_cannot_be_read():
    packed = pack_sequence(batch(), enforce_sorted=False)
    with pytest.raises(ValueError, match="PackedSequence has its own padding"):
        stack("sru")(packed, pad=torch.zeros(7, 5, dtype=torch.bool))
    for layer in SRULayer(6, 8), SRUppLayer(6, 8, 4):
        with pytest.raises(TypeError, match="a stack such as .* takes a PackedSequence"):
            layer(packed)
    model = stack("sru")
    with pytest.raises(TypeError, match="step reads a tensor .* got PackedSequence"):
        model.step(packed, model.start(5))


@pytest.mark.parametrize("kind", ["sru", "srupp"])
def test_batch_first(kind):
    model, other = stack(kind, batch_first=True), stack(kind)
    x = torch.randn(5, 7, 6, dtype=torch.float64)
    pad = torch.arange(7) >= torch.tensor(LENGTHS)[:, None]
    h, c, *_ = model(x, None, pad)
    expected, cells, *_ = other(x.transpose(0, 1), None, pad.t())
    close(h, expected.transpose(0, 1))
    close(c, cells)
    with pytest.raises(ValueError, match=r"input must be \(B, L, 6\)"):
        model(x[0, 0])


def test_batch_first_goes_for_contexts_and_inputs_too():
    model, other = stack("srupp", batch_first=True), stack("srupp")
    x, context = (torch.randn(5, n, 6, dtype=torch.float64) for n in (7, 4))
    pad, context_pad = torch.zeros(5, 7, dtype=torch.bool), torch.zeros(5, 4, dtype=torch.bool)
    pad[2, 5:] = context_pad[1, 2:] = True
    inputs = [context, torch.randn(5, 4, 8, dtype=torch.float64)]
    out = model(x, None, pad, inputs, context_pad, causal=True, need_weights=True)
    expected = other(x.transpose(0, 1), None, pad.t(), [c.transpose(0, 1) for c in inputs],
                     context_pad.t(), causal=True, need_weights=True)
    close(out.h, expected.h.transpose(0, 1))
    for mine, theirs in zip(out.inputs, expected.inputs):
        close(mine, theirs.transpose(0, 1))
    for mine, theirs in zip(out.weights, expected.weights):
        close(mine, theirs)


MODULES = {
    "SRU": lambda: (SRU(6, 8), (torch.randn(5, 2, 6),)),
    "SRULayer": lambda: (SRULayer(6, 8), (torch.randn(5, 2, 6),)),
    "SRUpp": lambda: (SRUpp(6, 8, 4), (torch.randn(5, 2, 6),)),
    "SRUppLayer": lambda: (SRUppLayer(6, 8, 4), (torch.randn(5, 2, 6),)),
    "inside another module": lambda: (
        nn.Sequential(nn.Linear(6, 6), SRU(6, 8)), (torch.randn(5, 2, 6),)),
    "translation": lambda: (build_translation().float(), (
        torch.tensor([[5, 6]]), torch.tensor([2]), torch.tensor([[2, 5]]))),
    "language model": lambda: (build_lm().float(), (torch.tensor([[5, 6]]),)),
    "transformer_sru": lambda: (SRUInside(6, 8, 0.1), (torch.randn(5, 2, 6),)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("convert, format", [
    (lambda module, inputs: torch.jit.script(module), "TorchScript"),
    (lambda module, inputs: torch.jit.trace(module, inputs), "TorchScript"),
    (lambda module, inputs: torch.onnx.export(module, inputs, "unwritten", dynamo=False), "ONNX"),
], ids=["script", "trace", "onnx"])
@pytest.mark.filterwarnings("ignore")
def test_formats_without_a_place_for_the_recurrence(name, convert, format):
    """One line that says what to use instead."""
    module, inputs = MODULES[name]()
    with pytest.raises(NotImplementedError, match=f"has no {format}: torch.compile") as caught:
        convert(module.eval(), inputs)
    assert "python -m fairseq_sru.export" in str(caught.value) and "\n" not in str(caught.value)


def test_the_new_exporter_says_so_too(monkeypatch):
    """It traces by torch.export, having told torch.onnx; onnxscript need not be installed."""
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with pytest.raises(NotImplementedError, match="has no ONNX: torch.compile"):
        torch.export.export(SRU(6, 8).eval(), (torch.randn(5, 2, 6),), strict=False)


def test_pruning_and_hooks_see_every_map():
    """Linear maps are torch.nn.Linear, called as modules."""
    model, seen = SRUpp(6, 8, 4), []
    maps = [part for part in model.modules() if isinstance(part, nn.Linear)]
    for part in maps:
        part.register_forward_hook(lambda *_: seen.append(1))
    prune.l1_unstructured(model.layers[0].q_proj, "weight", 0.5)
    model(torch.randn(5, 2, 6))
    assert len(seen) == len(maps) == 6
    assert model.layers[0].q_proj.weight.eq(0).float().mean() == 0.5
