"""A fair race between architectures for translation: the protocol of docs/comparing.md.

Every entry is tried with its learning rates and dropouts on a small budget and then trained with
two seeds on the whole one. A budget is processor seconds on one thread; every run has a cosine that
ends at zero with it. The mean of the last checkpoints is scored. What is done is not done again, so
that an interrupted race goes on where it was. Prints a JSON line per final run.

    python benchmarks/race.py runs/multi30k/binary --minutes 25 --entries srupp transformer \
        --references test=runs/multi30k/corpus/test.en --folder runs/race
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sacrebleu

from fairseq_sru.files import read_lines

ROOT = Path(__file__).resolve().parents[1]
RADAM = "--optimizer radam --weight-decay 0.1 --radam-decay matrices --radam-betas (0.9,0.98)"
ADAM = "--optimizer adam --adam-betas (0.9,0.98)"
TRANSFORMER = (
    "--arch transformer --encoder-layers 4 --decoder-layers 4 --encoder-embed-dim 128"
    " --decoder-embed-dim 128 --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256"
    " --encoder-attention-heads 4 --decoder-attention-heads 4 --share-all-embeddings"
)
PRE_NORM = " --encoder-normalize-before --decoder-normalize-before"
CALIBRATION = 60  # updates
VALIDATIONS = 25  # in a run, each with a checkpoint


@dataclass
class Entry:
    """Options of fairseq-train, and what is tried for them."""

    options: str
    learning_rates: tuple[float, ...]
    dropouts: tuple[float, ...]


SRUPP = f"--arch srupp_multi30k {RADAM}"
SRU = "--arch transformer_sru_multi30k"
PEER_RATES, OUR_RATES = (3e-3, 5e-3, 7e-3), (2e-3, 3e-3, 5e-3)
RADAM_RATES = (5e-3, 7e-3, 1e-2)
ENTRIES = {
    "srupp": Entry(SRUPP, OUR_RATES, (0.25, 0.15)),
    "srupp_6_2": Entry(f"--arch srupp_multi30k_6_2 {RADAM}", OUR_RATES, (0.25, 0.15)),
    "srupp_k2": Entry(f"{SRUPP} --encoder-attention every:2 --decoder-attention every:2",
                      OUR_RATES, (0.25, 0.15)),
    "srupp_simcut": Entry(f"{SRUPP} --criterion simcut", OUR_RATES, (0.25, 0.15)),
    "transformer_sru": Entry(SRU + PRE_NORM + f" {ADAM}", PEER_RATES, (0.2, 0.3)),
    "transformer_sru_radam": Entry(SRU + PRE_NORM + f" {RADAM}", RADAM_RATES, (0.2, 0.3)),
    "transformer_sru_simcut": Entry(
        SRU + PRE_NORM + f" {ADAM} --criterion simcut", PEER_RATES, (0.2, 0.3)),
    "transformer": Entry(TRANSFORMER + PRE_NORM + f" {ADAM}", PEER_RATES, (0.2, 0.3)),
    "transformer_post": Entry(f"{TRANSFORMER} {ADAM}", OUR_RATES, (0.2, 0.3)),
    "transformer_radam": Entry(TRANSFORMER + PRE_NORM + f" {RADAM}", RADAM_RATES, (0.2, 0.3)),
    "transformer_simcut": Entry(
        TRANSFORMER + PRE_NORM + f" {ADAM} --criterion simcut", PEER_RATES, (0.2, 0.3)),
}


def main() -> None:
    options = make_parser().parse_args()
    for name in options.entries:
        for row in race(name, options):
            print(json.dumps(row), flush=True)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder of fairseq-preprocess, German to English")
    parser.add_argument("--entries", nargs="+", choices=ENTRIES, default=["srupp", "transformer"])
    parser.add_argument("--minutes", type=float, default=25, help="processor minutes of a run")
    parser.add_argument("--tuning-minutes", type=float, help="of a try (default: a quarter)")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16",
                        help="float32 for a processor without avx512_bf16 (lscpu)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--max-tokens", type=int, default=2048, help="tokens of a batch")
    parser.add_argument("--average", type=int, default=5, help="checkpoints of which the mean is "
                                                               "taken, in the last fifth of a run")
    parser.add_argument("--references", nargs="+", default=[], metavar="SUBSET=FILE",
                        help="test sets in the data folder and their text")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "race")
    return parser


def race(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Tune an entry, then its final runs."""
    entry = ENTRIES[name]
    folder = options.folder / name
    minutes = options.tuning_minutes or options.minutes / 4

    def attempt(lr: float, dropout: float) -> float:
        updates = affordable(entry, options, folder / "speed", minutes)
        where = folder / f"try_{minutes:g}_{lr:g}_{dropout:g}"
        return train(entry, options, where, updates, 1, lr, dropout)["perplexity"]

    dropout = entry.dropouts[0]
    tries = {(lr, dropout): attempt(lr, dropout) for lr in entry.learning_rates}
    lr = min(tries, key=tries.__getitem__)[0]
    tries.update({(lr, other): attempt(lr, other) for other in entry.dropouts[1:]})
    lr, dropout = min(tries, key=tries.__getitem__)
    rows = []
    for seed in options.seeds:
        updates = affordable(entry, options, folder / "speed", options.minutes)
        where = folder / f"final_{options.minutes:g}_{seed}"
        row = train(entry, options, where, updates, seed, lr, dropout)
        row.update(score(options, where))
        rows.append({"entry": name, "precision": options.precision, "seed": seed, "lr": lr,
                     "dropout": dropout, **row,
                     "tries": [[*key, value] for key, value in tries.items()]})
    return rows


