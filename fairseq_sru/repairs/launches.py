"""Several processes: training on CPUs, by torchrun or each by hand; a shard of a test set; and what
cannot be done in parts."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from fairseq.distributed import utils as distributed_utils
from fairseq.tasks import FairseqTask
from omegaconf import open_dict

from fairseq_sru.errors import UsageError
from fairseq_sru.repairs.patching import replace

logger = logging.getLogger(__name__)

CPU_LAUNCH = (
    "--cpu --distributed-world-size {} --distributed-rank RANK --distributed-no-spawn "
    "--distributed-backend gloo --distributed-init-method tcp://localhost:PORT "
    "--ddp-backend legacy_ddp --load-checkpoint-on-all-dp-ranks"
)
TORCHRUN = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")


def apply() -> None:
    """Let training take part in what torchrun has started, and refuse shards without a batch."""
    join_torchrun()
    refuse_empty_shards()


def started_by_torchrun() -> bool:
    """Whether this is one of several processes."""
    return all(name in os.environ for name in TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def join_torchrun() -> None:
    """On CPUs fairseq does not see torchrun, and each process trains a model of its own."""

    @replace(distributed_utils, "call_main")
    def call_main(original, cfg, main, **kwargs):
        cpu = cfg.common.cpu or not torch.cuda.is_available()
        trains = cfg.common_eval.path is None
        if cpu and trains and started_by_torchrun():
            options = cfg.distributed_training
            with open_dict(options):
                options.distributed_world_size = int(os.environ["WORLD_SIZE"])
                options.distributed_rank = int(os.environ["RANK"])
                options.distributed_init_method = "env://"
                options.distributed_backend = "gloo"
                options.distributed_no_spawn = True
                options.ddp_backend = "legacy_ddp"
                cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
            logger.info(f"process {options.distributed_rank} of {options.distributed_world_size}, "
                        "gloo, legacy_ddp")
        return original(cfg, main, **kwargs)


def take_shard(args: Any) -> None:
    """Let fairseq-generate translate the share that --num-shards and --shard-id name, which it
    ignores.

    Raises:
        UsageError: there is no such shard.
    """
    shards, shard = getattr(args, "num_shards", 1), getattr(args, "shard_id", 0)
    if not 0 <= shard < max(shards, 1):
        raise UsageError(f"--shard-id must be from 0 to {shards - 1} (--num-shards {shards}), "
                         f"got {shard}")
    if shards > 1:
        args.distributed_world_size, args.distributed_rank = shards, shard
        logger.warning(f"shard {shard} of {shards}: scores at the end are those of its sentences")


def refuse_empty_shards() -> None:
    """fairseq-generate divides by zero seconds where a shard has no batch."""

    @replace(FairseqTask, "get_batch_iterator")
    def get_batch_iterator(original, self, *args, num_shards=1, shard_id=0, **kwargs):
        batches = original(self, *args, num_shards=num_shards, shard_id=shard_id, **kwargs)
        trains = torch.distributed.is_initialized()
        if num_shards > 1 and not trains and shard_id >= len(batches.frozen_batches):
            raise UsageError(f"--shard-id {shard_id} has nothing to translate: there are only "
                             f"{len(batches.frozen_batches)} batches; lower --num-shards, or "
                             "--max-tokens or --batch-size")
        return batches


def require_working_launch(args: Any) -> None:
    """Raises UsageError for launches of several CPU processes that train nothing, or apart.

    Without a GPU fairseq spawns as many processes as there are GPUs, none, and exits with 0.
    """
    if torch.cuda.is_available() or not hasattr(args, "distributed_world_size"):
        return
    if hasattr(args, "path"):  # evaluates, see require_whole_evaluation
        return
    if started_by_torchrun():  # see join_torchrun
        return
    asked = args.distributed_world_size
    works = (
        args.distributed_no_spawn
        and args.distributed_init_method is not None
        and args.distributed_backend == "gloo"
    )
    if asked > 1 and not works:
        raise UsageError(f"{asked} processes without a GPU: start them by "
                         f"torchrun --nproc-per-node {asked}, or each of them with "
                         + CPU_LAUNCH.format(asked))


def require_whole_evaluation(args: Any) -> None:
    """Raises UsageError where fairseq-eval-lm, -generate and -validate would report the figures of
    a part of the data as those of the whole, or each process those of the whole."""
    if not hasattr(args, "path") or not hasattr(args, "distributed_world_size"):
        return
    processes = max(args.distributed_world_size, int(os.environ.get("WORLD_SIZE", 1)))
    shards = getattr(args, "num_shards", 1)
    if hasattr(args, "beam") and not hasattr(args, "buffer_size") and processes == 1:
        return take_shard(args)
    validates = not hasattr(args, "beam") and not hasattr(args, "context_window")
    if validates and torch.cuda.is_available():  # sums up what its processes find
        processes = 1
    if max(processes, shards) > 1:
        raise UsageError(_parts(max(processes, shards)))


def _parts(number: int) -> str:
    return (f"{number} processes or shards would each report figures of their own as those of the "
            "whole data: leave out --distributed-world-size and --num-shards")


def require_one_shard(shards: int) -> None:
    """Raises UsageError if a language model would be evaluated on one of several parts."""
    if shards > 1:
        raise UsageError(_parts(shards))
