"""``python -m fairseq_sru.average_checkpoints``: the mean of several checkpoints' parameters."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any, Mapping

import torch
from torch import Tensor

from fairseq_sru import repairs
from fairseq_sru.checkpoints import read_checkpoint
from fairseq_sru.errors import UsageError
from fairseq_sru.files import save_tensors
from fairseq_sru.repairs.checkpoints import DICTIONARIES


def main() -> None:
    repairs.apply()
    args = _parser().parse_args()
    paths = find_checkpoints(args.inputs, args.num_epoch_checkpoints, args.num_update_checkpoints)
    if any(Path(path).resolve() == Path(args.output).resolve() for path in paths):
        raise UsageError(f"--output {args.output} is one of the checkpoints to average")
    save_tensors(average(paths), Path(args.output))
    print(f"{args.output}: mean of {', '.join(paths)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_sru.average_checkpoints",
        description="Average the parameters of checkpoints of one model.",
    )
    parser.add_argument("--inputs", nargs="+", required=True, metavar="PATH",
                        help="checkpoints, or one folder of checkpoints")
    parser.add_argument("--output", required=True, metavar="FILE", help="the averaged checkpoint")
    last = parser.add_mutually_exclusive_group()
    last.add_argument("--num-epoch-checkpoints", type=int, metavar="N",
                      help="the last N checkpointE.pt of the folder")
    last.add_argument("--num-update-checkpoints", type=int, metavar="N",
                      help="the last N checkpoint_E_U.pt of the folder")
    return parser


def find_checkpoints(
    inputs: list[str], epochs: int | None = None, updates: int | None = None
) -> list[str]:
    """``inputs`` themselves, or the last checkpoints of the one folder they name, newest first.

    Raises:
        UsageError: a folder where files are wanted or the reverse, or too few checkpoints.
    """
    wanted = epochs if updates is None else updates
    if wanted is None:
        folders = [path for path in inputs if os.path.isdir(path)]
        if folders:
            raise UsageError(f"{folders[0]} is a folder: add --num-epoch-checkpoints N or "
                             "--num-update-checkpoints N")
        return inputs
    if len(inputs) != 1 or not os.path.isdir(inputs[0]):
        raise UsageError("--num-epoch-checkpoints and --num-update-checkpoints need --inputs to "
                         "be one existing folder")
    pattern = r"checkpoint(\d+)\.pt" if updates is None else r"checkpoint_\d+_(\d+)\.pt"
    matches = [re.fullmatch(pattern, name) for name in os.listdir(inputs[0])]
    found = sorted((match for match in matches if match), key=lambda m: int(m[1]), reverse=True)
    if not 1 <= wanted <= len(found):
        kind = "checkpointE.pt" if updates is None else "checkpoint_E_U.pt"
        raise UsageError(f"{inputs[0]} has {len(found)} files {kind}, cannot average {wanted}")
    return [os.path.join(inputs[0], match[0]) for match in found[:wanted]]


def average(paths: list[str]) -> dict[str, Any]:
    """The first checkpoint without its optimizer state, its parameters the mean over ``paths``.

    Sums are float64, so the order of ``paths`` does not matter; each parameter keeps its type.

    Raises:
        UsageError: a checkpoint is missing or damaged or has parameters that are no numbers, or
            they are not of one model.
    """
    result = read_checkpoint(paths[0], check_sums=True)
    result.pop("last_optimizer_state", None)
    first, origin = result["model"], _origin(result)
    _require_numbers(first, paths[0])
    sums = {
        name: value.to(torch.float64, copy=True)
        for name, value in first.items()
        if value.is_floating_point()
    }
    for path in paths[1:]:
        state = read_checkpoint(path, check_sums=True)
        model = state["model"]
        _require_numbers(model, path)
        for name, value in _origin(state).items():
            if origin.get(name, value) != value:
                raise UsageError(f"{paths[0]} and {path} are not of one model: {name} differs")
        for name in sorted(first.keys() | model.keys()):
            one, other = _describe(first.get(name)), _describe(model.get(name))
            if one != other:
                raise UsageError(f"{paths[0]} and {path} are not of one model: {name} is {one} "
                                 f"and {other}")
        for name, total in sums.items():
            total += model[name]
    result["model"] = {
        name: (sums[name] / len(paths)).to(value.dtype) if name in sums else value
        for name, value in first.items()
    }
    return result


def _origin(state: dict[str, Any]) -> dict[str, Any]:
    """Dictionaries, and options that parameters do not tell; a training may change its dropout."""
    model = (state.get("cfg") or {}).get("model")
    options = {name: value for name, value in model.items()
               if not re.search("dropout|path", name)} if isinstance(model, Mapping) else {}
    task = state.get("task_state") or {}
    return {**options, **{name: value for name, value in task.items() if name == DICTIONARIES}}


def _describe(value: Tensor | None) -> str:
    """What has to be the same in all checkpoints; their precision need not."""
    if value is None:
        return "missing"
    kind = "numbers" if value.is_floating_point() else str(value.dtype).partition(".")[2]
    return f"{tuple(value.shape)} {kind}"


def _require_numbers(model: dict[str, Tensor], path: str) -> None:
    for name, value in model.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UsageError(f"{path} holds NaN or infinity in {name}: the training diverged, "
                             "average checkpoints from before")


if __name__ == "__main__":
    main()
