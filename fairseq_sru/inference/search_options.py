"""How the engine searches."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

from fairseq_sru.ranges import check_ranges


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
        check_ranges(**{
            field.name: getattr(self, field.name) for field in fields(self)
            if field.default is not None or getattr(self, field.name) is not None})
        if self.nbest > self.beam:
            raise ValueError(f"nbest must be from 1 to the beam, {self.beam}, got {self.nbest}")
        if not self.sampling and (self.sampling_topk, self.sampling_topp) != (None, None):
            raise ValueError("sampling_topk and sampling_topp must be None without sampling")
        if self.no_repeat_ngram_size == 1:
            raise ValueError("no_repeat_ngram_size must be 0 or at least 2, got 1")
        if not self.match_source_len and self.max_len_a == 0 and self.longest(0) < self.min_len:
            raise ValueError(f"min_len must be at most the {self.longest(0)} tokens of max_len_b "
                             f"and max_len, got {self.min_len}")

    def longest(self, source: int) -> int:
        """Most tokens of a hypothesis, without the end, for ``source`` tokens."""
        if self.match_source_len:
            return source
        longest = min(int(self.max_len_a * source + self.max_len_b), sys.maxsize)
        return longest if self.max_len is None else min(longest, self.max_len - 1)
