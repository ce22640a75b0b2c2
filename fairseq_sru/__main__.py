"""``python -m fairseq_sru``: versions, backends and architectures, to paste into a bug report."""

from __future__ import annotations

import platform
import sys
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Iterator

import torch

from fairseq_sru import __version__
from fairseq_sru.ops.recurrence import COMPILED

TYPES = 10_500  # of each dictionary: about 21k on both sides, as in the SRU++ paper's IWSLT'14


def main() -> None:
    for line in (*versions(), "", *backends(), "", *architectures()):
        print(line)


def versions() -> Iterator[str]:
    """Lines of a markdown table."""
    yield "| software | version |"
    yield "|---|---|"
    yield f"| fairseq_sru | {__version__} |"
    for package in ("fairseq", "fairseq-fixed", "torch", "numpy", "omegaconf", "sacrebleu"):
        try:
            yield f"| {package} | {version(package)} |"
        except PackageNotFoundError:
            continue
    yield f"| CUDA of torch | {torch.version.cuda or 'none'} |"
    yield f"| Python | {platform.python_version()}, {platform.platform()} |"
    if hasattr(sys.modules.get("fairseq_sru_ext"), "compiler"):
        yield f"| compiler of fairseq_sru_ext | {sys.modules['fairseq_sru_ext'].compiler} |"


def backends() -> Iterator[str]:
    """Lines of a markdown table: what computes the recurrence on each device of this machine."""
    yield "| device | recurrence |"
    yield "|---|---|"
    cpu = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    yield f"| CPU, {cpu} | {_backend('CPU')} |"
    for index in range(torch.cuda.device_count()):
        yield f"| {torch.cuda.get_device_name(index)} | {_backend('CUDA')} |"


def _backend(device: str) -> str:
    if not COMPILED:
        return "Python loop: fairseq_sru_ext is not built"
    if torch._C._dispatch_has_kernel_for_dispatch_key("fairseq_sru::recurrence", device):
        return "compiled"
    return f"none: fairseq_sru_ext was built without {device}"


def architectures() -> Iterator[str]:
    """Lines of a markdown table: the registered architectures and their sizes."""
    try:
        from fairseq.data import Dictionary
        from fairseq.models import (
            ARCH_CONFIG_REGISTRY,
            ARCH_MODEL_NAME_REGISTRY,
            ARCH_MODEL_REGISTRY,
            MODEL_DATACLASS_REGISTRY,
        )
    except ModuleNotFoundError as error:
        if error.name != "fairseq":
            raise
        yield "fairseq is not installed: no architectures"
        return

    dictionary = Dictionary()
    for number in range(TYPES - len(dictionary)):
        dictionary.add_symbol(str(number))
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    yield f"| --arch | parameters with {TYPES:,} types a side |"
    yield "|---|---|"
    for arch, model in sorted(ARCH_MODEL_REGISTRY.items()):
        if not model.__module__.startswith("fairseq_sru."):
            continue
        options = Namespace()
        ARCH_CONFIG_REGISTRY[arch](options)
        config = MODEL_DATACLASS_REGISTRY[ARCH_MODEL_NAME_REGISTRY[arch]].from_namespace(options)
        with torch.device("meta"):
            size = sum(p.numel() for p in model.build_model(config, task).parameters())
        yield f"| {arch} | {size:,} |"


if __name__ == "__main__":
    main()
