"""Data folders: what is missing, empty or damaged, and what is wrong with sides and labels."""

from __future__ import annotations

import os

from fairseq import tasks
from fairseq.data import Dictionary, LanguagePairDataset, data_utils
from fairseq.tasks import FairseqTask, translation
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.trainer import Trainer

from fairseq_sru.errors import UsageError
from fairseq_sru.repairs.patching import replace


def apply() -> None:
    """Check data when it is read."""
    check_dictionary_files()
    check_data()
    check_lengths()
    check_targets()
    check_labels()


def check_dictionary_files() -> None:
    """A file that is no dictionary is named."""

    @replace(Dictionary, "add_from_file")
    def add_from_file(original, self, f):
        try:
            original(self, f)
        except OSError:
            raise
        except Exception as error:
            if not isinstance(f, str):  # the same function has opened it
                raise
            raise UsageError(f"{f} is not a dictionary that fairseq-preprocess wrote: "
                             f"{error}".split("\n", 1)[0]) from error


def check_data() -> None:
    """Say which file of a data folder is missing, empty or damaged."""

    @replace(data_utils, "load_indexed_dataset")
    def load_indexed_dataset(original, path, *args, **kwargs):
        _refuse_empty_text(path)
        try:
            return original(path, *args, **kwargs)
        except (FileNotFoundError, UsageError):
            raise
        except Exception as error:  # whatever damaged bytes mean to the reader
            raise UsageError(f"{path}.bin and .idx are damaged ({type(error).__name__}: {error}): "
                             "run fairseq-preprocess again") from error

    @replace(tasks, "setup_task")
    def setup_task(original, *args, **kwargs):
        try:
            return original(*args, **kwargs)
        except FileNotFoundError as error:
            missing = str(error.filename or error)
            remedy = "by fairseq-preprocess, and its languages (-s, -t)"
            folder, name = os.path.split(missing)
            if os.path.basename(folder) in ("input0", "label"):
                remedy = "by fairseq-preprocess --only-source, its parts input0 and label"
            elif name == "dict.txt":
                remedy = ("by fairseq-preprocess --only-source; for --lm-path copy the language "
                          "model's dict.txt, which must have the words of the target, into DATA")
            raise UsageError(
                f"{missing} does not exist: give a folder written {remedy}") from error

    @replace(translation, "load_langpair_dataset")
    def load_langpair_dataset(original, data_path, split, src, src_dict, tgt, *args, **kwargs):
        _refuse_half_datasets(data_path, split, src, tgt)
        try:
            return original(data_path, split, src, src_dict, tgt, *args, **kwargs)
        except FileNotFoundError as error:
            stem = os.path.join(data_path, f"{split}.{src}-{tgt}.{src}")
            raise UsageError(f"{stem}.bin and .idx do not exist: {_remedy(split)}") from error
        except AssertionError as error:
            if "same number of examples" not in str(error):
                raise UsageError(f"the {split} data in {data_path}: {error or 'sides do not fit'}: "
                                 "run fairseq-preprocess on both languages of one text") from error
            raise UsageError(f"the two sides of the {split} data have not as many lines: a line of "
                             "the one must translate that of the other, and fairseq-preprocess "
                             "takes a lone carriage return for the end of a line") from error


def _remedy(split: str) -> str:
    kind = split.rstrip("0123456789")
    if kind in ("train", "valid", "test"):
        return f"run fairseq-preprocess with --{kind}pref, or name another subset"
    return "name a subset that fairseq-preprocess has written, such as test"


def _refuse_half_datasets(folder: str, split: str, source: str, target: str) -> None:
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        for language in (source, target):
            stem = os.path.join(folder, f"{split}.{pair}.{language}")
            lost = [half for half in (".bin", ".idx") if not os.path.exists(stem + half)]
            if len(lost) == 1:
                raise UsageError(f"{stem}{lost[0]} does not exist: run fairseq-preprocess again")


def _refuse_empty_text(stem: str) -> None:
    binary = f"{stem}.bin"
    if os.path.isfile(binary) and os.path.getsize(binary) == 0:
        raise UsageError(f"{binary} is empty: give fairseq-preprocess a text that has lines")


def check_lengths() -> None:
    """A sentence that no batch takes ends in an assertion about all of them."""

    @replace(data_utils, "batch_by_size")
    def batch_by_size(original, indices, *args, **kwargs):
        try:
            return original(indices, *args, **kwargs)
        except AssertionError as error:
            if "exceed" not in str(error):
                raise
            raise UsageError(f"--max-tokens ({kwargs.get('max_tokens')}; for validation "
                             "--max-tokens-valid) is less than a sentence has: raise it") from error


def check_targets() -> None:
    """Training pairs without a target side end in an unrelated error deep in the loss."""

    @replace(Trainer, "get_train_iterator")
    def get_train_iterator(original, self, *args, **kwargs):
        batches = original(self, *args, **kwargs)
        _require_targets(self.task, self.cfg.dataset.train_subset)
        return batches

    @replace(Trainer, "get_valid_iterator")
    def get_valid_iterator(original, self, subset, *args, **kwargs):
        _require_targets(self.task, subset)
        return original(self, subset, *args, **kwargs)


def _require_targets(task: FairseqTask, split: str) -> None:
    dataset = task.dataset(split)
    if isinstance(dataset, LanguagePairDataset) and dataset.tgt is None:
        raise UsageError(f"the {split} data has no {task.cfg.target_lang} side to learn from: run "
                         "fairseq-preprocess on both languages, without --only-source")


def check_labels() -> None:
    """A label that is no class ends in an index error deep in the loss, as do missing ones."""

    @replace(SentencePredictionTask, "load_dataset")
    def load_dataset(original, self, split, *args, **kwargs):
        _require_labels(self.cfg.data, split)
        _require_tokens(self)
        if not self.cfg.regression_target:
            _require_classes(self, split)
        return original(self, split, *args, **kwargs)


def _require_labels(folder: str, split: str) -> None:
    for part in ("input0", "label"):
        stem = os.path.join(folder, part, split)
        if not any(os.path.exists(stem + end) for end in (".bin", ".label")):
            raise UsageError(f"{stem}.bin does not exist: {_remedy(split)} (--only-source; the "
                             "sentences and their labels each)")


def _require_tokens(task: SentencePredictionTask) -> None:
    for option in "init_token", "separator_token":
        token = getattr(task.cfg, option)
        if token is not None and not 0 <= token < len(task.dictionary):
            raise UsageError(f"--{option.replace('_', '-')} must be a token of the dictionary, "
                             f"from 0 to {len(task.dictionary) - 1}, got {token}")


def _require_classes(task: SentencePredictionTask, split: str) -> None:
    sentences, labels = (
        data_utils.load_indexed_dataset(os.path.join(task.cfg.data, part, split), dictionary)
        for part, dictionary in (("input0", task.dictionary), ("label", task.label_dictionary)))
    if len(labels) != len(sentences):
        raise UsageError(f"the {split} data has {len(labels)} labels of {len(sentences)} "
                         "sentences: run fairseq-preprocess again")
    first = task.label_dictionary.nspecial
    for number, line in enumerate(labels, start=1):
        if len(line) != 2:  # the label and </s>
            raise UsageError(f"line {number} of the {split} labels has {len(line) - 1} words: a "
                             "label is one word")
        if not 0 <= line[0] - first < task.cfg.num_classes:
            known = " ".join(task.label_dictionary.symbols[first:][: task.cfg.num_classes])
            raise UsageError(f"line {number} of the {split} labels is none of the "
                             f"{task.cfg.num_classes} classes of --num-classes and the training "
                             f"data: {known}")
