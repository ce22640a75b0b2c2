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

    Raises:
        ValueError: a tensor is missing, unknown or of another shape or type.
    """

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor], isa: str = "") -> None:
        super().__init__()
        tensors = dict(tensors)
        self.pad, self.embed_scale = config["pad"], config["embed_scale"]
        with torch.device("meta"):
            self.stack = SRUpp(**config["stack"])
            self.output_norm = None
            if config["output_norm"]:
                self.output_norm = nn.LayerNorm(self.stack.output_size)
            self.embed_tokens = nn.Embedding(config["vocabulary"], self.stack.input_size)
        _check(tensors, {name: tensor.shape for name, tensor in self.state_dict().items()})
        del self.embed_tokens
        self.embedding = tensors.pop("embed_tokens.weight")
        self.embedding_scale = tensors.pop("embed_tokens.scale", None)
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


def _check(tensors: dict[str, Tensor], shapes: dict[str, torch.Size]) -> None:
    expected = dict(shapes)
    for name, shape in shapes.items():
        if name in tensors and tensors[name].dtype == torch.int8:
            expected[f"{name.rpartition('.')[0]}.scale"] = shape[:1]
    for name in sorted(expected.keys() ^ tensors.keys()):
        kind = "missing" if name in expected else "unknown"
        raise ValueError(f"encoder: weight {name} is {kind}")
    for name, shape in expected.items():
        tensor, matrix = tensors[name], name.endswith(".weight") and len(shape) == 2
        types = (torch.float32, torch.bfloat16, torch.int8) if matrix else (torch.float32,)
        if tensor.shape != shape or tensor.dtype not in types:
            raise ValueError(f"encoder: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}, "
                             f"expected {tuple(shape)}")
