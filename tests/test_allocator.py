"""The memory that CPU tensors free is kept for other tensors, within bounds."""

import pytest
from conftest import USER_DIR, run_python

from fairseq_sru.ops.extension import COMPILED

pytestmark = [
    pytest.mark.command,
    pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built"),
]

START = """
import random, torch
from fairseq_sru.ops.extension import keep_freed_memory
before = torch.ones(1 << 20)
keep_freed_memory()
MB = 1 << 18  # float32 numbers

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

start = resident()
"""


def run(program):
    result = run_python("-c", START + program)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_a_freed_block_is_the_next_tensors():
    """Of the same size or a little smaller, not of one much smaller or larger."""
    first, again, smaller, small, larger = run("""
x = torch.empty(10 * MB)
print(x.data_ptr())
for size in 10 * MB, 9 * MB, 5 * MB, 11 * MB:
    del x
    x = torch.empty(size)
    print(x.data_ptr())
    if size != 5 * MB:
        continue
    del x
    x = torch.empty(10 * MB)
""")
    assert first == again == smaller
    assert small != first and larger != first


def test_the_profiler_sees_what_tensors_take():
    """New blocks, kept ones and small ones."""
    sizes = run("""
with torch.profiler.profile(profile_memory=True) as profile:
    x = torch.empty(10 * MB)
    del x
    x = torch.empty(9 * MB)
    y = torch.empty(1000)
    del y
print(*(event.nbytes() for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"))
""")
    assert list(map(int, sizes)) == [10 << 20, -10 << 20, 9 << 20, 4000, -4000]


def test_updates_of_many_sizes_stay_within_bounds():
    kept, most = map(float, run("""
numbers = random.Random(1)
most = 0
for update in range(60):
    tokens = numbers.uniform(0.6, 1)
    live = [torch.ones(int(tokens * numbers.choice([MB, 3 * MB, 20 * MB]))) for _ in range(20)]
    most = max(most, sum(x.numel() for x in live) * 4 / 2**20)
    del live
print(resident() - start, most)
"""))
    assert kept < 1.5 * 1.25 * most + 10  # a request may get a block a quarter larger


def test_numbers_are_those_of_the_systems_allocator():
    """Blocks of all sizes, resized, cloned, shared by threads, freed after the switch."""
    run("""
from concurrent.futures import ThreadPoolExecutor
assert before.sum() == 1 << 20
del before

def work(seed):
    numbers = random.Random(seed)
    live = {}
    for i in range(400):
        size = int(2 ** numbers.uniform(0, 20))
        live[i] = torch.full((size,), float(i))
        if numbers.random() < 0.7:
            key = numbers.choice(sorted(live))
            x = live.pop(key).clone()
            x.resize_(2 * len(x))
            assert (x[: len(x) // 2] == key).all()
    return all((x == key).all() for key, x in live.items())

with ThreadPoolExecutor(4) as pool:
    assert all(pool.map(work, range(4)))
assert torch.empty(0).data_ptr() == 0
torch.nn.functional.conv1d(torch.ones(1, 8, 70000), torch.ones(8, 8, 3)).sum()
""")


def test_forked_processes_allocate_while_a_thread_does():
    assert run("""
import os, signal, threading
done = threading.Event()

def allocate():
    while not done.is_set():
        torch.empty(MB)

thread = threading.Thread(target=allocate)
thread.start()
for _ in range(300):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        torch.empty(2 * MB)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print("stuck")
        break
done.set()
thread.join()
""") == []


def test_a_training_on_a_cpu_keeps_memory(data, tmp_path):
    """fairseq-train alone, without a line of the recipes."""
    program = """
import sys
from fairseq_cli import train
sys.argv[1:] = {args!r}
train.cli_main()
x = torch.empty(10 * MB)
place = x.data_ptr()
del x
print(torch.empty(9 * MB).data_ptr() == place)
"""
    args = [str(data), "--user-dir", str(USER_DIR), "--arch", "srupp_tiny", "--cpu", "--no-save",
            "--max-update", "1", "--max-tokens", "256", "--optimizer", "adam"]
    result = run_python("-c", "import torch\nMB = 1 << 18\n" + program.format(args=args))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "True"
