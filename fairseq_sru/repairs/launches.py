"""Several processes: training on CPUs that torchrun started, a shard of a test set."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from fairseq.distributed import utils as distributed_utils
from omegaconf import open_dict

from fairseq_sru.errors import UsageError
from fairseq_sru.repairs.patching import replace

logger = logging.getLogger(__name__)

TORCHRUN = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")


def apply() -> None:
    """Let training take part in what torchrun has started."""
    join_torchrun()


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
