"""``python -m fairseq_sru``: versions, backends and architectures, to paste into a bug report."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Iterator

import torch

from fairseq_sru import __version__
from fairseq_sru.ops.recurrence import COMPILED

# dictionary sizes by part of an architecture's name; "" is IWSLT'14 of the SRU++ paper, 21k in all
TYPES = {
    "enwik8": 208, "wiki103": 267_744, "billion_word": 793_472, "wikitext2": 33_280,
    "wmt_en_de": 32_000, "": 10_500,
}


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
        from fairseq import models, options
    except ModuleNotFoundError as error:
        if error.name != "fairseq":
            raise
        yield "fairseq is not installed: no architectures"
        return
    yield "| --arch | types a side | parameters |"
    yield "|---|---|---|"
    for arch, model in sorted(models.ARCH_MODEL_REGISTRY.items()):
        if model.__module__.startswith("fairseq_sru."):
            types = next((TYPES[name] for name in TYPES if name in arch), TYPES[""])
            config = options.parse_args_and_arch(
                options.get_training_parser(), ["data", "--arch", arch])
            name = models.ARCH_MODEL_NAME_REGISTRY[arch]
            if name in models.MODEL_DATACLASS_REGISTRY:
                config = models.MODEL_DATACLASS_REGISTRY[name].from_namespace(config)
            with torch.device("meta"):
                parameters = model.build_model(config, _task(types)).parameters()
            yield f"| {arch} | {types:,} | {sum(p.numel() for p in parameters):,} |"


def _task(types: int) -> SimpleNamespace:
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for number in range(types - len(dictionary)):
        dictionary.add_symbol(str(number))
    return SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)


if __name__ == "__main__":
    main()
