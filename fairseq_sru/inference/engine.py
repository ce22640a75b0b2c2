"""Translation and text generation by the search in C++."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple, Sequence

import torch
from torch import Tensor

from fairseq_sru.errors import UsageError
from fairseq_sru.inference.encoder import Encoder
from fairseq_sru.inference.weights import ModelWeights
from fairseq_sru.ops.extension import BUILD_IT, COMPILED, uncompiled
from fairseq_sru.ranges import RANGES, check_ranges

_ENCODER_TOKENS = 384  # encoded together: more of them leave the caches


class Hypothesis(NamedTuple):
    """A translation, or a text."""

    tokens: Tensor  # (T,) with the end of the sentence
    score: float  # log-probability, divided by T**length_penalty unless unnormalised
    token_scores: Tensor  # (T,): log-probability of each token
    alignment: Tensor | None  # (T, S): attention to the source, heads averaged


@dataclass(frozen=True)
class GenerationOptions:
    """How to search; names and meaning are those of fairseq-generate.

    Attributes:
        beam: hypotheses of a sentence; 1 is greedy. With ``sampling`` so many samples are drawn.
        nbest: how many of them to return, the best first.
        max_len_a, max_len_b: a hypothesis has at most a * S + b tokens, S those of its source.
        max_len: and never more than this, end included; None: no limit.
        match_source_len: at most S tokens instead.
        sampling_topk, sampling_topp: draw from the most probable so many tokens, or from the fewest
            that together have this probability; None: from all.
        seed: equal seeds give equal samples to a sentence in the same place of the list.
        align: also return alignments.
        bos: the token before the first one; None: the end of the sentence.
        max_rows: hypotheses of all sentences that are decoded together; those of one always are.
    """

    beam: int = 5
    nbest: int = 1
    max_len_a: float = 0.0
    max_len_b: int = 200
    max_len: int | None = None
    match_source_len: bool = False
    min_len: int = 1
    lenpen: float = 1.0
    unkpen: float = 0.0
    unnormalized: bool = False
    temperature: float = 1.0
    no_repeat_ngram_size: int = 0
    sampling: bool = False
    sampling_topk: int | None = None
    sampling_topp: float | None = None
    seed: int = 1
    align: bool = False
    bos: int | None = None
    max_rows: int = 320

    def __post_init__(self) -> None:
        """Raises ValueError for an impossible value, NaN among them."""
        check_ranges(**{name: value for name, value in vars(self).items() if name in RANGES})
        if self.nbest > self.beam:
            raise ValueError(f"nbest must be from 1 to the beam, {self.beam}, got {self.nbest}")
        if not self.sampling and (self.sampling_topk, self.sampling_topp) != (None, None):
            raise ValueError("sampling_topk and sampling_topp must be None without sampling")

    def longest(self, source: int) -> int:
        """Most tokens of a hypothesis, without the end, for ``source`` tokens."""
        if self.match_source_len:
            return source
        longest = int(self.max_len_a * source + self.max_len_b)
        return longest if self.max_len is None else min(longest, self.max_len - 1)


class Engine:
    """A model that is ready to generate. Threads may share it.

    Args:
        weights: of :func:`fairseq_sru.inference.read_model`.
        isa: see :class:`fairseq_sru.inference.packed.PackedLinear`.

    Raises:
        UsageError: there is no fairseq_sru_ext.
    """

    def __init__(self, weights: ModelWeights, isa: str = "") -> None:
        if not COMPILED:
            raise UsageError(f"{uncompiled()}, which the engine needs: {BUILD_IT}")
        self.config = weights.config
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
            ValueError: impossible options, or a language model.
        """
        if self._encoder is None:
            raise ValueError("a language model does not translate; use generate")
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
            ValueError: impossible options, or a translation model.
        """
        if self._encoder is not None:
            raise ValueError("a translation model needs sources; use translate")
        nothing = [torch.zeros(0, 0)] * len(prompts)
        return self._search(range(len(prompts)), nothing, prompts, options)

    def _search(
        self,
        ids: Sequence[int],
        encoded: Sequence[Tensor],
        prefixes: Sequence[Tensor],
        options: GenerationOptions | None,
    ) -> list[list[Hypothesis]]:
        options = GenerationOptions() if options is None else options
        config = self.config
        lengths = torch.tensor([len(x) for x in encoded], dtype=torch.long)
        prefix_lengths = torch.tensor([len(x) for x in prefixes], dtype=torch.long)
        basis = lengths if self._encoder is not None else prefix_lengths
        size = self._decoder.source_size()
        source = torch.cat([x.reshape(-1, size) for x in encoded] or [torch.zeros(0, size)])
        found = torch.ops.fairseq_sru.search(
            self._decoder,
            source,
            torch.tensor(ids, dtype=torch.long),
            lengths,
            torch.tensor([options.longest(n) for n in basis.tolist()], dtype=torch.long),
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
