"""A training keeps the memory that it frees for the next update, yet not for ever."""

import sys

import allocator
import pytest
from conftest import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about glibc")

PROGRAM = """
import sys
sys.path.insert(0, "examples")
import allocator, torch

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

allocator.keep_freed_memory()
for size in range(30, 60):  # MB, more than the system's own limit
    blocks = [torch.ones(size << 18) for _ in range(4)]
    held = torch.ones(size)  # lies above them, so that the heap cannot shrink
    del blocks
kept = resident()
allocator.trim()
print(kept, resident())
"""


@pytest.mark.command
def test_freed_blocks_stay_until_they_are_trimmed():
    kept, trimmed = map(float, run_python("-c", PROGRAM).stdout.split())
    assert kept - trimmed > 150


def test_every_so_many_updates_begin_with_a_trim(monkeypatch):
    calls = []
    monkeypatch.setattr(allocator, "trim", lambda: calls.append("trim"))
    step = allocator.trimming(lambda *args, **options: calls.append((args, options)) or len(args))
    assert [step(1, 2, even=True) for _ in range(2 * allocator.UPDATES)] == (
        [2] * 2 * allocator.UPDATES)
    trims = [i for i, call in enumerate(calls) if call == "trim"]
    assert trims == [allocator.UPDATES - 1, 2 * allocator.UPDATES]
    assert calls[0] == ((1, 2), {"even": True})
