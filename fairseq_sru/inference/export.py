"""A folder that holds all that inference needs of a model, and loads without fairseq.

``config.json``, ``model.safetensors``, ``target.txt``, of a translation model ``source.txt``, and
``sentencepiece.model`` where the text is cut by one.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fairseq_sru.errors import UsageError
from fairseq_sru.files import whole
from fairseq_sru.inference.text import SentencePiece, Text, Words
from fairseq_sru.inference.vocabulary import Vocabulary
from fairseq_sru.inference.weights import ModelWeights

FORMAT = 1


@dataclass
class Package:
    """A model, its vocabularies and its text.

    Attributes:
        source: None of a language model.
    """

    weights: ModelWeights
    source: Vocabulary | None
    target: Vocabulary
    text: Text


def save(package: Package, folder: Path) -> None:
    """Write ``folder``, which must not exist or be empty.

    Raises:
        UsageError: it is not empty or cannot be written, or the text needs fairseq.
    """
    if not isinstance(package.text, (SentencePiece, Words)):
        raise UsageError("only text of sentencepiece or of words can be exported: translate with "
                         "the checkpoint itself")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already: give another folder")
    with whole(folder) as partial:
        partial.mkdir()
        _write(package, partial)


def _write(package: Package, folder: Path) -> None:
    text = "words"
    if isinstance(package.text, SentencePiece):
        text = "sentencepiece"
        shutil.copyfile(package.text.path, folder / "sentencepiece.model")
    config = {"format": FORMAT, "text": text, **package.weights.config}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    # safetensors refuses tensors that share memory, such as one embedding of both sides
    tensors = {name: tensor.clone() for name, tensor in package.weights.tensors.items()}
    try:
        save_file(tensors, str(folder / "model.safetensors"))
    except SafetensorError as error:
        raise OSError(str(error)) from error
    package.target.save(folder / "target.txt")
    if package.source is not None:
        package.source.save(folder / "source.txt")


def load(folder: Path) -> Package:
    """Read what :func:`save` wrote.

    Raises:
        UsageError: a file is missing or damaged, or of another version.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
        found, text = config.pop("format"), config.pop("text")
        numbers = {name: config[name] for name in ("pad", "unk", "eos")}
    except FileNotFoundError as error:
        raise UsageError(f"{folder} is not an exported model: {error.filename} is missing; "
                         "write one with `python -m fairseq_sru.export`") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder / 'config.json'} is damaged: {error}") from error
    if found != FORMAT:
        raise UsageError(f"{folder} has format {found}, this version reads {FORMAT}: export the "
                         "checkpoint anew")
    try:
        tensors = load_file(str(folder / "model.safetensors"))
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read {folder / 'model.safetensors'}: {error}") from error
    source = None
    if "encoder" in config:
        source = Vocabulary.load(folder / "source.txt", **numbers)
        _check_size(source, config["encoder"]["vocabulary"], folder / "source.txt")
    target = Vocabulary.load(folder / "target.txt", **numbers)
    _check_size(target, config["vocabulary"], folder / "target.txt")
    cut = SentencePiece(folder / "sentencepiece.model") if text == "sentencepiece" else Words()
    return Package(ModelWeights(config, tensors), source, target, cut)


def _check_size(vocabulary: Vocabulary, expected: int, path: Path) -> None:
    if len(vocabulary) != expected:
        raise UsageError(f"{path} has {len(vocabulary)} tokens, the model {expected}")
