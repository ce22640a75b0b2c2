"""The Transformer language model that people build today, as a peer: rotary positions (Su et al.,
2021), SwiGLU (Shazeer, 2020), RMSNorm before every block (Zhang and Sennrich, 2019), no biases,
output tied to the embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_SIZE = 64


class ModernTransformer(nn.Module):
    """Scores of every next token (B, T, types) from tokens (B, T).

    Args:
        types: size of the vocabulary.
        width: a multiple of 64, the size of a head.
        inner: size of SwiGLU's product.
    """

    def __init__(self, types: int, layers: int, width: int, inner: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(types, width)
        self.blocks = nn.ModuleList(Block(width, inner) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        rotation = rotations(tokens.size(1), x)
        for block in self.blocks:
            x = block(x, rotation)
        return F.linear(self.norm(x), self.embedding.weight)


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.inner_norm = nn.RMSNorm(width)
        self.up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        rows, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(rows, length, 3, -1, HEAD_SIZE)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(
            rotate(q, rotation), rotate(k, rotation), v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(rows, length, width))
        gate, value = self.up(self.inner_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * value)


def rotations(length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (length, 32) of every position's angles, of ``like``'s type and device."""
    rates = 10_000.0 ** -(torch.arange(0, HEAD_SIZE, 2, device=like.device) / HEAD_SIZE)
    angles = torch.arange(length, device=like.device)[:, None] * rates
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
