"""The CUDA kernels on an emulated GPU: right, free of races and of memory errors; what is planted
there is found. Needs g++ and CUDA's headers, neither nvcc nor a GPU."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EMULATOR = ROOT / "tests" / "emulator"
TOOLKITS = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")), Path("/usr/local/cuda")]
HEADERS = next((path / "include" for path in TOOLKITS
                if (path / "include" / "cuda_bf16.h").exists()), None)
# float64; float32 in chunks of 16 bytes, small too, and of 4; both 16-bit types in pairs, small
# too, and single in chunks of 16, 4 and 2; three types by two warps; forward and backward, with and
# without padding
KINDS = (1 + 3 + 2 * 5 + 3) * 2 * 2
FAULTS = {"no barrier": 1, "waits for one group too few": 2, "commits nothing": 3,
          "only its own vote": 4, "no barrier between warps": 5}
MUTANTS = {
    "copies into the slot being read": (
        "recurrence_cuda.cuh", "lane.take();\n      fetch(i + kGroups - 1);",
        "lane.take();\n      fetch(i + kGroups);"),
    "the small kernel copies before it has read": (
        "recurrence_cuda.cuh", "read(i);\n      fetch(i + kGroups - 1);",
        "fetch(i + kGroups - 1);\n      read(i);"),
    "the pair copies into the slot of which outputs are made": (
        "forward_pair.cuh", "kAhead = Ring::kGroups - 2", "kAhead = Ring::kGroups - 1"),
    "the pair waits for one group too few": (
        "forward_pair.cuh", "wait_for_copies<kAhead - 2>", "wait_for_copies<kAhead - 1>"),
    "the pair's outputs are made of the next group's states": (
        "forward_pair.cuh", "const S(&states)[kGroup + 1][kLanes] = states_[i % 2];",
        "const S(&states)[kGroup + 1][kLanes] = states_[(i + 1) % 2];"),
    "sums of one warp of the pair only": (
        "recurrence_cuda_backward.cu", "lane.receive_sums(sums);", ""),
    "alignment of addresses ignored": ("recurrence_cuda.cuh", " && address % bytes == 0", ""),
    "state copied at every step": ("recurrence_cuda_backward.cu", "copy.others = 0;", ""),
    "highway rows not cleared": (
        "forward_lane.cuh",
        "channels.clear_highway(a, ring, kStep, 3 * kRow, kGroups * kGroup);", ""),
}

pytestmark = [
    pytest.mark.command,
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ not found"),
    pytest.mark.skipif(HEADERS is None, reason="CUDA's headers not found"),
]


def build(folder: Path, *flags: str, kernels: Path = ROOT / "csrc", lanes: str = "fibers") -> Path:
    program = folder / "emulator"
    sources = [EMULATOR / f"{name}.cpp" for name in ("main", "emulator", lanes)]
    command = ["g++", "-std=c++20", "-O1", "-g", "-w", "-DSRU_EMULATED", *flags]
    command += [f"-I{path}" for path in (kernels, EMULATOR, HEADERS)]
    result = subprocess.run([*command, *sources, "-o", program, "-pthread"], capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stderr
    return program


def emulate(
    program: Path, cases: int, seed: int = 1, fault: int = 0
) -> subprocess.CompletedProcess:
    command = [program, *map(str, (cases, seed, fault))]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def finds_nothing(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    assert not re.search("runtime error|ERROR|WARNING: Thread", result.stderr), result.stderr
    assert ", 0 wrong values" in result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("emulator"))


def test_kernels_agree_with_the_loop(program):
    """All sizes, options, alignments, orders of lanes, moments at which copies arrive."""
    assert f"{KINDS} kinds" in finds_nothing(emulate(program, 1500))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_warp_is_found(program, fault):
    result = emulate(program, 40, fault=FAULTS[fault])
    assert result.returncode == 1 and " is " in result.stdout


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_fault_of_the_kernels_is_found(mutant, tmp_path):
    """By a wrong value, a copy that the emulator refuses, or a crash."""
    name, right, planted = MUTANTS[mutant]
    kernels = Path(shutil.copytree(ROOT / "csrc", tmp_path / "csrc"))
    source = (kernels / name).read_text()
    assert source.count(right) == 1
    (kernels / name).write_text(source.replace(right, planted))
    result = emulate(build(tmp_path, "-O0", kernels=kernels), 200)
    assert result.returncode == -signal.SIGSEGV or (
        result.returncode == 1 and " is " in result.stdout
        or result.returncode == 2 and "emulator: " in result.stderr
    ), result


def test_memory_and_undefined_behaviour(tmp_path):
    finds_nothing(emulate(build(tmp_path, "-O0", "-fsanitize=address,undefined"), 80))


def test_lanes_do_not_race(tmp_path):
    """Lanes as threads, under the sanitizer of threads."""
    finds_nothing(emulate(build(tmp_path, "-fsanitize=thread", lanes="threads"), 20, seed=5))
