"""Embeddings with the start values of SRU++."""

from __future__ import annotations

import math

from torch import nn


def build_embedding(num_embeddings: int, embed_dim: int, padding_idx: int) -> nn.Embedding:
    """Embedding drawn from U(-sqrt(3 / embed_dim), sqrt(3 / embed_dim)): variance 1 / embed_dim.

    Source: the reference implementation's language models.
    """
    embedding = nn.Embedding(num_embeddings, embed_dim, padding_idx)
    bound = math.sqrt(3.0 / embed_dim)
    nn.init.uniform_(embedding.weight, -bound, bound)
    nn.init.zeros_(embedding.weight[padding_idx])
    return embedding
