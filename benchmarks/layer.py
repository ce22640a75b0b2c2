"""One SRU++ layer, forward and backward, by part, beside layers of other kinds.

The parts are Wq; Wk and Wv together; attention with softmax, its dropout and the sum with Q; layer
norm; dropout; Wo; the recurrence. The peers are one layer of fairseq's Transformer encoder with as
many parameters, hence narrower, and PyTorch's LSTM of the same width, hence with far more. All
read the same number of tokens, attention without a mask, and take turns.

Prints a JSON line per part and layer: milliseconds forward and backward (median over rounds) and
their sum as a share of the SRU++ layer's.

    python benchmarks/layer.py --shapes 512,4,1920,480 32,128,1024,256
"""

from __future__ import annotations

import argparse
import statistics
from typing import Callable

import torch
from fairseq.models.transformer import TransformerConfig
from fairseq.modules.transformer_layer import TransformerEncoderLayerBase
from measuring import emit, make_parser, parameters, parse, taking_turns, transformer_of_size

from fairseq_sru.modules import SRUppLayer
from fairseq_sru.ops import attention, dropout, recurrence

SHAPES = {
    "cpu": ["32,32,1024,256", "256,8,512,128"],
    "cuda": ["512,24,1920,480", "1024,8,4096,1024", "32,128,1024,256"],
}


class ForwardBackward:
    """A differentiable function, its forward and its backward pass to be called in turn."""

    def __init__(
        self,
        function: Callable[..., torch.Tensor],
        *inputs: torch.Tensor,
        module: torch.nn.Module | None = None,
    ) -> None:
        """inputs: of the function. module: whose parameters get gradients besides."""
        self.inputs = [t.detach().requires_grad_() for t in inputs]
        own = [] if module is None else list(module.parameters())
        self.parameters = sum(p.numel() for p in own)
        self.leaves = [*self.inputs, *own]
        self.function = function

    def forward(self) -> None:
        self.out = self.function(*self.inputs)

    def backward(self) -> None:
        torch.autograd.grad(self.out, self.leaves, torch.ones_like(self.out))
        del self.out


def parts(layer: SRUppLayer, x: torch.Tensor) -> dict[str, ForwardBackward]:
    """The layer and its parts, each on what it reads inside the layer."""
    core = layer.recurrence
    with torch.no_grad():
        q = layer.query(x)
        k, v = layer.kv_proj(q).chunk(2, -1)
        y = layer.attn_norm(q)
        u = layer.out_proj(y)

    def attend(q, k, v):
        a, _ = attention(q, k, v, None, layer.num_heads, layer.attention_dropout)
        return torch.addcmul(q, a, layer.alpha)

    return {
        "SRU++ layer": ForwardBackward(lambda x: layer(x)[0], x, module=layer),
        "Wq": ForwardBackward(layer.q_proj, x, module=layer.q_proj),
        "Wk, Wv": ForwardBackward(layer.kv_proj, q, module=layer.kv_proj),
        "attention": ForwardBackward(attend, q, k, v),
        "norm": ForwardBackward(layer.attn_norm, q, module=layer.attn_norm),
        "dropout": ForwardBackward(lambda y: dropout(y, layer.dropout), y),
        "Wo": ForwardBackward(layer.out_proj, y, module=layer.out_proj),
        "recurrence": ForwardBackward(
            lambda u, x: recurrence(
                u.view(*u.shape[:2], 3, -1), x, core.weight_c, core.bias)[0],
            u, x, module=core),
    }


def transformer_layer(width: int, inner: int, rate: float) -> TransformerEncoderLayerBase:
    cfg = TransformerConfig(dropout=rate, attention_dropout=rate)
    cfg.encoder.embed_dim, cfg.encoder.ffn_embed_dim = width, inner
    cfg.encoder.attention_heads = width // 64
    return TransformerEncoderLayerBase(cfg)


def measure(shape: str, precision: str, options: argparse.Namespace) -> None:
    length, batch, size, proj_size = map(int, shape.split(","))
    make = dict(device=options.device, dtype=getattr(torch, precision))
    torch.manual_seed(1)
    layer = SRUppLayer(size, size, proj_size, alpha_init=1.0, num_heads=options.heads,
                       dropout=options.dropout, attention_dropout=options.dropout).to(**make)
    x = torch.randn(length, batch, size, **make)
    peer = transformer_of_size(
        lambda width, inner: transformer_layer(width, inner, options.dropout),
        parameters(layer)).to(**make)
    lstm = torch.nn.LSTM(size, size).to(**make)
    runs = {
        **parts(layer, x),
        f"Transformer layer, {peer.embed_dim} wide": ForwardBackward(
            lambda x: peer(x, None), x[..., : peer.embed_dim].contiguous(), module=peer),
        f"LSTM, {size} wide": ForwardBackward(lambda x: lstm(x)[0], x, module=lstm),
    }
    seconds = taking_turns({
        (name, direction): getattr(run, direction)
        for name, run in runs.items() for direction in ("forward", "backward")
    }, options)
    medians = {key: statistics.median(s) for key, s in seconds.items()}
    whole = medians["SRU++ layer", "forward"] + medians["SRU++ layer", "backward"]
    for name, run in runs.items():
        forward, backward = medians[name, "forward"], medians[name, "backward"]
        emit(options, part=name, length=length, batch=batch, size=size, proj_size=proj_size,
             precision=precision, parameters=run.parameters, forward_ms=round(1e3 * forward, 3),
             backward_ms=round(1e3 * backward, 3),
             share_of_layer=round((forward + backward) / whole, 3))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--shapes", nargs="+", metavar="L,B,D,D'", help="length, batch, d, d'")
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options = parse(parser)
    for shape in options.shapes or SHAPES[options.device]:
        for precision in options.precisions:
            measure(shape, precision, options)


if __name__ == "__main__":
    main()
