"""PyTorch's fused attention beside two batched products and a softmax, forward and backward.

Prints a JSON line per shape, number of heads and precision: milliseconds of each (median over
rounds, taking turns). `fairseq_sru.ops.attention` chooses by these figures. On a GPU also
PyTorch's causal_lower_right, which reads no mask but sees padding, and its varlen_attn, which reads
no mask and keeps padding apart, reordering included. null: PyTorch refused, and says why on
standard error.

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

from fairseq_sru.ops.attention import (
    additive,
    attention_mask,
    attention_packing,
    merge_heads,
    split_heads,
)
from fairseq_sru.ops.varlen import varlen_attention

TRANSLATION = [(230, 16, 32, 88), (100, 32, 64, 88), (128, 25, 50, 256)]
LANGUAGE_MODELS = [(24, 512, 1024, 480), (4, 1024, 2048, 768), (8, 1024, 2048, 1024)]
SHAPES = {"cpu": TRANSLATION + LANGUAGE_MODELS[:1], "cuda": TRANSLATION + LANGUAGE_MODELS}


def fused(q, k, v, heads, mask, packing):
    q, k, v = (split_heads(t, heads) for t in (q, k, v))
    return merge_heads(F.scaled_dot_product_attention(q, k, v, mask))


def products(q, k, v, heads, mask, packing):
    q, k, v = (split_heads(t, heads) for t in (q, k, v))
    weights = ((q * q.size(-1) ** -0.5) @ k.transpose(-2, -1) + mask).softmax(-1)
    return merge_heads(weights @ v)


def lower_right(q, k, v, heads, mask, packing):
    return fused(q, k, v, heads, causal_lower_right(len(q), len(k)), packing)


def varlen(q, k, v, heads, mask, packing):
    return varlen_attention(q, k, v, *packing, heads, causal=True)


FUNCTIONS = {"cpu": (fused, products), "cuda": (fused, products, lower_right, varlen)}


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
    packing = attention_packing(length, None, context, pad)

    def run(function) -> None:
        out = function(q, k, v, heads, mask, packing)
        torch.autograd.grad(out.sum(), (q, k, v))

    times = {function: [] for function in FUNCTIONS[options.device]}
    for round_ in range(options.rounds + 1):
        for function, seconds in times.items():
            try:
                taken = timed(lambda function=function: run(function), options)
            except (RuntimeError, TypeError) as error:
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
