"""``python -m fairseq_sru``: the user dir, versions, backends and architectures, for bug reports.

``python -m fairseq_sru --user-dir`` prints the folder alone, for scripts.
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Iterator

import torch

from fairseq_sru import __version__, register
from fairseq_sru.ops.backend import described

USER_DIR = Path(__file__).parent
FAIRSEQS = ("fairseq", "fairseq-fixed", "ve-fairseq")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fairseq_sru", description=__doc__)
    parser.add_argument("--user-dir", action="store_true", help="print the folder alone")
    if parser.parse_args().user_dir:
        print(USER_DIR)
        return
    for line in (*versions(), "", *backends(), "", *architectures()):
        print(line)


def versions() -> Iterator[str]:
    """Lines of a markdown table."""
    yield "| software | version |"
    yield "|---|---|"
    yield f"| fairseq_sru | {__version__} |"
    yield f"| --user-dir | {USER_DIR} |"
    yield f"| torch | {torch.__version__} |"
    for package in (*FAIRSEQS, "numpy", "omegaconf", "sacrebleu"):
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
    yield f"| CPU, {cpu} | {described('cpu')} |"
    for index in range(torch.cuda.device_count()):
        yield f"| {torch.cuda.get_device_name(index)} | {described('cuda')} |"


def architectures() -> Iterator[str]:
    """Lines of a markdown table: the registered architectures and their sizes."""
    try:
        register()
    except ModuleNotFoundError as error:
        if error.name != "fairseq":
            raise
        yield "fairseq is not installed: no architectures"
        return
    from fairseq import models, options

    from fairseq_sru.registry import ARCHITECTURES

    yield "| --arch | types a side | parameters |"
    yield "|---|---|---|"
    for arch, preset in sorted(ARCHITECTURES.items()):
        config = options.parse_args_and_arch(
            options.get_training_parser(), ["data", "--arch", arch])
        name = models.ARCH_MODEL_NAME_REGISTRY[arch]
        if name in models.MODEL_DATACLASS_REGISTRY:
            config = models.MODEL_DATACLASS_REGISTRY[name].from_namespace(config)
        with torch.device("meta"):
            model = models.ARCH_MODEL_REGISTRY[arch].build_model(config, _task(preset.types))
        count = sum(p.numel() for p in model.parameters())
        yield f"| {arch} | {preset.types:,} | {count:,} |"


def _task(types: int) -> SimpleNamespace:
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for number in range(types - len(dictionary)):
        dictionary.add_symbol(str(number))
    return SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)


if __name__ == "__main__":
    main()
