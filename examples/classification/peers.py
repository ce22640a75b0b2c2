"""What SRU is measured against, each an encoder of
:class:`fairseq_sru.models.classifier.SentenceClassifier`, in PyTorch.

All read x (L, B, input_size), padded on the right, and return h (L, B, output_size) first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class LSTM(nn.Module):
    """``nn.LSTM`` of two layers, as in the SRU paper's table 1."""

    pooling = "last"
    output_size = 128

    def __init__(self, input_size: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, self.output_size, num_layers=2, dropout=dropout)

    def forward(self, x: Tensor, pad: Tensor | None = None) -> tuple[Tensor]:
        return (self.lstm(x)[0],)  # padding comes after what is read


class BidirectionalLSTM(nn.Module):
    """One layer of ``nn.LSTM`` that reads both ways, the maximum over all tokens (Conneau et al.,
    2017, BiLSTM-max). Tokens after a short sentence's end are not read."""

    pooling = "max"
    output_size = 256

    def __init__(self, input_size: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, self.output_size // 2, bidirectional=True)

    def forward(self, x: Tensor, pad: Tensor | None = None) -> tuple[Tensor]:
        if pad is None:
            return (self.lstm(x)[0],)
        lengths = pad.logical_not().sum(0).clamp(min=1)
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return (pad_packed_sequence(self.lstm(packed)[0], total_length=len(x))[0],)


class CNN(nn.Module):
    """Filters over 3, 4 and 5 words, 100 of each (Kim, 2014, section 3.1). The one at a step ends
    there."""

    pooling = "max"
    output_size = 300

    def __init__(self, input_size: int, dropout: float) -> None:
        super().__init__()
        self.filters = nn.ModuleList(
            nn.Conv1d(input_size, 100, width, padding=width - 1) for width in (3, 4, 5))

    def forward(self, x: Tensor, pad: Tensor | None = None) -> tuple[Tensor]:
        x = x.permute(1, 2, 0)
        found = torch.cat([conv(x)[..., : x.size(-1)] for conv in self.filters], 1)
        return (found.relu().permute(2, 0, 1),)


class Transformer(nn.Module):
    """Two layers of ``nn.TransformerEncoder`` with sinusoidal positions (Vaswani et al., 2017)."""

    pooling = "mean"
    output_size = 128

    def __init__(self, input_size: int, dropout: float) -> None:
        super().__init__()
        self.input_proj = nn.Linear(input_size, self.output_size)
        layer = nn.TransformerEncoderLayer(self.output_size, 4, 256, dropout)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor, pad: Tensor | None = None) -> tuple[Tensor]:
        x = self.input_proj(x) + positions(len(x), self.output_size).to(x).unsqueeze(1)
        return (self.layers(x, src_key_padding_mask=None if pad is None else pad.t()),)


def positions(length: int, size: int) -> Tensor:
    """(length, size): sines, then cosines, of wave lengths from 2 pi to 20000 pi."""
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


PEERS = {
    "lstm": LSTM,
    "lstm_bidirectional": BidirectionalLSTM,
    "cnn": CNN,
    "transformer": Transformer,
}
