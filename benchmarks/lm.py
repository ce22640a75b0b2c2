"""Training speed of an SRU++ language model beside two Transformers of equal size: fairseq's
transformer_lm and a modern one (modern_lm.py).

The same tokens in the same batches, taking turns, forward, backward and Adam. Ours carries its
memory from batch to batch, as in training: a token attends to the segment before too. Three of
ours: attention in every layer, the same with --project-memory, and with attention in every 5th
layer besides. A Transformer's batch is as many texts of that length, fairseq's --sample-break-mode
none, so that a token of ours sees more. No model drops anything: the modern one has no dropout.

Prints a JSON line per model and precision: tokens per second (median over rounds), its ratios to
the Transformers' and their spread over the rounds, and the number of parameters.

    python benchmarks/lm.py --size srupp_lm_bytes --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.models.transformer_lm import TransformerLanguageModel, base_lm_architecture
from measuring import (
    emit,
    make_parser,
    median_ratio,
    parameters,
    parse,
    taking_turns,
    transformer_of_size,
)
from modern_lm import ModernTransformer
from train import dictionary

from fairseq_sru.models.language_model import SRUppLanguageModel
from fairseq_sru.models.lm_config import SRUPP_PRESETS, SRUppLMConfig
from fairseq_sru.state import StreamMemory

NO_DROPOUT = dict(dropout=0.0, attention_dropout=0.0)


def build_ours(size: str, types: int, **changes) -> SRUppLanguageModel:
    """A freshly initialised model of preset ``size``, some options of it changed."""
    torch.manual_seed(1)
    cfg = SRUppLMConfig(**{**SRUPP_PRESETS[size], **NO_DROPOUT, **changes})
    return SRUppLanguageModel.build_model(cfg, SimpleNamespace(target_dictionary=dictionary(types)))


def every_fifth(size: str, types: int, **changes) -> SRUppLanguageModel:
    """As preset ``size``, but only every 5th layer attends, and all are wider by the 32nds of
    their width that bring it nearest in parameters."""
    cfg = SRUppLMConfig(**SRUPP_PRESETS[size])

    def build(extra: int) -> SRUppLanguageModel:
        return build_ours(size, types, attention="every:5",
                          hidden_size=cfg.hidden_size * (32 + extra) // 32,
                          proj_size=cfg.proj_size * (32 + extra) // 32, **changes)

    with torch.device("meta"):
        wanted = parameters(build_ours(size, types))
        extra = min(range(8), key=lambda extra: abs(parameters(build(extra)) - wanted))
    return build(extra)


def build_peer(size: str, types: int, positions: int) -> TransformerLanguageModel:
    """fairseq's transformer_lm with as many layers and parameters as preset ``size``.

    Args:
        positions: the longest text it will see.
    """
    cfg = SRUppLMConfig(**SRUPP_PRESETS[size])
    with torch.device("meta"):
        wanted = parameters(build_ours(size, types))
    return transformer_of_size(
        lambda width, inner: _transformer(cfg, types, positions, width, inner), wanted)


def build_modern(size: str, types: int) -> ModernTransformer:
    """The modern Transformer with as many layers and parameters as preset ``size``."""
    layers = SRUppLMConfig(**SRUPP_PRESETS[size]).layers
    with torch.device("meta"):
        wanted = parameters(build_ours(size, types))
    torch.manual_seed(1)
    return transformer_of_size(
        lambda width, inner: ModernTransformer(types, layers, width, inner), wanted, 8 / 3)


def _transformer(
    cfg: SRUppLMConfig, types: int, positions: int, width: int, inner: int
) -> TransformerLanguageModel:
    torch.manual_seed(1)
    words = dictionary(types)
    args = argparse.Namespace(
        decoder_layers=cfg.layers, decoder_layers_to_keep=None, decoder_embed_dim=width,
        decoder_ffn_embed_dim=inner, decoder_attention_heads=width // 64, **NO_DROPOUT,
        tokens_per_sample=positions, max_target_positions=positions,
        share_decoder_input_output_embed=cfg.share_decoder_input_output_embed)
    if cfg.adaptive_cutoff:
        vars(args).update(
            decoder_input_dim=cfg.embed_dim, decoder_output_dim=cfg.embed_dim, adaptive_input=True,
            adaptive_input_cutoff=cfg.adaptive_cutoff, adaptive_softmax_cutoff=cfg.adaptive_cutoff,
            tie_adaptive_weights=True, tie_adaptive_proj=cfg.tie_adaptive_proj)
    base_lm_architecture(args)
    return TransformerLanguageModel.build_model(
        args, SimpleNamespace(source_dictionary=words, target_dictionary=words))


class Trainer:
    """Updates of a model over batches of the same text, with memory if it has any."""

    def __init__(self, model: torch.nn.Module, tokens: torch.Tensor, segment: int) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
        self.batches = [(b[:, :-1], b[:, 1:]) for b in tokens.unfold(1, segment + 1, segment)
                        .unbind(1)]
        self.memory = StreamMemory(segment, segment)

    def run(self) -> None:
        for source, target in self.batches:
            extra = {}
            if isinstance(self.model, SRUppLanguageModel):
                self.memory = self.memory.next()
                extra = dict(memory=self.memory, padded=False)
            output = self.model(source, **extra)
            self.optimizer.zero_grad()
            self._loss(output, target).backward()
            self.optimizer.step()

    def _loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        if isinstance(self.model, ModernTransformer):
            return F.cross_entropy(output.flatten(0, 1).float(), target.flatten())
        adaptive = self.model.decoder.adaptive_softmax
        if adaptive is None:
            return F.cross_entropy(output[0].flatten(0, 1).float(), target.flatten())
        scores, targets = adaptive(output[0], target.flatten())
        return sum(F.cross_entropy(s.float(), t, reduction="sum")
                   for s, t in zip(scores, targets) if s is not None) / target.numel()


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--size", default="srupp_lm_bytes", choices=sorted(SRUPP_PRESETS))
    parser.add_argument("--batch", type=int, default=8, help="streams")
    parser.add_argument("--segment", type=int, default=256, help="tokens of each in a batch")
    parser.add_argument("--batches", type=int, default=2, help="per round")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options = parse(parser)

    types = SRUPP_PRESETS[options.size].types
    tokens = torch.randint(4, types, (options.batch, options.batches * options.segment + 1),
                           generator=torch.Generator().manual_seed(1)).to(options.device)
    for precision in options.precisions:
        models = {
            options.size: build_ours(options.size, types),
            f"{options.size}, project_memory": build_ours(
                options.size, types, project_memory=True),
            f"{options.size}, project_memory, every:5": every_fifth(
                options.size, types, project_memory=True),
            "transformer_lm": build_peer(options.size, types, options.segment),
            "modern": build_modern(options.size, types),
        }
        trainers = {
            name: Trainer(m.to(options.device, getattr(torch, precision)), tokens, options.segment)
            for name, m in models.items()
        }
        seconds = taking_turns({name: t.run for name, t in trainers.items()}, options)
        work = options.batch * options.batches * options.segment
        for name, model in models.items():
            emit(options, model=name, precision=precision, batch=options.batch,
                 segment=options.segment, parameters=parameters(model),
                 tokens_per_second=round(work / statistics.median(seconds[name])),
                 **ratios(seconds, name))


def ratios(seconds: dict[str, list[float]], name: str) -> dict[str, Any]:
    """How many times as fast as each Transformer: median, lowest and highest of the rounds."""
    rows: dict[str, Any] = {}
    for peer in ("transformer_lm", "modern"):
        rounds = [b / a for a, b in zip(seconds[name], seconds[peer])]
        rows[f"ratio_to_{peer}"] = median_ratio(seconds[name], seconds[peer])
        rows[f"spread_to_{peer}"] = [round(min(rounds), 2), round(max(rounds), 2)]
    return rows


if __name__ == "__main__":
    main()
