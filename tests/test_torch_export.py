"""torch.export of layers and stacks, for any length and batch, and programs from files."""

import io

import pytest
import torch
from conftest import needs_torch
from torch import nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.modules.sru import SRULayer
from fairseq_sru.modules.srupp import SRUppLayer

LENGTH, BATCH, CONTEXT = Dim("length", max=500), Dim("batch", max=500), Dim("context", max=500)
AXES = dict(x={0: LENGTH, 1: BATCH}, pad={0: LENGTH, 1: BATCH}, c0={1: BATCH},
            context={0: CONTEXT, 1: BATCH}, context_pad={0: CONTEXT, 1: BATCH})


class With(nn.Module):
    """A module with some of its options given."""

    def __init__(self, module, **options):
        super().__init__()
        self.module = module
        self.options = options

    def forward(self, x, pad=None, c0=None, context=None, context_pad=None):
        return self.module(x, c0, pad, context, context_pad, **self.options)


def inputs(length, batch, context, *names):
    lengths = length - torch.arange(batch) % 3
    every = dict(
        x=torch.randn(length, batch, 6),
        pad=torch.arange(length)[:, None] >= lengths,
        c0=torch.randn(2, batch, 8),
        context=torch.randn(context, batch, 8),
        context_pad=(torch.arange(context)[:, None] >= context - torch.arange(batch) % 2),
    )
    return {name: every[name] for name in ("x", *names)}


lengths_compared = needs_torch(2, 5, why="torch.export knows no truth of compared lengths")


@pytest.mark.parametrize("module, names", [
    (SRULayer(6, 8), ["pad"]),
    (SRUppLayer(6, 8, 4), ["pad"]),
    (SRU(6, 8), ["c0"]),
    (SRU(6, 4, bidirectional=True, tanh=True), ["pad"]),
    (SRUpp(6, 8, 4), []),
    (SRUpp(6, 8, 4, attention="none"), ["c0", "pad"]),
    (SRUpp(6, 4, 4, bidirectional=True, num_heads=2), ["pad"]),
    pytest.param(With(SRUpp(6, 8, 4), causal=True), ["c0"], marks=lengths_compared),
    pytest.param(With(SRUpp(6, 8, 4, project_input=True), causal=True),
                 ["pad", "context", "context_pad"], marks=lengths_compared),
    pytest.param(With(SRUpp(6, 8, 4), causal=True, window=2), ["pad"], marks=lengths_compared),
    (With(SRUpp(6, 8, 4), need_weights=True), ["pad"]),
])
def test_exported_for_any_length_and_batch(module, names):
    module.eval()
    example = inputs(7, 3, 5, *names)
    program = torch.export.export(
        module, (), example, dynamic_shapes={name: AXES[name] for name in example})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for sizes in (7, 3, 5), (19, 5, 2), (2, 2, 11):
        given = inputs(*sizes, *names)
        expected, actual = module(**given), loaded(**given)
        assert type(actual) is type(expected)
        torch.testing.assert_close(
            [t.detach() for t in tree_leaves(actual) if t is not None],
            [t.detach() for t in tree_leaves(expected) if t is not None], rtol=1e-5, atol=1e-5)
