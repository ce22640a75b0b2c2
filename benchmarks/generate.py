"""Translation speed of srupp_iwslt beside fairseq's transformer_iwslt_de_en, taking turns.

fairseq's own SequenceGenerator decodes the same source sentences with both; each output has the
length of its source, as minimum and as maximum, so both do the same number of steps, whatever the
weights: random ones unless checkpoints are given.

Prints a JSON line per model, precision and beam: sentences and best-hypothesis tokens per second
(median over rounds) and the ratio to the Transformer's. With --profile a line per part instead,
with its share of the time.

    python benchmarks/generate.py --batch 64 --beams 5 1
    python benchmarks/generate.py --profile --precisions float32 --beams 5
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq.sequence_generator import SequenceGenerator
from measuring import emit, make_parser, median_ratio, parameters, parse, taking_turns, timed
from train import build, dictionary


class Translator:
    """A model and fairseq's beam search over one batch."""

    def __init__(
        self, model: torch.nn.Module, task: Any, beam: int, options: argparse.Namespace
    ) -> None:
        self.model = model.eval()
        model.make_generation_fast_(need_attn=False)
        self.generator = SequenceGenerator(
            [model], task.target_dictionary, beam_size=beam, max_len_b=options.length,
            min_len=options.length)
        numbers = torch.Generator().manual_seed(1)
        shape = options.batch, options.length
        source = torch.randint(4, len(task.source_dictionary), shape, generator=numbers)
        source[:, -1] = task.source_dictionary.eos()
        source = source.to(options.device)
        lengths = torch.full(shape[:1], options.length, device=options.device)
        self.sample = {"net_input": {"src_tokens": source, "src_lengths": lengths}}
        self.steps = options.length + 1

    def translate(self) -> None:
        for hypotheses in self.generator.generate([self.model], self.sample):
            if len(hypotheses[0]["tokens"]) != self.steps:
                raise RuntimeError(f"{len(hypotheses[0]['tokens'])} tokens, not {self.steps}")

    def watch(self, options: argparse.Namespace) -> Counter:
        """Add up the seconds of each part from now on."""
        seconds: Counter = Counter()

        def replace(owner: Any, method: str, part: str) -> None:
            original = getattr(owner, method)

            def wrapper(*args, **kwargs):
                out = []
                seconds[part] += timed(lambda: out.append(original(*args, **kwargs)), options)
                return out[0]

            setattr(owner, method, wrapper)

        encoder, decoder = self.model.encoder, self.model.decoder
        replace(encoder, "forward_torchscript", "encoder")
        replace(decoder, "extract_features", "decoder layers")
        replace(decoder, "output_layer", "output projection")
        replace(self.model, "get_normalized_probs", "softmax")
        replace(self.generator.search, "step", "search")
        replace(encoder, "reorder_encoder_out", "reordering")
        replace(decoder, "reorder_incremental_state_scripting", "reordering")
        return seconds


def load(name: str, options: argparse.Namespace) -> tuple[torch.nn.Module, Any]:
    """A fresh model of architecture ``name`` with a task, or those of the checkpoint ``name``."""
    if Path(name).is_file():
        models, _, task = load_model_ensemble_and_task([name])
        return models[0], task
    task = SimpleNamespace(source_dictionary=dictionary(options.types[0]),
                           target_dictionary=dictionary(options.types[1]))
    return build(name, task), task


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--ours", default="srupp_iwslt", help="an architecture or a checkpoint")
    parser.add_argument("--peer", default="transformer_iwslt_de_en",
                        help="likewise; transformer_20m is the paper's comparator")
    parser.add_argument("--batch", type=int, default=16, help="sentences")
    parser.add_argument("--length", type=int, default=24, help="of sources and outputs")
    parser.add_argument("--beams", type=int, nargs="+", default=[5, 1])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--types", type=int, nargs=2, default=[12000, 9000])
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    options = parse(parser)
    for precision in options.precisions:
        for beam in options.beams:
            measure(precision, beam, options)


def measure(precision: str, beam: int, options: argparse.Namespace) -> None:
    translators = {}
    for name in options.ours, options.peer:
        model, task = load(name, options)
        model = model.to(options.device, getattr(torch, precision))
        translators[name] = Translator(model, task, beam, options)
    runs = {name: t.translate for name, t in translators.items()}
    parts = {name: t.watch(options) for name, t in translators.items() if options.profile}
    seconds = taking_turns(runs, options)
    for name, translator in translators.items():
        row = dict(model=name, precision=precision, beam=beam, batch=options.batch,
                   length=options.length)
        if options.profile:
            total = sum(seconds[name]) * (1 + 1 / options.rounds)  # the first round is watched too
            parts[name]["the rest"] = total - sum(parts[name].values())
            for part, spent in parts[name].most_common():
                emit(options, **row, part=part, share=round(spent / total, 3))
            continue
        middle = statistics.median(seconds[name])
        emit(options, **row, parameters=parameters(translator.model),
             sentences_per_second=round(options.batch / middle, 1),
             tokens_per_second=round(options.batch * translator.steps / middle),
             ratio_to_peer=median_ratio(seconds[name], seconds[options.peer]))


if __name__ == "__main__":
    main()
