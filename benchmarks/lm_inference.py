"""Tokens per second of a language model that writes a text, one token at a time, batch of one.

After table 7 of the SRU++ paper: SRU++ with attention in every layer and in every 5th, beside
fairseq's transformer_lm of equal size, each token seeing itself and the --context tokens before.
Ours does so with generation_context. fairseq's cache has no bound: after each token the oldest
key and value of each layer are cut off, which copies nothing (fairseq itself copies its whole
cache at every token, and that stays). Every model has --context tokens behind it when the clock
starts, and the likeliest token is fed back.

Prints a JSON line per model: tokens per second (median over rounds), its ratio to the
Transformer's, the number of parameters, and the megabytes of its state.

    python benchmarks/lm_inference.py --size srupp_lm_enwik8_small --context 3072
"""

from __future__ import annotations

import statistics

import torch
from lm import build_ours, build_peer, every_fifth
from measuring import emit, make_parser, median_ratio, parameters, parse, taking_turns

from fairseq_sru.models.lm_config import SRUPP_PRESETS


class Writer:
    """An SRU++ model that writes on and on. ``text`` (1, tokens) is what it has written."""

    def __init__(self, model: torch.nn.Module, device: str, context: int) -> None:
        self.model = model
        self.context = context
        model.decoder.generation_context = context
        self.text = torch.full((1, 1), 4, device=device)
        self.state: dict = {}

    @torch.no_grad()
    def write(self, tokens: int) -> None:
        for _ in range(tokens):
            output = self.model.decoder(self.text, incremental_state=self.state)
            scores = self.model.get_normalized_probs((output[0][:, -1:], None), log_probs=True)
            self.text = torch.cat([self.text, scores.argmax(-1)], 1)
            self.trim()

    def trim(self) -> None:
        """Forget what is beyond the context; SRU++ has done so already."""

    def state_bytes(self) -> int:
        (decoding,) = self.state.values()
        caches = [cache.values for cache in decoding.caches if cache is not None]
        return sum(t.numel() * t.element_size() for t in [*decoding.cells, *caches])


class TransformerWriter(Writer):
    """fairseq's Transformer; the next token and ``context`` before it are what it sees."""

    def trim(self) -> None:
        for saved in self.state.values():
            for name in ("prev_key", "prev_value"):  # (1, heads, tokens, head size)
                saved[name] = saved[name][:, :, -self.context:]

    def state_bytes(self) -> int:
        return sum(saved[name].numel() * saved[name].element_size()
                   for saved in self.state.values() for name in ("prev_key", "prev_value"))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--size", default="srupp_lm_bytes", choices=sorted(SRUPP_PRESETS))
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=200, help="per round")
    parser.add_argument("--precision", default="float32")
    options = parse(parser)

    types, context = SRUPP_PRESETS[options.size].types, options.context
    length = context + (options.rounds + 1) * options.tokens + 2
    models = {
        options.size: build_ours(options.size, types),
        f"{options.size}, every:5": every_fifth(options.size, types),
        "transformer_lm": build_peer(options.size, types, length),
    }
    writers = {}
    for name, model in models.items():
        model = model.to(options.device, getattr(torch, options.precision)).eval()
        kind = TransformerWriter if name == "transformer_lm" else Writer
        writers[name] = kind(model, options.device, context)
        writers[name].write(context)
    seconds = taking_turns(
        {name: lambda writer=writer: writer.write(options.tokens)
         for name, writer in writers.items()}, options)
    for name, model in models.items():
        emit(options, model=name, precision=options.precision, context=context,
             parameters=parameters(model),
             tokens_per_second=round(options.tokens / statistics.median(seconds[name])),
             ratio_to_transformer_lm=median_ratio(seconds[name], seconds["transformer_lm"]),
             state_mb=round(writers[name].state_bytes() / 1e6, 3))


if __name__ == "__main__":
    main()
