"""What the recurrence will take on a GPU that is not at hand, from the compiled kernels.

Prints a JSON line per kernel (registers, shared memory, instructions and cycles a step of a warp
alone) and per shape: the bandwidth's time, the kernel's, and the floor of the specification, in
microseconds. Needs nvcc and nvdisasm (of the CUDA toolkit), no GPU.

The cycles come from the scheduling bits of the machine code, which say how long an instruction
holds back the next and which results it waits for. Not documented by NVIDIA, and the latencies
below are round figures: a model to compare designs with, not a measurement.

    python benchmarks/gpu/predict.py
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

CSRC = Path(__file__).parents[2] / "csrc"
GROUP = int(re.search(r"kStatesEvery = (\d+)", (CSRC / "recurrence.h").read_text())[1])
LATENCY = {"LDS": 30, "MUFU": 21, "LDC": 30, "LDG": 500, "LDGSTS": 18, "STG": 18, "STS": 18}
OPERANDS_READ = 12  # cycles after which an instruction no longer needs its registers
MUFU_EVERY = 8  # cycles between two of a warp's exponentials or reciprocals
PIPES = 4  # schedulers a multiprocessor
# What a pass takes besides: launch to first byte, filling, draining; and another wave of blocks
FIXED_US, WAVE_US = 3, 2
# Share of the copy rate that rows of 64 and of 128 bytes are taken to reach, by channels a lane
EFFICIENCY = {1: 0.90, 2: 0.95}
CONTENTION = 1.15  # of warps that share a scheduler
SHARED_KIB = 228  # of a multiprocessor; a block takes 1 KiB more than its own
REGISTERS = 16384  # of a scheduler
# L, B, D, and the floors of forward and backward pass in microseconds: spec section 6
SHAPES = [(512, 24, 2048, 60, 107), (1024, 4, 3072, 30, 53), (1024, 8, 4096, 80, 142),
          (32, 128, 1024, 10, 18)]
BYTES = {"forward": 8 + 2 + 4 / GROUP, "backward": 10 + 4 / GROUP + 8}  # of bfloat16, a channel


# Channels a lane; exponentials and reciprocals of a tile's step; part of the mangled name
KERNELS = {
    ("forward", "pair"): (1, 4, "ForwardPairI13__nv_bfloat16Lb0E"),
    ("forward", "single"): (1, 4, "ForwardLaneI13__nv_bfloat16Li1ELi16ELb0ELb0E"),
    ("forward", "wide"): (2, 8, "ForwardLaneI13__nv_bfloat16Li2ELi16ELb0ELb0E"),
    ("forward", "small"): (2, 8, "ForwardLaneI13__nv_bfloat16Li2ELi16ELb0ELb1E"),
    ("backward", "pair"): (1, 4, "BackwardPairI13__nv_bfloat16Lb0E"),
    ("backward", "single"): (1, 4, "BackwardLaneI13__nv_bfloat16Li1ELi16ELb0ELb0E"),
    ("backward", "wide"): (2, 8, "BackwardLaneI13__nv_bfloat16Li2ELi16ELb0ELb0E"),
    ("backward", "small"): (2, 12, "BackwardLaneI13__nv_bfloat16Li2ELi16ELb0ELb1E"),
}


class Kernel(NamedTuple):
    """Of a tile: its warps; of a warp and step: instructions, and cycles if it is alone."""

    warps: int
    registers: int
    shared_bytes: int
    instructions: int
    cycles: int

    def resident(self) -> int:
        """Blocks on a multiprocessor."""
        warps = PIPES * (REGISTERS // (-(-self.registers // 8) * 8 * 32))
        return min(SHARED_KIB * 1024 // (self.shared_bytes + 1024), warps // self.warps)


class Instruction(NamedTuple):
    text: str
    stall: int
    sets: int  # barrier that its result releases; 7: none
    frees: int  # barrier released when its operands are read
    waits: int  # mask of barriers

    @property
    def name(self) -> str:
        return re.sub(r"^@!?U?P\w+ ", "", self.text).split()[0].split(".")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--processors", type=int, default=132)
    parser.add_argument("--gigahertz", type=float, default=1.98)
    parser.add_argument("--gigabytes-per-second", type=float, default=4300)
    options = parser.parse_args()
    for tool in "nvcc", "nvdisasm":
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not on the PATH; it comes with the CUDA toolkit")
    code = {kind: compiled(kind, options.arch) for kind in BYTES}
    kernels = {}
    for kind, name in KERNELS:
        kernels[kind, name] = kernel = read(kind, name, *code[kind])
        print(json.dumps({"pass": kind, "kernel": name, **kernel._asdict()}))
    pipes = PIPES * options.processors
    for length, batch, size, *floors in SHAPES:
        for kind, floor in zip(BYTES, floors):
            name = chosen(batch, size, pipes)
            kernel, (v, mufus, _) = kernels[kind, name], KERNELS[kind, name]
            blocks = batch * -(-size // (32 * v))
            warps = -(-blocks * kernel.warps // pipes)  # on the busiest scheduler
            cycles = length * max(
                kernel.cycles, CONTENTION * warps * kernel.instructions,
                warps * mufus / kernel.warps * MUFU_EVERY)
            busy = cycles / options.gigahertz / 1e3
            rate = EFFICIENCY[v] * options.gigabytes_per_second
            moved = length * batch * size * BYTES[kind] / rate / 1e3
            waves = -(-blocks // (kernel.resident() * options.processors))
            total = FIXED_US + WAVE_US * (waves - 1) + max(busy, moved)
            print(json.dumps({
                "pass": kind, "length": length, "batch": batch, "size": size, "kernel": name,
                "warps_a_scheduler": warps, "waves": waves, "instructions_us": round(busy),
                "bandwidth_us": round(moved), "total_us": round(total), "floor_us": floor,
                "of_floor": round(floor / total, 2),
            }))


def chosen(batch: int, size: int, pipes: int) -> str:
    """As chosen_kernel of csrc/recurrence_cuda.cuh."""
    if batch * -(-size // 32) <= pipes:
        return "pair"
    return "wide" if batch * -(-size // 64) <= 2 * pipes else "small"


def compiled(kind: str, arch: str) -> tuple[str, str]:
    """The compiler's report of a pass, and the machine code."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        report = subprocess.run(
            ["nvcc", "-std=c++17", "-O3", f"-arch={arch}", "-cubin", "-Xptxas", "-v", "-o", binary,
             CSRC / f"recurrence_cuda_{kind}.cu"],
            check=True, capture_output=True, text=True).stderr
        listing = subprocess.run(
            ["nvdisasm", "-hex", binary], check=True, capture_output=True, text=True).stdout
    return report, listing


