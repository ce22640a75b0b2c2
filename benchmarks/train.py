"""Training speed of srupp_iwslt beside fairseq's Transformers: same batches, taking turns.

Prints a JSON line per model and precision: target words per second of CPU or GPU work (median over
rounds), its ratio to transformer_iwslt_de_en's, and the number of parameters.

    python benchmarks/train.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY
from fairseq.models.transformer import TransformerConfig, TransformerModelBase

from fairseq_sru.models.config import PRESETS, SRUppConfig
from fairseq_sru.models.translation import SRUppModel
from fairseq_sru.ops.extension import keep_freed_memory

PAPER_COMPARATOR = dict(  # SRU++ paper, section 5: 8 layers, 20M parameters
    encoder_layers=8, decoder_layers=8, encoder_embed_dim=256, decoder_embed_dim=256,
    encoder_ffn_embed_dim=1024, decoder_ffn_embed_dim=1024,
    encoder_attention_heads=4, decoder_attention_heads=4,
)


def dictionary(types: int) -> Dictionary:
    words = Dictionary()
    for i in range(types - len(words)):
        words.add_symbol(f"w{i}")
    return words


def build(arch: str, task: SimpleNamespace) -> torch.nn.Module:
    """A freshly initialised model of architecture ``arch``, or the paper's 20M Transformer."""
    torch.manual_seed(1)
    if arch in PRESETS:
        return SRUppModel.build_model(SRUppConfig(**PRESETS[arch]), task)
    args = argparse.Namespace(share_decoder_input_output_embed=True)
    if arch == "transformer_20m":
        vars(args).update(PAPER_COMPARATOR)
        arch = "transformer_iwslt_de_en"
    ARCH_CONFIG_REGISTRY[arch](args)
    return TransformerModelBase.build_model(TransformerConfig.from_namespace(args), task)


def make_batches(count: int, tokens: int, types: tuple[int, int]) -> list[dict]:
    """Sentence pairs of IWSLT's typical lengths, sorted into batches as fairseq does."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(count):
        length = int(torch.randint(10, 50, (), generator=generator))
        rows = max(1, tokens // length)
        source = torch.randint(4, types[0], (rows, length), generator=generator)
        target = torch.randint(4, types[1], (rows, length), generator=generator)
        source[: rows // 3, :2] = 1
        target[: rows // 3, -2:] = 1
        batches.append(dict(source=source, target=target, words=int(target.ne(1).sum())))
    return batches


class Runner:
    def __init__(self, arch: str, precision: str, task: SimpleNamespace, device: str) -> None:
        self.name = dict(model=arch, precision=precision)
        self.model = build(arch, task).to(device, getattr(torch, precision)).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5)
        self.rates: list[float] = []

    def update(self, batch: dict) -> None:
        scores = self.model(batch["source"], None, batch["target"])
        lprobs = self.model.get_normalized_probs(scores, log_probs=True)
        loss, _ = label_smoothed_nll_loss(
            lprobs.view(-1, lprobs.size(-1)), batch["target"].view(-1, 1), 0.1, ignore_index=1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def measure(self, batches: list[dict], device: str) -> None:
        synchronize = torch.cuda.synchronize if device == "cuda" else (lambda: None)
        synchronize()
        start = time.perf_counter()
        for batch in batches:
            self.update(batch)
        synchronize()
        self.rates.append(sum(b["words"] for b in batches) / (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--models", nargs="+",
                        default=["transformer_iwslt_de_en", "transformer_20m", "srupp_iwslt",
                                 "srupp_iwslt_k2"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--types", type=int, nargs=2, default=[12000, 9000])
    args = parser.parse_args()
    keep_freed_memory()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = SimpleNamespace(source_dictionary=dictionary(args.types[0]),
                           target_dictionary=dictionary(args.types[1]))
    batches = make_batches(args.batches, args.max_tokens, args.types)
    for batch in batches:
        batch.update({k: v.to(device) for k, v in batch.items() if torch.is_tensor(v)})
    runners = [Runner(m, p, task, device) for p in args.precisions for m in args.models]
    for runner in runners:
        runner.update(batches[0])
    for _ in range(args.rounds):
        for runner in runners:
            runner.measure(batches, device)
    peers = {r.name["precision"]: r for r in runners if r.name["model"] == args.models[0]}
    for runner in runners:
        peer = peers[runner.name["precision"]]
        ratios = [ours / theirs for ours, theirs in zip(runner.rates, peer.rates)]
        print(json.dumps({
            **runner.name,
            "device": device,
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in runner.model.parameters()),
            "words_per_second": round(statistics.median(runner.rates)),
            f"ratio_to_{args.models[0]}": round(statistics.median(ratios), 2),
        }))


if __name__ == "__main__":
    main()
