"""Language models between files of the reference and checkpoints of fairseq."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Iterator

from fairseq import options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import FairseqLanguageModel
from omegaconf import OmegaConf

from fairseq_sru.checkpoints import read_checkpoint, read_tensors, require_tensors
from fairseq_sru.convert.language_model import (
    Vocabulary,
    from_reference,
    sru_from_reference,
    to_reference,
)
from fairseq_sru.convert.layout import ConversionError
from fairseq_sru.errors import UsageError
from fairseq_sru.files import save_tensors, whole
from fairseq_sru.models.language_model import SRULanguageModel, SRUppLanguageModel
from fairseq_sru.models.lm_config import LMConfig, SRULMConfig, SRUppLMConfig
from fairseq_sru.tasks import StreamLanguageModelingTask

MODELS: dict[str, tuple[Any, Any]] = {
    "srupp_lm": (SRUppLanguageModel, SRUppLMConfig),
    "sru_lm": (SRULanguageModel, SRULMConfig),
}


def import_model(source: Path, target: Path, words: list[str], num_heads: int = 1) -> None:
    """Write checkpoint.pt and dict.txt to the folder ``target``.

    Args:
        source: state dict that a script of the reference saved.
        words: its vocabulary.

    Raises:
        ConversionError: the state dict is of something else.
    """
    state = read_tensors(str(source), check_sums=True)
    require_tensors(state, source)
    vocabulary = Vocabulary.read(words)
    sru = {"rnn.rnn_lst.0.transform_module.weight", "rnn.rnn_lst.0.transform_module.0.weight"}
    with _of_another_kind(source):
        if sru & set(state):
            model, cfg = sru_from_reference(state, vocabulary)
        else:
            model, cfg = from_reference(state, vocabulary, num_heads)
    with whole(target / "dict.txt") as partial:
        vocabulary.dictionary.save(str(partial))
    _save(target / "checkpoint.pt", model, cfg, vocabulary.dictionary)


def export_model(
    source: Path, target: Path, dictionary: Path, words: list[str] | None = None
) -> None:
    """Write a state dict for the reference's scripts, and its vocabulary as ``target``.words.

    Args:
        source: fairseq checkpoint of an ``srupp_lm`` or ``sru_lm``.
        dictionary: dict.txt of its data.
        words: the wanted vocabulary; default: all of the dictionary, in its order.

    Raises:
        ConversionError: the checkpoint is of another model, or has parts theirs cannot have.
    """
    state = read_checkpoint(str(source))
    own = Dictionary.load(str(dictionary))
    vocabulary = Vocabulary.whole(own) if words is None else Vocabulary.read(words, own)
    with _of_another_kind(source):
        options = {} if state.get("cfg") is None else state["cfg"]["model"]
        name = next((name for name in MODELS if str(options.get("_name")).startswith(name)), None)
    if name is None:
        raise ConversionError(f"{source} is not of an srupp_lm or sru_lm model")
    kind, config = MODELS[name]
    known = {field.name for field in fields(config)}
    with _of_another_kind(source):
        cfg = config(**{name: value for name, value in options.items() if name in known})
        task = StreamLanguageModelingTask(OmegaConf.create(state["cfg"]["task"]), own)
        task.load_state_dict(state.get("task_state", {}))
        model = kind.build_model(cfg, task)
        model.to(next(iter(state["model"].values())).dtype)
        model.load_state_dict(state["model"], strict=True)
    save_tensors(to_reference(model, vocabulary), target)
    names = [own[row] for row in vocabulary.rows.tolist()] if words is None else words
    with whole(Path(f"{target}.words")) as partial:
        partial.write_text("\n".join(names) + "\n", encoding="utf-8")


@contextmanager
def _of_another_kind(source: Path) -> Iterator[None]:
    """Whatever goes wrong with the names and shapes of a file is a ConversionError."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise ConversionError(f"{source} is not a model of the kind expected: "
                              f"{type(error).__name__}: {error}".split("\n", 1)[0]) from error


def _save(
    path: Path, model: FairseqLanguageModel, cfg: LMConfig, dictionary: Dictionary
) -> None:
    """A checkpoint as if fairseq-train had written it before the first update."""
    adaptive = cfg.adaptive_cutoff is not None
    name = next(name for name, (kind, _) in MODELS.items() if isinstance(model, kind))
    command = ["data", "--task", "srupp_language_modeling", "--arch", name, "--criterion",
               "adaptive_loss" if adaptive else "cross_entropy"]
    args = options.parse_args_and_arch(options.get_training_parser(), command)
    full = convert_namespace_to_omegaconf(args)
    task = StreamLanguageModelingTask(full.task, dictionary)
    container: Any = OmegaConf.to_container(full, resolve=True, enum_to_str=True)
    own = {field.name: getattr(cfg, field.name) for field in fields(cfg)}
    container["model"].update(own, _name=name, layer_norm=str(cfg.layer_norm))
    save_tensors({
        "args": None,
        "cfg": container,
        "model": model.state_dict(),
        "optimizer_history": [{
            "criterion_name": command[-1], "optimizer_name": None, "lr_scheduler_state": {},
            "num_updates": 0,
        }],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "task_state": task.state_dict(),
    }, path)
