"""fairseq's Transformers in CTranslate2, which benchmarks of decoding have for a peer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY
from fairseq.models.transformer import TransformerConfig, TransformerModelBase
from train import PAPER_COMPARATOR, dictionary

try:
    import ctranslate2
    from ctranslate2.converters import FairseqConverter
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: the peer is CTranslate2, `pip install ctranslate2`") from error

VARIANTS: dict[str, dict[str, Any]] = {  # of transformer_iwslt_de_en
    "transformer_iwslt_de_en": {},
    "transformer_20m": PAPER_COMPARATOR,
    # deep encoder, shallow decoder (Kasai et al., 2021)
    "transformer_10_1": dict(encoder_layers=10, decoder_layers=1),
    "transformer_20m_14_2": {**PAPER_COMPARATOR, "encoder_layers": 14, "decoder_layers": 2},
}


def convert(checkpoint: Path, data: Path, folder: Path, precision: str) -> Path:
    """A checkpoint in CTranslate2's format: ``folder`` / name.precision, unless it is there.

    Args:
        data: folder of the dictionaries. precision: float32 or int8.
    """
    target = folder / f"{checkpoint.stem}.{precision}"
    if not target.exists():
        FairseqConverter(str(checkpoint), str(data), unsafe_deserialization=True).convert(
            str(target), quantization=None if precision == "float32" else precision)
    return target


def random_model(name: str, types: tuple[int, int], folder: Path, precision: str) -> Path:
    """A Transformer of :data:`VARIANTS` with random weights, converted."""
    checkpoint, data = folder / f"{name}.pt", folder / "data"
    if not checkpoint.exists():
        data.mkdir(parents=True, exist_ok=True)
        sides = [dictionary(count) for count in types]
        for language, side in zip(("de", "en"), sides):
            side.save(str(data / f"dict.{language}.txt"))
        torch.manual_seed(1)
        args = argparse.Namespace(
            arch="transformer_iwslt_de_en", task="translation", source_lang="de", target_lang="en",
            share_decoder_input_output_embed=True, max_source_positions=1024,
            max_target_positions=1024, left_pad_source=True, left_pad_target=False,
            **VARIANTS[name])
        ARCH_CONFIG_REGISTRY[args.arch](args)
        task = argparse.Namespace(source_dictionary=sides[0], target_dictionary=sides[1])
        model = TransformerModelBase.build_model(TransformerConfig.from_namespace(args), task)
        torch.save({"args": args, "cfg": None, "model": model.state_dict()}, checkpoint)
    return convert(checkpoint, data, folder, precision)


def load(model: Path, threads: int) -> Any:
    """CTranslate2's translator; int8 products for an int8 model."""
    kind = "int8" if model.name.endswith("int8") else "float32"
    return ctranslate2.Translator(
        str(model), device="cpu", inter_threads=1, intra_threads=threads, compute_type=kind)


def as_tokens(source: torch.Tensor, words: Dictionary) -> list[list[str]]:
    """The tokens of (B, S) numbers, without the end of the sentence, which CTranslate2 adds."""
    return [[words[number] for number in row if number != words.eos()] for row in source.tolist()]
