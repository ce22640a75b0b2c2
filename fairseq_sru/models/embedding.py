"""Embeddings with the start values of SRU++, and adaptive input and softmax as in its paper: tied
embeddings, output biases."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from fairseq.data import Dictionary
from fairseq.modules import AdaptiveInput, AdaptiveSoftmax, FairseqDropout
from fairseq.modules.adaptive_softmax import TiedLinear
from torch import Tensor, nn

from fairseq_sru.ops import Linear, dropout, linear
from fairseq_sru.word_vectors import read_vectors

logger = logging.getLogger(__name__)

MOST_CHANNELS = 2**20  # of an embedding


def draw_embedding(weight: Tensor, embed_dim: int) -> None:
    """Start values of an embedding, or of an output: U(-sqrt(3 / embed_dim), sqrt(3 / embed_dim)),
    of variance 1 / embed_dim.

    Source: the reference implementation's language models.
    """
    bound = math.sqrt(3.0 / embed_dim)
    nn.init.uniform_(weight, -bound, bound)


def build_embedding(num_embeddings: int, embed_dim: int, padding_idx: int) -> nn.Embedding:
    """Embedding with the values of :func:`draw_embedding`, zero for padding."""
    embedding = nn.Embedding(num_embeddings, embed_dim, padding_idx)
    draw_embedding(embedding.weight, embed_dim)
    nn.init.zeros_(embedding.weight[padding_idx])
    return embedding


def load_vectors(embedding: nn.Embedding, path: Path, dictionary: Dictionary) -> None:
    """Put word vectors into an embedding; words that the file lacks keep what they have.

    Raises:
        UsageError: see :func:`fairseq_sru.word_vectors.read_vectors`.
    """
    words = dictionary.symbols[dictionary.nspecial :]
    indices = {word: dictionary.index(word) for word in words}
    vectors = read_vectors(path, embedding.embedding_dim, indices)
    with torch.no_grad():
        for word, vector in vectors.items():
            embedding.weight[indices[word]] = torch.from_numpy(vector)
    logger.info(f"{path}: vectors of {len(vectors):,} of the dictionary's {len(words):,} words")


def build_adaptive_input(
    vocabulary: int, padding_idx: int, embed_dim: int, factor: float, hidden_size: int, cutoff: str
) -> AdaptiveInput:
    """An adaptive input with the start values of :func:`build_embedding` in every band.

    Args:
        cutoff: numbers of the most frequent words, "19997,39997,199997".

    Raises:
        ValueError: the numbers do not rise, or reach beyond the vocabulary; a band is left
            without any channel.
    """
    try:
        numbers = [int(number) for number in cutoff.split(",")]
    except ValueError:
        numbers = []
    if not numbers or numbers != sorted({n for n in numbers if 0 < n < vocabulary}):
        raise ValueError(f"--adaptive-cutoff must be rising numbers below the {vocabulary} types "
                         f"of the dictionary, such as 2000,10000; got {cutoff!r}")
    channels = float(embed_dim)
    for _ in numbers:
        channels /= factor
    if not 1 <= channels <= MOST_CHANNELS:
        raise ValueError(f"--adaptive-factor {factor} makes embeddings of {embed_dim} into ones of "
                         f"{channels:g} in the last of {len(numbers) + 1} bands")
    module = AdaptiveInput(vocabulary, padding_idx, embed_dim, factor, hidden_size, numbers)
    for embedding, _ in module.embeddings:
        draw_embedding(embedding.weight, embedding.embedding_dim)
    nn.init.zeros_(module.embeddings[0][0].weight[padding_idx])
    module._float_tensor.zero_()  # uninitialised, and yet in the checkpoint
    return module


class Dropout(FairseqDropout):
    """:func:`fairseq_sru.ops.dropout` as fairseq's module."""

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        return dropout(x, self.p, self.training or self.apply_during_inference)


class TiedOutput(TiedLinear):
    """Scores of a band of words: the band's embedding and a bias."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight, transpose=False)
        self.bias = nn.Parameter(weight.new_zeros(weight.size(0)))

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class TiedHead(TiedOutput):
    """Scores of the most frequent words and, after them, of every band of rarer ones."""

    def __init__(self, weight: Tensor, bands: int) -> None:
        super().__init__(weight)
        self.bands = Linear(weight.size(1), bands)
        nn.init.zeros_(self.bands.bias)

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([super().forward(input), self.bands(input)], -1)


class TiedAdaptiveSoftmax(AdaptiveSoftmax):
    """fairseq's adaptive softmax over the embeddings of an adaptive input, with biases and with a
    projection of the most frequent words too.

    Args:
        adaptive_input: whose embeddings are the output weights.
        hidden_size: size of the features.
        dropout_p: of the features and of the rare words' projected features.
        tie_proj: use the input's projections too.
    """

    def __init__(
        self, adaptive_input: AdaptiveInput, hidden_size: int, dropout_p: float, tie_proj: bool
    ) -> None:
        super().__init__(
            adaptive_input.cutoff[-1],
            hidden_size,
            adaptive_input.cutoff,
            dropout_p,
            adaptive_inputs=adaptive_input,
            tie_proj=tie_proj,
        )
        self.dropout_module = Dropout(dropout_p, module_name=type(self).__name__)
        embedding, proj = adaptive_input.weights_for_band(0)
        if tie_proj:
            proj = TiedLinear(proj, transpose=True)
        else:
            proj = Linear(hidden_size, embedding.size(1), bias=False)
            nn.init.xavier_uniform_(proj.weight)
        self.head = nn.Sequential(proj, TiedHead(embedding, len(self.tail)))
        for band, tail in enumerate(self.tail, start=1):
            tail[1] = Dropout(dropout_p, module_name=type(self).__name__)
            tail[-1] = TiedOutput(adaptive_input.weights_for_band(band)[0])
