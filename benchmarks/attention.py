"""PyTorch's fused attention beside two batched products and a softmax, forward and backward.

Prints a JSON line per shape, number of heads and precision: milliseconds of each (median over
rounds, taking turns). `fairseq_sru.ops.attention` chooses by these figures. On a GPU also
PyTorch's causal_lower_right, which reads no mask but sees padding. null: PyTorch refused, and says
why on standard error.

    python benchmarks/attention.py --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch
import torch.nn.functional as F
from clock import timed
from measuring import emit, make_parser, parse
from torch.nn.attention.bias import causal_lower_right

from fairseq_sru.ops.attention import additive, attention_mask, merge_heads, split_heads

TRANSLATION = [(230, 16, 32, 88), (100, 32, 64, 88), (128, 25, 50, 256)]
LANGUAGE_MODELS = [(24, 512, 1024, 480), (4, 1024, 2048, 768), (8, 1024, 2048, 1024)]
SHAPES = {"cpu": TRANSLATION + LANGUAGE_MODELS[:1], "cuda": TRANSLATION + LANGUAGE_MODELS}


def fused(q, k, v, mask):
    return F.scaled_dot_product_attention(q, k, v, mask)


def products(q, k, v, mask):
    return ((q * q.size(-1) ** -0.5) @ k.transpose(-2, -1) + mask).softmax(-1) @ v


def lower_right(q, k, v, mask):
    return F.scaled_dot_product_attention(q, k, v, causal_lower_right(q.size(-2), k.size(-2)))


FUNCTIONS = {"cpu": (fused, products), "cuda": (fused, products, lower_right)}


def main() -> None:
    options = parse(make_parser(__doc__))
    for batch, length, keys, size in SHAPES[options.device]:
        for heads in (1, 4):
            for dtype in (torch.float32, torch.bfloat16):
                times = measure(batch, length, keys, size, heads, dtype, options)
                emit(options, batch=batch, length=length, keys=keys, size=size, heads=heads,
                     precision=str(dtype).split(".")[1],
                     **{f"{name}_ms": t and round(1e3 * t, 4) for name, t in times.items()})


def measure(
    batch, length, keys, size, heads, dtype, options: argparse.Namespace
) -> dict[str, float | None]:
    torch.manual_seed(1)
    make = dict(device=options.device, dtype=dtype)
    q = torch.randn(length, batch, size, **make, requires_grad=True)
    k, v = (torch.randn(keys, batch, size, **make, requires_grad=True) for _ in range(2))
    context = keys - length
    pad = torch.zeros(context, batch, dtype=torch.bool, device=options.device)
    pad[-2:, : batch // 3] = True
    mask = additive(attention_mask(length, None, context, pad, causal=True), dtype)

    def run(function) -> None:
        out = merge_heads(function(*(split_heads(t, heads) for t in (q, k, v)), mask))
        torch.autograd.grad(out.sum(), (q, k, v))

    times = {function: [] for function in FUNCTIONS[options.device]}
    for round_ in range(options.rounds + 1):
        for function, seconds in times.items():
            try:
                taken = timed(lambda function=function: run(function), options)
            except RuntimeError as error:
                print(f"{function.__name__}: {error}", file=sys.stderr)
                continue
            if round_ > 0:
                seconds.append(taken)
    return {
        function.__name__: statistics.median(seconds) if seconds else None
        for function, seconds in times.items()
    }


if __name__ == "__main__":
    main()
