"""Training of sentence classifiers: SRU, SRU++ and the peers of examples/classification.

A round is a few updates on batches of random tokens, forward, backward and Adam. The embedding of
300 numbers is fixed, as in the SRU paper's table 1, so that what is compared are the layers. Models
take turns.

Prints a JSON line per model: sentences a second (median over rounds) and how many times those of
the LSTM (median of the rounds' ratios).

    python benchmarks/classifier.py --threads 1 --clock processor --shapes 20,32 256,32
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Callable

import torch
from fairseq.data import Dictionary
from measuring import emit, make_parser, median_ratio, parse, taking_turns
from torch.nn.functional import cross_entropy

sys.path.append(str(Path(__file__).parents[1] / "examples" / "classification"))

import compare  # noqa: E402
from peers import PEERS  # noqa: E402

UPDATES = 10


def updates(name: str, tokens: torch.Tensor, precision: str, dictionary: Dictionary) -> Callable:
    """A function that trains the model ``name`` for a round."""
    torch.manual_seed(1)
    model = compare.build(name, dictionary, 2, dropout=0.5, freeze_embed=True)
    model.to(tokens.device, getattr(torch, precision)).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    classes = torch.arange(len(tokens), device=tokens.device) % 2

    def train() -> None:
        for _ in range(UPDATES):
            optimizer.zero_grad()
            cross_entropy(compare.logits(model, tokens).float(), classes).backward()
            optimizer.step()

    return train


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--shapes", nargs="+", metavar="L,B", default=["20,32", "256,32"],
                        help="length and number of sentences")
    parser.add_argument("--models", nargs="+", default=[
        "sru_classifier_2", "sru_classifier_4", "sru_classifier_8", "qrnn_classifier",
        "sru_classifier_bidirectional", "sru_classifier_filters", "srupp_classifier", *PEERS])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options = parse(parser)
    compare.register()
    dictionary = Dictionary()
    for i in range(1000):
        dictionary.add_symbol(f"w{i}")
    for shape in options.shapes:
        length, batch = map(int, shape.split(","))
        tokens = torch.randint(dictionary.nspecial, 1000, (batch, length), device=options.device)
        for precision in options.precisions:
            seconds = taking_turns({
                name: updates(name, tokens, precision, dictionary)
                for name in dict.fromkeys(["lstm", *options.models])}, options)
            for name, spent in seconds.items():
                emit(options, model=name, length=length, batch=batch, precision=precision,
                     sentences_per_s=round(UPDATES * batch / statistics.median(spent)),
                     ratio_to_lstm=median_ratio(spent, seconds["lstm"]))


if __name__ == "__main__":
    main()