def read(kind: str, name: str, report: str, listing: str) -> Kernel:
    """Of the bfloat16 kernels without padding."""
    _, mufus, pattern = KERNELS[kind, name]
    warps = 2 if name == "pair" else 1
    loops = warps if kind == "forward" else 1  # a pair shares the work of each step, or the groups
    symbol = re.search(rf"_ZN3sru4warp6kernelI\w*{pattern}\w+", report)[0]
    usage = report[report.index(symbol):]
    steps = loops_over_time(listing, symbol, mufus * GROUP // loops)
    assert len(steps) == loops, f"{symbol}: {len(steps)} loops over time"
    if loops < warps:
        steps = between_barriers(*steps)
    return Kernel(
        warps=warps,
        registers=int(re.search(r"Used (\d+) registers", usage)[1]),
        shared_bytes=int(re.search(r"(\d+) bytes smem", usage)[1]),
        instructions=round(sum(map(len, steps)) / warps / GROUP),
        cycles=round(max(map(cycles, steps)) / GROUP),
    )


def loops_over_time(listing: str, name: str, mufus: int) -> list[list[Instruction]]:
    """The instructions of one turn of each loop that has ``mufus`` exponentials and reciprocals."""
    labels: dict[str, int] = {}
    code: list[Instruction] = []
    for line in section(listing, name):
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif match := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);\s*/\* 0x([0-9a-f]+) \*/", line):
            text = match[1].strip()
        elif (match := re.match(r"\s*/\* 0x([0-9a-f]+) \*/", line)) and text:
            bits = int(match[1], 16) >> 41
            code.append(Instruction(text, max(1, bits & 15), bits >> 5 & 7, bits >> 8 & 7,
                                    bits >> 11 & 63))
            text = ""
    jumps = {}
    for place, instruction in enumerate(code):
        if target := re.search(r"BRA.*`\((\.L_x_\d+)\)", instruction.text):
            jumps[place] = labels[target[1]]
    turns: dict[int, list[Instruction]] = {}
    for end, start in jumps.items():
        for turn in paths(code, jumps, start, end) if start < end else ():
            if sum(i.name == "MUFU" for i in turn) == mufus:
                turns[start] = min(turns.get(start, turn), turn, key=len)
    return list(turns.values())


def between_barriers(turn: list[Instruction]) -> list[list[Instruction]]:
    """A turn with two barriers in two parts, which two warps do at the same time."""
    first, second = (i + 1 for i, instruction in enumerate(turn) if instruction.name == "BAR")
    return [turn[first:second], turn[second:] + turn[:first]]


def section(listing: str, name: str) -> Iterator[str]:
    inside = False
    for line in listing.split("\n"):
        if line.startswith(".text."):
            inside = line == f".text.{name}:"
        elif inside:
            yield line


def paths(
    code: list[Instruction], jumps: dict[int, int], start: int, end: int
) -> Iterator[list[Instruction]]:
    """All ways from ``start`` to ``end`` that only jump forwards."""
    ways = [(start, [])]
    while ways:
        place, way = ways.pop()
        way = [*way, code[place]]
        if place == end:
            yield way
            continue
        target = jumps.get(place)
        if target is not None and place < target <= end:
            ways.append((target, way))
        if place + 1 <= end and (target is None or code[place].text.startswith("@")):
            ways.append((place + 1, way))


def cycles(turn: list[Instruction], turns: int = 5) -> float:
    """Cycles of a turn once the loop runs steadily, nothing else being on the scheduler."""
    now, ready, mufu, begin = 0, [0] * 8, 0, 0
    for i in range(turns):
        begin = now if i == 1 else begin
        for instruction in turn:
            now = max([now, *(ready[k] for k in range(6) if instruction.waits >> k & 1)])
            if instruction.name == "MUFU":
                now = max(now, mufu)
                mufu = now + MUFU_EVERY
            done = now + LATENCY.get(instruction.name, 12)
            ready[instruction.sets] = max(ready[instruction.sets], done)
            ready[instruction.frees] = max(ready[instruction.frees], now + OPERANDS_READ)
            now += instruction.stall
    return (now - begin) / (turns - 1)


if __name__ == "__main__":
    main()
