"""The values that numbers may have, by the names that options have everywhere: one table for all
modules, models, tasks, optimizers, criterions and the search."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import Any, Callable, NamedTuple


class Range(NamedTuple):
    """A set of values.

    Attributes:
        description: completes "must be".
        holds: whether a number is among them.
        kind: of number. A bool is none, nor is a tensor: it might want a gradient.
    """

    description: str
    holds: Callable[[Any], bool]
    kind: Any = Real

    def __contains__(self, value: object) -> bool:
        number = isinstance(value, self.kind) and not isinstance(value, bool)
        return number and self.holds(value)


_HUGE = 2.0**127  # the largest power of two of float32

SIZE = Range("a whole number, at least 1", lambda x: 1 <= x <= sys.maxsize, Integral)
COUNT = Range("a whole number, at least 0", lambda x: 0 <= x <= sys.maxsize, Integral)
PROBABILITY = Range("at least 0 and below 1", lambda x: 0 <= x < 1)
SHARE = Range("above 0 and at most 1", lambda x: 0 < x <= 1)
POSITIVE = Range("above 0 and finite", lambda x: 0 < x <= _HUGE)
NOT_NEGATIVE = Range("at least 0 and finite", lambda x: 0 <= x <= _HUGE)
FINITE = Range("a finite number", lambda x: -_HUGE <= x <= _HUGE)
EXPONENT = Range("from -80 to 80", lambda x: -80 <= x <= 80)  # float32 holds its exponential
RATES = Range(  # one, or one an epoch
    "at least 0 and finite",
    lambda rates: all(r in NOT_NEGATIVE for r in (rates if isinstance(rates, list) else [rates])),
    (Real, list))
BETAS = Range(
    "two numbers, at least 0 and below 1",
    lambda betas: len(betas) == 2 and all(b in PROBABILITY for b in betas), (list, tuple))

RANGES: dict[str, Range] = {
    # sizes
    **dict.fromkeys((
        "input_size", "hidden_size", "output_size", "proj_size", "num_layers", "num_heads",
        "layers", "encoder_layers", "decoder_layers", "embed_dim", "encoder_embed_dim",
        "decoder_embed_dim", "encoder_ffn_embed_dim", "decoder_ffn_embed_dim",
        "encoder_attention_heads", "decoder_attention_heads", "max_source_positions",
        "max_target_positions",
    ), SIZE),
    # layers and models
    **dict.fromkeys((
        "dropout", "attention_dropout", "activation_dropout", "recurrence_dropout", "sru_dropout",
        "embedding_dropout", "output_dropout",
    ), PROBABILITY),
    "alpha_init": FINITE,
    "forget_bias": EXPONENT,
    "highway_bias": EXPONENT,
    "adaptive_factor": POSITIVE,
    "rows": SIZE,
    # what attention sees
    **dict.fromkeys(("window", "train_context", "eval_context", "generation_context"), COUNT),
    # batches, and dynamic evaluation
    **dict.fromkeys((
        "batch_size", "batch_size_valid", "max_tokens", "max_tokens_valid", "tokens_per_sample",
        "eval_segment", "dynamic_batches",
    ), SIZE),
    "dynamic_lr": NOT_NEGATIVE,
    "dynamic_decay": NOT_NEGATIVE,
    "dynamic_epsilon": POSITIVE,
    # optimizer and criterions
    "lr": RATES,
    "radam_betas": BETAS,
    "radam_eps": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "label_smoothing": PROBABILITY,
    "ignore_prefix_size": COUNT,
    "r_drop_weight": NOT_NEGATIVE,
    "simcut_weight": NOT_NEGATIVE,
    "simcut_probability": PROBABILITY,
    # search
    **dict.fromkeys(("beam", "nbest", "max_len", "sampling_topk", "max_rows", "threads"), SIZE),
    **dict.fromkeys(("max_len_b", "min_len", "no_repeat_ngram_size", "bos"), COUNT),
    "max_len_a": NOT_NEGATIVE,
    "lenpen": FINITE,
    "unkpen": FINITE,
    "temperature": POSITIVE,
    "sampling_topp": SHARE,
    "seed": COUNT,
}


def check_ranges(**values: Any) -> None:
    """Look every value up in :data:`RANGES` by its name; None is no value.

    Raises:
        ValueError: a value outside, NaN among them.
    """
    for name, value in values.items():
        if value is not None and value not in RANGES[name]:
            raise ValueError(f"{name} must be {RANGES[name].description}, got {value!r}")
