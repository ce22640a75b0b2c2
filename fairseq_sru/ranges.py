"""The values that numbers and flags may have, by the names that options have everywhere: one table
for all modules, models, tasks, optimizers, criterions and the search."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import Any, Callable, NamedTuple


class Range(NamedTuple):
    """A set of values.

    Attributes:
        description: completes "must be".
        holds: whether a value of that kind is among them.
        kind: of number, or bool. A bool is no number, nor is a tensor: it might want a gradient.
    """

    description: str
    holds: Callable[[Any], bool]
    kind: Any = Real

    def __contains__(self, value: object) -> bool:
        fits = isinstance(value, self.kind) and isinstance(value, bool) == (self.kind is bool)
        return fits and self.holds(value)


_HUGE = 2.0**127  # the largest power of two of float32

SIZE = Range("a whole number, at least 1", lambda x: 1 <= x <= sys.maxsize, Integral)
COUNT = Range("a whole number, at least 0", lambda x: 0 <= x <= sys.maxsize, Integral)
PROBABILITY = Range("at least 0 and below 1", lambda x: 0 <= x < 1)
SHARE = Range("above 0 and at most 1", lambda x: 0 < x <= 1)
POSITIVE = Range("above 0 and finite", lambda x: 0 < x <= _HUGE)
NOT_NEGATIVE = Range("at least 0 and finite", lambda x: 0 <= x <= _HUGE)
FINITE = Range("a finite number", lambda x: -_HUGE <= x <= _HUGE)
TEMPERATURE = Range("at least 1e-30 and finite", lambda x: 1e-30 <= x <= _HUGE)  # scores over it
FLAG = Range("True or False", lambda x: True, bool)
EXPONENT = Range("from -80 to 80", lambda x: -80 <= x <= 80)  # float32 holds its exponential
OFF_OR_COUNT = Range("-1 or a whole number, at least 0", lambda x: -1 <= x <= sys.maxsize, Integral)
OFF_OR_SIZE = Range(
    "-1 or a whole number, at least 1", lambda x: x == -1 or 1 <= x <= sys.maxsize, Integral)
OFF_OR_NOT_NEGATIVE = Range(
    "-1 or at least 0 and finite", lambda x: x == -1 or 0 <= x <= _HUGE)
RATES = Range(  # one, or one an epoch
    "at least 0 and finite",
    lambda rates: rates != [] and all(
        r in NOT_NEGATIVE for r in (rates if isinstance(rates, list) else [rates])),
    (Real, list))
BETAS = Range(
    "two numbers, at least 0 and below 1",
    lambda betas: len(betas) == 2 and all(b in PROBABILITY for b in betas), (list, tuple))
SIZES = Range(  # one, or one an epoch
    "whole numbers, at least 1", lambda sizes: sizes and all(s in SIZE for s in sizes), list)
POSITIVES = Range(
    "two numbers above 0", lambda xs: len(xs) == 2 and all(x in POSITIVE for x in xs),
    (list, tuple))
PHASES = Range(
    "three numbers, at least 0, that add up to 1",
    lambda xs: len(xs) == 3 and all(x in NOT_NEGATIVE for x in xs) and abs(sum(xs) - 1) < 1e-6,
    (list, tuple))

RANGES: dict[str, Range] = {
    # sizes
    **dict.fromkeys((
        "input_size", "hidden_size", "output_size", "proj_size", "num_layers", "num_heads",
        "layers", "encoder_layers", "decoder_layers", "filter_width",
        "embed_dim", "encoder_embed_dim", "decoder_embed_dim",
        "encoder_ffn_embed_dim", "decoder_ffn_embed_dim",
        "encoder_attention_heads", "decoder_attention_heads", "max_source_positions",
        "max_target_positions",
    ), SIZE),
    # layers and models
    **dict.fromkeys((
        "dropout", "attention_dropout", "activation_dropout", "recurrence_dropout", "sru_dropout",
        "embedding_dropout", "output_dropout",
    ), PROBABILITY),
    **dict.fromkeys((
        "bidirectional", "batch_first", "project_input", "checkpoint_activations", "highway",
        "rescale", "weight_c", "tanh", "attention_norm",
    ), FLAG),
    "alpha_init": FINITE,
    "forget_bias": EXPONENT,
    "highway_bias": EXPONENT,
    "adaptive_factor": POSITIVE,
    "rows": SIZE,
    # what attention sees
    **dict.fromkeys(("causal", "projected", "need_weights"), FLAG),
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
    **dict.fromkeys(("match_source_len", "unnormalized", "sampling", "align"), FLAG),
    "max_len_a": NOT_NEGATIVE,
    "lenpen": FINITE,
    "unkpen": FINITE,
    "temperature": TEMPERATURE,
    "sampling_topp": SHARE,
    "seed": COUNT,
    # fairseq's own: processes, precision, data
    **dict.fromkeys((
        "log_interval", "all_gather_list_size", "model_parallel_size", "fp16_init_scale",
        "fp16_scale_window", "amp_init_scale", "amp_scale_window", "distributed_world_size",
        "distributed_num_procs", "nprocs_per_node", "bucket_cap_mb", "localsgd_frequency",
        "num_shards", "checkpoint_shard_count", "required_batch_size_multiple",
        "required_seq_len_multiple",
    ), SIZE),
    **dict.fromkeys((
        "empty_cache_freq", "amp_batch_retries", "distributed_rank", "device_id", "shard_id",
        "pipeline_chunks", "num_workers", "data_buffer_size", "num_batch_buckets", "curriculum",
        "buffer_size", "context_window", "init_token", "separator_token",
    ), COUNT),
    **dict.fromkeys((
        "fp16_scale_tolerance", "min_loss_scale", "threshold_loss_scale", "slowmo_momentum",
        "sentencepiece_alpha", "rdrop_alpha", "alignment_lambda",
    ), NOT_NEGATIVE),
    **dict.fromkeys((
        "upsample_primary", "output_dictionary_size", "num_classes",
    ), OFF_OR_SIZE),
    "distributed_port": OFF_OR_COUNT,
    "heartbeat_timeout": OFF_OR_COUNT,
    "softmax_batch": SIZE,
    # fairseq's own: when training validates, saves and ends
    **dict.fromkeys(("validate_interval", "save_interval", "ema_update_freq"), SIZE),
    **dict.fromkeys((
        "validate_interval_updates", "validate_after_updates", "save_interval_updates",
        "max_valid_steps", "max_epoch", "max_update", "ema_start_update", "warmup_iterations",
    ), COUNT),
    **dict.fromkeys((
        "keep_interval_updates", "keep_last_epochs", "keep_best_checkpoints", "patience",
    ), OFF_OR_COUNT),
    "keep_interval_updates_pattern": OFF_OR_SIZE,
    "stop_time_hours": NOT_NEGATIVE,
    "stop_min_lr": FINITE,
    "ema_decay": Range("from 0 to 1", lambda x: 0 <= x <= 1),
    # fairseq's own: optimizers
    "update_freq": SIZES,
    "clip_norm": NOT_NEGATIVE,
    **dict.fromkeys(("adam_betas", "adamax_betas", "lamb_betas"), BETAS),
    **dict.fromkeys((
        "adam_eps", "adamax_eps", "lamb_eps", "adadelta_eps", "clip_threshold", "block_lr",
    ), POSITIVE),
    **dict.fromkeys(("momentum", "block_momentum", "adadelta_rho", "beta1"), PROBABILITY),
    "adafactor_eps": POSITIVES,
    "decay_rate": FINITE,
    "global_sync_iter": SIZE,
    # and schedules of the learning rate
    **dict.fromkeys((
        "warmup_updates", "warmup_steps", "hold_steps", "decay_steps", "force_anneal",
        "lr_patience",
    ), COUNT),
    **dict.fromkeys((
        "min_lr", "end_learning_rate", "power", "lr_threshold", "init_lr_scale",
    ), NOT_NEGATIVE),
    **dict.fromkeys(("t_mult", "max_lr", "total_num_update", "final_lr_scale"), POSITIVE),
    **dict.fromkeys(("lr_shrink", "lr_decay"), SHARE),
    "warmup_init_lr": OFF_OR_NOT_NEGATIVE,
    "lr_period_updates": Range("-1 or above 0 and finite", lambda x: x == -1 or 0 < x <= _HUGE),
    "lr_deacy_period": SIZE,
    "phase_ratio": PHASES,
    # fairseq's own: search
    **dict.fromkeys((
        "beam_mt", "max_len_b_mt", "prefix_size", "iter_decode_max_iter",
    ), COUNT),
    "iter_decode_with_beam": SIZE,
    "max_len_a_mt": NOT_NEGATIVE,
    **dict.fromkeys((
        "lenpen_mt", "lm_weight", "diverse_beam_strength", "iter_decode_eos_penalty",
    ), FINITE),
    "diverse_beam_groups": OFF_OR_COUNT,
    "diversity_rate": OFF_OR_NOT_NEGATIVE,
}


def check_ranges(**values: Any) -> None:
    """Look every value up in :data:`RANGES` by its name.

    Raises:
        ValueError: a value outside, NaN and None among them.
    """
    for name, value in values.items():
        if value not in RANGES[name]:
            raise ValueError(f"{name} must be {RANGES[name].description}, got {value!r}")
