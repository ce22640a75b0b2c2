"""Translation and text generation by the search in C++."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Sequence

import torch
from torch import Tensor

from fairseq_sru.errors import UsageError
from fairseq_sru.inference.encoder import Encoder
from fairseq_sru.inference.search_options import GenerationOptions
from fairseq_sru.inference.weights import ModelWeights
from fairseq_sru.ops.extension import BUILD_IT, COMPILED, uncompiled

_ENCODER_TOKENS = 384  # encoded together: more of them leave the caches


class Hypothesis(NamedTuple):
    """A translation, or a text."""

    tokens: Tensor  # (T,) with the end of the sentence
    score: float  # log-probability, divided by T**length_penalty unless unnormalised
    token_scores: Tensor  # (T,): log-probability of each token
    alignment: Tensor | None  # (T, S): attention to the source, heads averaged


class Engine:
    """A model that is ready to generate. Threads may share it.

    Args:
        weights: of :func:`fairseq_sru.inference.read_model`.
        isa: see :class:`fairseq_sru.inference.packed.PackedLinear`.

    Raises:
        UsageError: there is no fairseq_sru_ext.
        ValueError, TypeError: the weights do not fit each other.
    """

    def __init__(self, weights: ModelWeights, isa: str = "") -> None:
        if not COMPILED:
            raise UsageError(f"{uncompiled()}, which the engine needs: {BUILD_IT}")
        self.config = weights.config
        _check_config(weights)
        chosen = isa or torch.ops.fairseq_sru.packed_isas(torch.int8)[0]
        if self.config["precision"] == "int8" and chosen == "portable":
            warnings.warn("without AVX2 int8 saves memory, but no time", stacklevel=2)
        self._encoder: Encoder | None = None
        if "encoder" in self.config:
            self._encoder = Encoder(self.config["encoder"], weights.part("encoder"), isa)
        options = {name: float(value) for name, value in self.config["decoder"].items()}
        self._decoder: Any = torch.classes.fairseq_sru.Decoder(
            weights.part("decoder"), options, isa)

    def translate(
        self,
        sources: Sequence[Tensor],
        options: GenerationOptions | None = None,
        prefixes: Sequence[Tensor] | None = None,
    ) -> list[list[Hypothesis]]:
        """Translate sentences.

        Args:
            sources: token numbers (S,) of each, the end of the sentence included.
            prefixes: what the translation of each has to begin with, (P,).

        Returns:
            the best hypotheses of each sentence, at most ``options.nbest``.

        Raises:
            ValueError: impossible options, tokens that do not exist, another number of prefixes
                than of sentences, or a language model.
        """
        if self._encoder is None:
            raise ValueError("a language model does not translate; use generate")
        _check_tokens("sources", sources, self.config["encoder"]["vocabulary"])
        if any(len(source) == 0 for source in sources):
            raise ValueError("a source must have a token at least, the end of the sentence")
        if prefixes is not None and len(prefixes) != len(sources):
            raise ValueError(f"prefixes must be one for each of the {len(sources)} sources, got "
                             f"{len(prefixes)}")
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        encoded: list[Tensor] = []
        for batch in _batches([len(sources[i]) for i in order]):
            encoded += self._encoder([sources[order[i]] for i in batch])
        if prefixes is None:
            prefixes = [torch.zeros(0, dtype=torch.long)] * len(sources)
        found = self._search(order, encoded, [prefixes[i] for i in order], options)
        hypotheses: list[list[Hypothesis]] = [[] for _ in sources]
        for i, hypothesis in zip(order, found):
            hypotheses[i] = hypothesis
        return hypotheses

    def generate(
        self, prompts: Sequence[Tensor], options: GenerationOptions | None = None
    ) -> list[list[Hypothesis]]:
        """Continue texts, by a language model.

        Args:
            prompts: token numbers (P,) of each, which hypotheses begin with; S of the options is P.

        Returns:
            the best hypotheses of each prompt, at most ``options.nbest``.

        Raises:
            ValueError: impossible options, tokens that do not exist, or a translation model.
        """
        if self._encoder is not None:
            raise ValueError("a translation model needs sources; use translate")
        nothing = [torch.zeros(0, 0)] * len(prompts)
        return self._search(range(len(prompts)), nothing, prompts, options)

    def check(self, options: GenerationOptions) -> None:
        """Raises UsageError for options that are not possible with this vocabulary."""
        size = self.config["vocabulary"]
        if options.beam >= size - 1:
            raise UsageError(f"beam must be at most {size - 2} with {size} tokens, got "
                             f"{options.beam}")
        if options.bos is not None and options.bos >= size:
            raise UsageError(f"bos must be below the {size} tokens, got {options.bos}")

    def _search(
        self,
        ids: Sequence[int],
        encoded: Sequence[Tensor],
        prefixes: Sequence[Tensor],
        options: GenerationOptions | None,
    ) -> list[list[Hypothesis]]:
        options = GenerationOptions() if options is None else options
        self.check(options)
        config = self.config
        _check_tokens("prefixes", prefixes, config["vocabulary"])
        lengths = torch.tensor([len(x) for x in encoded], dtype=torch.long)
        prefix_lengths = torch.tensor([len(x) for x in prefixes], dtype=torch.long)
        basis = lengths if self._encoder is not None else prefix_lengths
        longest = [options.longest(n) for n in basis.tolist()]
        if longest and options.min_len > min(longest):
            raise UsageError(f"min_len must be at most {min(longest)}, the most tokens for "
                             f"{int(basis.min())} of a source or prompt, got {options.min_len}")
        size = self._decoder.source_size()
        source = torch.cat([x.reshape(-1, size) for x in encoded] or [torch.zeros(0, size)])
        found = torch.ops.fairseq_sru.search(
            self._decoder,
            source,
            torch.tensor(ids, dtype=torch.long),
            lengths,
            torch.tensor(longest, dtype=torch.long),
            torch.cat([torch.zeros(0, dtype=torch.long), *prefixes]),
            prefix_lengths,
            beam=options.beam,
            min_length=options.min_len,
            no_repeat_ngram=options.no_repeat_ngram_size,
            length_penalty=options.lenpen,
            unk_penalty=options.unkpen,
            temperature=options.temperature,
            normalise=not options.unnormalized,
            align=options.align,
            pad=config["pad"],
            unk=config["unk"],
            eos=config["eos"],
            bos=config["eos"] if options.bos is None else options.bos,
            rows=max(options.max_rows, options.beam),
            sample=options.sampling,
            top_k=options.sampling_topk or 0,
            top_p=options.sampling_topp or 0.0,
            seed=options.seed,
        )
        return _split(found, lengths.tolist(), options)


def _check_config(weights: ModelWeights) -> None:
    """Raises ValueError or TypeError for sizes and numbers of tokens that are not the tensors'."""
    config, encoder = weights.config, weights.config.get("encoder", {})
    for part, size in ("decoder", config["vocabulary"]), ("encoder", encoder.get("vocabulary")):
        if size is not None and size != len(weights.tensors[f"{part}.embed_tokens.weight"]):
            raise ValueError(f"config: the {part} has another vocabulary than {size!r}")
    tokens = [config["pad"], config["unk"], config["eos"], encoder.get("pad", config["pad"])]
    if any(type(token) is not int or not 0 <= token < config["vocabulary"] for token in tokens):
        raise ValueError(f"config: pad, unk and eos must be tokens, got {tokens}")
    scale = encoder.get("embed_scale", 1.0)
    if not isinstance(scale, (int, float)):
        raise TypeError(f"config: embed_scale must be a number, got {scale!r}")


