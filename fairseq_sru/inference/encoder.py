"""The SRU++ encoder without fairseq and with packed weights."""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor, nn

from fairseq_sru.inference.packed import pack_linears
from fairseq_sru.modules import SRUpp


class Encoder(nn.Module):
    """Computes what :class:`fairseq_sru.models.encoder.SRUppEncoder` does.

    Args:
        config: the encoder's part of :class:`fairseq_sru.inference.ModelWeights`.
        tensors: its tensors.
        isa: see :class:`fairseq_sru.inference.packed.PackedLinear`.
    """

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor], isa: str = "") -> None:
        super().__init__()
        tensors = dict(tensors)
        self.pad, self.embed_scale = config["pad"], config["embed_scale"]
        self.embedding = tensors.pop("embed_tokens.weight")
        self.embedding_scale = tensors.pop("embed_tokens.scale", None)
        with torch.device("meta"):
            self.stack = SRUpp(**config["stack"])
            self.output_norm = None
            if config["output_norm"]:
                self.output_norm = nn.LayerNorm(self.stack.output_size)
        pack_linears(self, tensors, isa)
        self.load_state_dict(tensors, assign=True)
        self.eval()

    @torch.inference_mode()
    def forward(self, sentences: Sequence[Tensor]) -> list[Tensor]:
        """Encode a batch.

        Args:
            sentences: token numbers (length,) of each.

        Returns:
            (length, D) for each sentence.
        """
        lengths = [len(sentence) for sentence in sentences]
        tokens = nn.utils.rnn.pad_sequence(list(sentences), padding_value=self.pad)
        pad = torch.arange(max(lengths)).unsqueeze(1) >= torch.tensor(lengths)
        x = self.stack(self._embed(tokens), pad=pad if pad.any() else None).h
        if self.output_norm is not None:
            x = self.output_norm(x)
        return [x[:length, i] for i, length in enumerate(lengths)]

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.embedding[tokens].float() * self.embed_scale
        if self.embedding_scale is not None:
            x = x * self.embedding_scale[tokens].unsqueeze(-1)
        return x