def affordable(
    entry: Entry, options: argparse.Namespace, folder: Path, minutes: float
) -> int:
    """Updates for this many processor minutes, with the start and the validations of the run."""
    train(entry, options, folder, CALIBRATION, 1, entry.learning_rates[0], entry.dropouts[0],
          "--no-save", "--save-interval-updates", CALIBRATION)  # where it validates, too
    log = (folder / "log").read_text(encoding="utf-8")
    stamps = {int(update): float(seconds) for seconds, update in re.findall(
        r'train_inner \| cpu=([\d.]+) .*"num_updates": "(\d+)"', log)}
    first, last = min(stamps), max(stamps)
    update = (stamps[last] - stamps[first]) / (last - first)
    start = stamps[first] - first * update
    validation = float(re.findall(r"valid \| cpu=([\d.]+)", log)[-1]) - stamps[last]
    return max(1, round((60 * minutes - start - VALIDATIONS * validation) / update))


def train(
    entry: Entry, options: argparse.Namespace, folder: Path, updates: int, seed: int, lr: float,
    dropout: float, *more: Any,
) -> dict[str, Any]:
    """A run: updates, processor seconds, validation perplexity at its end."""
    log = folder / "log"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        warmup = min(400, max(1, updates // 10))
        default = "--criterion fused_label_smoothed_cross_entropy --label-smoothing 0.1"
        command = [
            ROOT / "examples" / "clocked_train.py", options.data, "--user-dir",
            ROOT / "fairseq_sru", "--source-lang", "de", "--target-lang", "en", *default.split(),
            *entry.options.split(), "--lr", lr, "--dropout", dropout, "--lr-scheduler", "cosine",
            "--warmup-updates", warmup, "--lr-period-updates", updates - warmup,
            "--max-update", updates, "--max-tokens", options.max_tokens, "--seed", seed,
            "--num-workers", 0, "--no-epoch-checkpoints", "--save-interval-updates",
            max(1, updates // VALIDATIONS), "--keep-interval-updates", options.average,
            "--save-dir", folder / "checkpoints", "--log-format", "json",
            "--log-interval", 10, "--cpu", *more,
        ]
        if options.precision == "bfloat16":
            command.append("--bf16")
        with open(log, "w", encoding="utf-8") as file:
            run(command, stdout=file, stderr=subprocess.STDOUT)
        (folder / "done").touch()
    text = log.read_text(encoding="utf-8")
    curve = [[int(u), float(s), float(p)] for s, p, u in re.findall(
        r'cpu=([\d.]+) .*"valid_ppl": "([\d.]+)".*"valid_num_updates": "(\d+)"', text)]
    return {"updates": updates, "processor_seconds": float(re.findall(r"cpu=([\d.]+)", text)[-1]),
            "perplexity": curve[-1][2] if curve else None, "curve": curve}


def score(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """BLEU of the mean of the last checkpoints, beam 5, on every test set, and the signature."""
    model = folder / "model.pt"
    if not model.exists():
        run(["-m", "fairseq_sru.average_checkpoints", "--inputs", folder / "checkpoints",
             "--num-update-checkpoints", options.average, "--output", model], stdout=sys.stderr)
    scores: dict[str, Any] = {}
    for subset, path in (reference.split("=", 1) for reference in options.references):
        generated = run(
            ["-m", "fairseq_cli.generate", options.data, "--user-dir", ROOT / "fairseq_sru",
             "--path", model, "--gen-subset", subset, "--beam", "5", "--max-tokens", "8000",
             "--remove-bpe", "sentencepiece", "--cpu"],
            stdout=subprocess.PIPE).stdout
        lines = sorted((int(n), text) for n, text in re.findall(
            r"^H-(\d+)\t[^\t]*\t(.*)$", generated, re.MULTILINE))
        metric = sacrebleu.BLEU()
        reference = read_lines(Path(path))
        if len(lines) != len(reference):
            sys.exit(f"{subset} has {len(lines)} sentences and {path} {len(reference)} lines")
        bleu = metric.corpus_score([text for _, text in lines], [reference])
        scores[f"bleu_{subset}"] = round(bleu.score, 2)
        scores["signature"] = str(metric.get_signature())
    return scores


def run(arguments: list[Any], **streams: Any) -> subprocess.CompletedProcess:
    """This Python on one thread, with the plugin on its path, and the faster attention for short
    sentences."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ATTENTION": "math"}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, check=True,
                          text=True, **streams)


if __name__ == "__main__":
    main()