def _check_tokens(name: str, sentences: Sequence[Tensor], size: int) -> None:
    """Raises ValueError for what are no numbers of tokens."""
    for tokens in sentences:
        if tokens.dim() != 1 or tokens.is_floating_point() or tokens.is_complex():
            raise ValueError(f"{name} must be token numbers (length,), got {tokens.dtype} of shape "
                             f"{tuple(tokens.shape)}")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
            raise ValueError(f"{name} must be token numbers from 0 to {size - 1}, got "
                             f"{int(tokens.min())} to {int(tokens.max())}")


def _batches(lengths: Sequence[int]) -> list[range]:
    """Ranges of sentences, the longest first, whose padded tokens are few enough."""
    ranges, begin = [], 0
    while begin < len(lengths):
        end = min(len(lengths), begin + max(1, _ENCODER_TOKENS // max(1, lengths[begin])))
        ranges.append(range(begin, end))
        begin = end
    return ranges


def _split(
    found: tuple[Tensor, ...], source_lengths: Sequence[int], options: GenerationOptions
) -> list[list[Hypothesis]]:
    """What the search returns in a row, sentence by sentence."""
    counts, token_counts, tokens, token_scores, scores, alignments = found
    sizes = token_counts.tolist()
    pieces = zip(tokens.split(sizes), scores.tolist(), token_scores.split(sizes))
    result, taken = [], 0
    for count, length in zip(counts.tolist(), source_lengths):
        hypotheses = []
        for _ in range(count):
            own, score, own_scores = next(pieces)
            alignment = None
            if options.align:
                alignment = alignments[taken : taken + len(own) * length].view(len(own), length)
                taken += len(own) * length
            hypotheses.append(Hypothesis(own, score, own_scores, alignment))
        result.append(hypotheses[: options.nbest])
    return result
