"""Train many classifiers in one process, ours and the peers, a JSON line a run.

python compare.py OUT.jsonl --folder FOLDER --set SET [--models NAME ...] [--epochs N] ...

A run is a model, a dropout, and a fold where the set has no test file of its own, else a seed. All
have the same embedding, batches and optimizer: Adam, 1e-3; of the embedding, only the rows of words
that a batch has. The first runs try every dropout, the others have the one that was best in
validation. The test accuracy is that of the epoch that was best in validation. Seconds are
processor seconds of training alone. Runs that OUT.jsonl has already are not made again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import torch
from fairseq.data import Dictionary
from peers import PEERS
from sentences import FOLDS, Sentence, has_split, labels_of, load
from table import best_dropout, read_runs
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from fairseq_sru import register
from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.ranges import SIZE

HEAD = "label"
BATCH = 32
Batch = "tuple[Tensor, Tensor]"  # tokens (B, L), classes (B,)


def build(
    name: str, dictionary: Dictionary, classes: int, dropout: float, **embedding: Any
) -> torch.nn.Module:
    """A peer, or an architecture of the package.

    Args:
        embedding: embed_path, freeze_embed.

    Raises:
        UsageError: an unknown name.
    """
    from fairseq import models

    from fairseq_sru.models.classifier import SentenceClassifier
    from fairseq_sru.registry import ARCHITECTURES

    arch = "sru_classifier" if name in PEERS else name
    model_name = models.ARCH_MODEL_NAME_REGISTRY.get(arch)
    if model_name not in ("sru_classifier", "srupp_classifier"):
        raise UsageError(f"no model {name}: {', '.join(PEERS)} are the peers, and the classifiers "
                         "of `python -m fairseq_sru` ours")
    options = {**ARCHITECTURES.get(arch, {}), **embedding, "dropout": dropout}
    cfg = models.MODEL_DATACLASS_REGISTRY[model_name](**options)
    task = SimpleNamespace(source_dictionary=dictionary)
    model = models.MODEL_REGISTRY[model_name].build_model(cfg, task)
    if name in PEERS:
        encoder = PEERS[name](cfg.embed_dim, dropout)
        model = SentenceClassifier(
            model.embed_tokens, encoder, pooling=encoder.pooling, embedding_dropout=dropout,
            output_dropout=dropout)
    model.register_classification_head(HEAD, classes)
    model.embed_tokens.sparse = True
    return model


class Data:
    """Batches of a set's parts, with the dictionary and the classes of its training part."""

    def __init__(self, parts: dict[str, list[Sentence]]) -> None:
        self.dictionary = Dictionary()
        for sentence in parts["train"]:
            self.dictionary.encode_line(sentence.text, add_if_not_exist=True)
        self.dictionary.finalize(padding_factor=1)
        self.labels = labels_of(parts)
        self._parts = {
            part: [(self.dictionary.encode_line(text, add_if_not_exist=False).long(),
                    self.labels.index(label)) for label, text in sentences]
            for part, sentences in parts.items()}

    def batches(self, part: str, shuffle: random.Random | None = None) -> Iterator[Batch]:
        """Sentences of like length together; with ``shuffle`` of those that chance puts near each
        other, and in an order that is chance too."""
        rows = list(self._parts[part])
        if shuffle is not None:
            shuffle.shuffle(rows)
        near = 50 * BATCH
        windows = [sorted(rows[i : i + near], key=lambda row: len(row[0]))
                   for i in range(0, len(rows), near)]
        batches = [w[i : i + BATCH] for w in windows for i in range(0, len(w), BATCH)]
        if shuffle is not None:
            shuffle.shuffle(batches)
        for batch in batches:
            tokens, classes = zip(*batch)
            yield (pad_sequence(tokens, True, self.dictionary.pad()), torch.tensor(classes))


def train(
    model: Any, data: Data, epochs: int, seed: int
) -> dict[str, Any]:
    """Accuracies in percent, and the curve: processor seconds and validation accuracy an epoch."""
    dense = [p for p in model.parameters()
             if p.requires_grad and p is not model.embed_tokens.weight]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(dense, 1e-3)]
    if model.embed_tokens.weight.requires_grad:
        optimizers.append(torch.optim.SparseAdam([model.embed_tokens.weight], 1e-3))
    shuffle = random.Random(seed)
    best: dict[str, float] = {"valid": -1.0, "test": 0.0}
    curve, seconds, sentences = [], 0.0, 0
    for _ in range(epochs):
        model.train()
        started = time.process_time()
        for tokens, classes in data.batches("train", shuffle):
            loss = cross_entropy(logits(model, tokens), classes)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            sentences += len(classes)
        seconds += time.process_time() - started
        valid = accuracy(model, data, "valid")
        curve.append((round(seconds, 2), round(valid, 2)))
        if valid > best["valid"]:
            best = {"valid": valid, "test": accuracy(model, data, "test")}
    return {**best, "seconds_an_epoch": seconds / epochs,
            "sentences_a_second": sentences / seconds, "curve": curve}


def logits(model: Any, tokens: Tensor) -> Tensor:
    return model(tokens, classification_head_name=HEAD)[0]


@torch.inference_mode()
def accuracy(model: Any, data: Data, part: str) -> float:
    """Percent."""
    model.eval()
    right = [logits(model, tokens).argmax(-1) == classes for tokens, classes in data.batches(part)]
    return 100 * torch.cat(right).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--set", required=True)
    parser.add_argument("--models", nargs="+", default=["sru_classifier_2", *PEERS])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--dropouts", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--runs", type=int, help="seeds (default 5), or folds (default 10)")
    parser.add_argument("--tuning-runs", type=int, default=2,
                        help="how many of them try every dropout")
    parser.add_argument("--embed-path")
    parser.add_argument("--freeze-embed", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    register()
    for name in ("epochs", "runs", "tuning_runs"):
        value = getattr(args, name)
        if value is not None and value not in SIZE:
            raise UsageError(f"--{name.replace('_', '-')} must be {SIZE.description}, got {value}")
    done = read_runs(args.out) if args.out.exists() else []
    split = has_split(args.folder, args.set)
    for run, name in product(range(args.runs or (5 if split else FOLDS)), args.models):
        model_key = dict(set=args.set, model=name, epochs=args.epochs,
                         embed_path=args.embed_path, freeze_embed=args.freeze_embed)
        dropouts = args.dropouts
        if run >= args.tuning_runs:
            dropouts = [best_dropout(
                line for line in done
                if model_key.items() <= line.items() and line["dropout"] in dropouts)]
        for dropout in dropouts:
            key = {**model_key, "dropout": dropout, "run": run}
            if any(key.items() <= line.items() for line in done):
                continue
            data = Data(load(args.folder, args.set, 0 if split else run))
            torch.manual_seed(run)
            model = build(name, data.dictionary, len(data.labels), dropout,
                          embed_path=args.embed_path, freeze_embed=args.freeze_embed)
            line = {**key, **train(model, data, args.epochs, seed=run)}
            done.append(line)
            with args.out.open("a") as file:
                print(json.dumps(line), file=file)
            print(f"{args.set} {name} dropout {dropout} run {run}: {line['test']:.1f}, "
                  f"{line['sentences_a_second']:.0f} sentences a second", flush=True)


if __name__ == "__main__":
    with one_line():
        main()
