"""``python -m fairseq_sru.classify``: the class of every line of a text, and its probability."""

from __future__ import annotations

import argparse
import logging
from itertools import islice
from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairseq_sru import register
from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.files import lines, text_files

WINDOW = 4096  # lines sorted by length together
ROWS = 64  # lines in a batch


class Prediction(NamedTuple):
    """The likeliest class of a line."""

    label: str
    probability: float


class Classifier:
    """A trained sentence classifier that takes text, tokenised as its training data.

    ::

        classifier = Classifier("checkpoint_best.pt")
        list(classifier.stream(["a stirring , funny film"]))

    Args:
        checkpoint: of fairseq-train --task sentence_prediction.
        data: folder of input0/dict.txt and label/dict.txt; default: where it was trained.

    Raises:
        UsageError: the checkpoint or its dictionaries are missing, damaged or of another kind.
    """

    def __init__(self, checkpoint: str | Path, data: str | Path | None = None) -> None:
        register()
        from fairseq import checkpoint_utils

        # the checkpoint has the embedding, whatever has become of the word vectors' file
        overrides: dict[str, Any] = {"embed_path": None}
        if data is not None:
            overrides["data"] = str(data)
        (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
            [str(checkpoint)], arg_overrides=overrides)
        if not hasattr(model, "classification_heads") or not hasattr(task, "label_dictionary"):
            raise UsageError(f"{checkpoint} is no sentence classifier: train one with "
                             "--task sentence_prediction")
        if task.cfg.regression_target:
            raise UsageError(f"{checkpoint} predicts numbers (--regression-target), not classes")
        if task.cfg.separator_token is not None or Path(task.cfg.data, "input1").is_dir():
            raise UsageError(f"{checkpoint} was trained on pairs of sentences (input1, "
                             "--separator-token): only single ones can be classified here")
        self._model = model.eval()
        self._cfg = task.cfg
        self._words, self._labels = task.source_dictionary, task.label_dictionary

    def stream(self, text: Iterable[str]) -> Iterator[Prediction]:
        """The prediction of every line in order, of any number of lines; an empty line is an empty
        sentence, as in training."""
        text = iter(text)
        while window := list(islice(text, WINDOW)):
            sentences = self._encode(window)
            order = sorted(range(len(window)), key=lambda i: len(sentences[i]))
            found: dict[int, Prediction] = {}
            for start in range(0, len(order), ROWS):
                rows = order[start : start + ROWS]
                found.update(zip(rows, self._predict([sentences[i] for i in rows])))
            yield from (found[i] for i in range(len(window)))

    def _encode(self, lines: list[str]) -> list[Tensor]:
        """Token numbers as the task makes them of its test set."""
        from fairseq.data import ListDataset, PrependTokenDataset
        from fairseq.data.shorten_dataset import maybe_shorten_dataset

        sentences = [self._words.encode_line(line, add_if_not_exist=False).long()
                     for line in lines]
        data = ListDataset(sentences, np.array([len(sentence) for sentence in sentences]))
        if self._cfg.init_token is not None:
            data = PrependTokenDataset(data, self._cfg.init_token)
        return list(maybe_shorten_dataset(
            data, "test", self._cfg.shorten_data_split_list, self._cfg.shorten_method,
            self._cfg.max_positions, self._cfg.seed))

    @torch.inference_mode()
    def _predict(self, sentences: list[Tensor]) -> Iterator[Prediction]:
        tokens = torch.nn.utils.rnn.pad_sequence(
            sentences, batch_first=True, padding_value=self._words.pad())
        logits, _ = self._model(
            tokens, classification_head_name=self._cfg.classification_head_name,
            features_only=True)
        best = logits.softmax(-1).max(-1)
        for index, probability in zip(best.indices.tolist(), best.values.tolist()):
            yield Prediction(self._labels[index + self._labels.nspecial], probability)


def main() -> None:
    logging.disable(logging.INFO)
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_sru.classify",
        description="Print the class, a tab and its probability for every line of tokenised text.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a fairseq checkpoint")
    parser.add_argument("--input", type=Path, metavar="FILE", help="default: standard input")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--data", type=Path, metavar="DIR",
                        help="folder of the checkpoint's dictionaries; default: as in training")
    args = parser.parse_args()
    classifier = Classifier(args.model, args.data)
    with text_files(args.input, args.output) as (source, target):
        for label, probability in classifier.stream(lines(source)):
            target.write(f"{label}\t{probability:.4f}\n".encode())


if __name__ == "__main__":
    with one_line():
        main()
