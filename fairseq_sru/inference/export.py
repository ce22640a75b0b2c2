"""A folder that holds all that inference needs of a model, and loads without fairseq.

``config.json``, ``target.txt``, of a translation model ``source.txt``, where the text is cut by a
sentencepiece model ``sentencepiece.model``, and ``model.safetensors``, which knows the SHA-256 of
the others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairseq_sru.errors import UsageError
from fairseq_sru.files import whole
from fairseq_sru.inference.text import SentencePiece, Text, Words
from fairseq_sru.inference.vocabulary import Vocabulary
from fairseq_sru.inference.weights import ModelWeights

FORMAT = 2
CONFIG, TENSORS = "config.json", "model.safetensors"


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
    with whole(folder, folder=True) as partial:
        partial.mkdir()
        _write(package, partial)


def _write(package: Package, folder: Path) -> None:
    text = Words.name
    if isinstance(package.text, SentencePiece):
        text = SentencePiece.name
        shutil.copyfile(package.text.path, folder / "sentencepiece.model")
    config = {"format": FORMAT, "text": text, **package.weights.config}
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    package.target.save(folder / "target.txt")
    if package.source is not None:
        package.source.save(folder / "source.txt")
    # safetensors refuses tensors that share memory, such as one embedding of both sides
    tensors = {name: tensor.clone() for name, tensor in package.weights.tensors.items()}
    others = {path.name: _digest(path) for path in sorted(folder.iterdir())}
    try:
        save_file(tensors, str(folder / TENSORS), metadata=others)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load(folder: Path) -> Package:
    """Read what :func:`save` wrote.

    Raises:
        UsageError: a file is missing, damaged or changed, or of another version.
    """
    try:
        with safe_open(str(folder / TENSORS), "pt") as file:
            digests = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        found = {name: _digest(folder / name) for name in digests or {}}
    except FileNotFoundError as error:
        raise UsageError(f"{folder} is not an exported model: {error.filename or TENSORS} is "
                         "missing; write one with `python -m fairseq_sru.export`") from error
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read {folder / TENSORS}: {error}") from error
    changed = [name for name in found if found[name] != digests[name]]
    if changed:
        raise UsageError(f"{folder / changed[0]} is not the file that was exported with {TENSORS}: "
                         "export the checkpoint anew")
    try:
        config = json.loads((folder / CONFIG).read_bytes()) if CONFIG in found else {}
        return _read(folder, config, tensors)
    except UsageError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder / CONFIG} is not that of an exported model: {error!r}") from error


def _read(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Package:
    version = config.pop("format", 1)
    if version != FORMAT:
        raise UsageError(f"{folder} has format {version}, this version reads {FORMAT}: export the "
                         "checkpoint anew")
    numbers = {name: config[name] for name in ("pad", "unk", "eos")}
    source = None
    if "encoder" in config:
        source = Vocabulary.load(folder / "source.txt", **numbers)
    name = config.pop("text")
    if name not in (SentencePiece.name, Words.name):
        raise ValueError(f"unknown text {name!r}")
    text = SentencePiece(folder / "sentencepiece.model") if name == SentencePiece.name else Words()
    target = Vocabulary.load(folder / "target.txt", **numbers)
    return Package(ModelWeights(config, tensors), source, target, text)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
