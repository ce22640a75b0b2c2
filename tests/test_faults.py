"""Damaged files and full disks: one line that names the file, and nothing half written."""

import errno
import io
import os
import pickle
import random
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from fairseq_sru import average_checkpoints, errors, files
from fairseq_sru.checkpoints import PARTS, read_checkpoint
from fairseq_sru.convert.checkpoint import export_model, import_model
from fairseq_sru.errors import UsageError
from fairseq_sru.repairs import apply

apply()


class Code:
    """What runs when it is unpickled without care."""

    def __reduce__(self):
        return os.mkdir, ("it_ran",)


def saved(state, legacy=False):
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


GOOD = {"model": {"a": torch.randn(300), "b": torch.ones(2, 3)}, "cfg": {}, "args": None}


def overwritten(seed):
    numbers = random.Random(seed)
    data = bytearray(saved(GOOD, legacy=seed % 2 == 0))
    for _ in range(numbers.choice([1, 4, 40])):
        start = numbers.randrange(len(data))
        data[start : start + 8] = numbers.randbytes(len(data[start : start + 8]))
    return bytes(data)


DAMAGED = {
    "nothing": b"",
    "text": b"this is no checkpoint\n" * 100,
    "numbers": struct.pack("<50d", *range(50)),
    "pickle": pickle.dumps({"model": 1}),
    "broken pickle": b"\x80\x02}q\x00(X\xff\xff\xff\x7f",
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "a list": saved([1, 2]),
    "no model": saved({"cfg": {}}),
    "a model that is a list": saved({"model": [torch.ones(1)], "cfg": {}}),
    "parameters that are text": saved({"model": {"a": "text"}, "cfg": {}}),
    "code": pickle.dumps(Code()),
    "code inside": pickle.dumps({"model": {"a": Code()}}),
    "middle cut out": saved(GOOD)[:700] + saved(GOOD)[900:],
    "end cut off": saved(GOOD)[:-40],
}


def readers(path, folder):
    words = folder / "words"
    words.write_text("<eos>\n<UNK>\na\n")
    (folder / "dict.txt").write_text("a 1\n")
    return {
        "read": lambda: read_checkpoint(str(path), check_sums=True),
        "fairseq": lambda: checkpoint_utils.load_checkpoint_to_cpu(str(path)),
        "average": lambda: average_checkpoints.average([str(path)]),
        "import": lambda: import_model(path, folder / "out", ["<eos>", "<UNK>", "a"]),
        "export": lambda: export_model(path, folder / "out.pt", folder / "dict.txt"),
    }


@pytest.mark.parametrize("reader", ["read", "fairseq", "average", "import", "export"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_checkpoints(kind, reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint1.pt"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(UsageError) as caught:
        readers(path, tmp_path)[reader]()
    assert "\n" not in str(caught.value) and "checkpoint1.pt" in str(caught.value)
    assert not (tmp_path / "it_ran").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint1.pt", "words", "dict.txt"}


@pytest.mark.parametrize("seed", range(60))
def test_overwritten_bytes_are_found_or_harmless(seed, tmp_path):
    """A zip file has check sums, the older format none: its numbers may change, nothing else."""
    path = tmp_path / "checkpoint1.pt"
    path.write_bytes(overwritten(seed))
    try:
        model = read_checkpoint(str(path), check_sums=True)["model"]
    except UsageError as error:
        assert "\n" not in str(error)
        return
    if seed % 2:
        assert model.keys() == GOOD["model"].keys()
        assert all(torch.equal(model[name], GOOD["model"][name]) for name in model)


@pytest.mark.parametrize("options", [
    {}, {"cfg": None, "args": None}, {"cfg": {}}, {"cfg": {"model": {}}}, {"cfg": "text"}])
def test_a_checkpoint_without_options(options, tmp_path):
    path = tmp_path / "checkpoint1.pt"
    torch.save({"model": GOOD["model"], **options}, path)
    with pytest.raises(UsageError, match="lacks the options"):
        checkpoint_utils.load_checkpoint_to_cpu(str(path))


@pytest.mark.parametrize("wrong", ["text", 7, [1], torch.ones(3), {"a": 1}])
@pytest.mark.parametrize("part", PARTS)
def test_parts_of_another_kind_are_named(part, wrong, tmp_path):
    path = tmp_path / "checkpoint1.pt"
    torch.save({**GOOD, part: wrong}, path)
    if isinstance(wrong, PARTS[part]):
        assert read_checkpoint(str(path))[part] == wrong
        return
    with pytest.raises(UsageError, match=f"checkpoint1.pt holds a .* instead of the {part}"):
        read_checkpoint(str(path))


def test_an_average_is_of_numbers(tmp_path):
    def save(name, **parameters):
        path = tmp_path / f"{name}.pt"
        torch.save({"model": {"a": torch.ones(2), **parameters}, "cfg": {}}, path)
        return str(path)

    good, half = save("good"), save("half", a=torch.ones(2).half())
    for wrong in (float("nan"), float("inf")):
        bad = save("bad", a=torch.tensor([1.0, wrong]))
        for paths in ([good, bad], [bad, good], [bad]):
            with pytest.raises(UsageError, match="bad.pt holds NaN or infinity in a: "):
                average_checkpoints.average(paths)
    for other in (torch.ones(2, dtype=torch.int64), torch.ones(2) == 1):
        mixed = save("mixed", a=other)
        for paths in ([good, mixed], [mixed, good]):
            with pytest.raises(UsageError, match=r"not of one model: a is \(2,\) "):
                average_checkpoints.average(paths)
    assert average_checkpoints.average([good, half])["model"]["a"].tolist() == [1, 1]
    counts = [save("one", n=torch.tensor(1)), save("two", n=torch.tensor(2))]
    assert average_checkpoints.average(counts)["model"]["n"] == 1


@pytest.mark.parametrize("part, same", [
    ({"cfg": {"model": {"highway_bias": -1.0, "dropout": 0.1}}}, False),
    ({"cfg": {"model": {"highway_bias": -2.0, "dropout": 0.3, "embed_path": "v"}}}, True),
    ({"task_state": {"dictionaries": {"source": {"types": 9, "sha1": "b"}}}}, False),
    ({"task_state": {}, "cfg": {}}, True),
])
def test_an_average_is_of_one_model(part, same, tmp_path):
    state = {**GOOD, "cfg": {"model": {"highway_bias": -2.0, "dropout": 0.1}},
             "task_state": {"dictionaries": {"source": {"types": 9, "sha1": "a"}}}}
    paths = [str(tmp_path / "one.pt"), str(tmp_path / "two.pt")]
    torch.save(state, paths[0])
    torch.save({**state, **part}, paths[1])
    if same:
        average_checkpoints.average(paths)
    else:
        with pytest.raises(UsageError, match="not of one model: (highway_bias|dict.*) differ"):
            average_checkpoints.average(paths)


class FullDisk(io.FileIO):
    """A file of at most 500 bytes."""

    def write(self, data):
        if self.tell() + len(data) > 500:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.fixture
def full_disk(monkeypatch):
    monkeypatch.setattr(files, "open", lambda path, mode: FullDisk(path, mode), raising=False)


@pytest.mark.parametrize("write", [
    lambda path: checkpoint_utils.torch_persistent_save(GOOD, str(path)),
    lambda path: files.save_tensors(GOOD, path),
], ids=["fairseq", "average"])
def test_a_full_disk_leaves_the_old_file(write, tmp_path, full_disk):
    path = tmp_path / "checkpoint_last.pt"
    path.write_text("old")
    with pytest.raises(UsageError, match=r"checkpoint_last.pt: No space left .* MB are free"):
        write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_last.pt"]
    assert path.read_text() == "old"


def test_a_copy_to_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    new, old = tmp_path / "checkpoint1.pt", tmp_path / "checkpoint_last.pt"
    new.write_text("new one"), old.write_text("old")

    def copyfile(source, target):
        Path(target).write_text(Path(source).read_text()[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", copyfile)
    with pytest.raises((UsageError, AssertionError), match="checkpoint_last.pt: No space left"):
        PathManager.copy(str(new), str(old), overwrite=True)
    assert old.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


WRITERS = {
    "tensors": lambda path: files.save_tensors(GOOD, path),
    "checkpoint": lambda path: checkpoint_utils.torch_persistent_save(GOOD, str(path)),
    "text": lambda path: write_text(path),
}


def write_text(path):
    with files.text_files(None, path) as (_, target):
        target.write(b"text")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_link_goes_on_pointing_to_what_is_written(write, tmp_path):
    (tmp_path / "disk").mkdir()
    for name in "new", "old":
        link, target = tmp_path / name, tmp_path / "disk" / f"{name}.pt"
        link.symlink_to(target)
    (tmp_path / "disk" / "old.pt").write_text("old")
    for name in "new", "old":
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "disk" / f"{name}.pt").read_bytes() not in (b"", b"old")
    assert len(list(tmp_path.rglob("*"))) == 5


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("name", ["pipe", "link to a pipe", "open file"])
def test_pipes_are_written_to_as_they_are(name, write, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "pipe.part").write_text("of somebody else")
    if name == "link to a pipe":
        (tmp_path / "link").symlink_to(pipe)
        pipe = tmp_path / "link"
    reader = os.open(pipe, os.O_RDWR)
    opened = Path(f"/proc/self/fd/{reader}")
    write(opened if name == "open file" else pipe)
    assert len(os.read(reader, 1 << 20)) > 3
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "pipe.part").read_text() == "of somebody else"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("name", ["", ".", "/", "folder", "link to a folder"])
def test_no_file_takes_the_place_of_a_folder(name, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.part").write_text("of somebody else")
    (tmp_path / "link to a folder").symlink_to("folder")
    with pytest.raises(UsageError, match="cannot write .*: Is a directory"):
        write(Path(name))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("error, message", [
    (UsageError("wrong"), "wrong"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "in.txt"),
     "in.txt: No such file or directory"),
    (PermissionError(errno.EACCES, "Permission denied", b"out"), "out: Permission denied"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
])
@pytest.mark.parametrize("trace", ["", "1"])
def test_commands_end_in_one_line(error, message, trace, capsys, monkeypatch):
    monkeypatch.setenv(errors.TRACE, trace)
    with pytest.raises(SystemExit) as ended, errors.one_line():
        raise error
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and lines[-1] == f"error: {message}"
    assert (len(lines) > 1) == bool(trace)


@pytest.mark.command
def test_nobody_reads_on():
    """As behind `| head -1`."""
    program = ("import sys; from fairseq_sru.errors import one_line\n"
               "with one_line():\n    for i in range(100_000): print(i)")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_text_that_is_not_utf8_is_one_line():
    with pytest.raises(UnicodeDecodeError) as caught:
        b"first\nsec\xffond\nthird".decode()
    assert errors.in_one_line(caught.value) == r"text that is not utf-8: b'sec\xffond'"


def test_a_fault_of_ours_keeps_its_trace():
    assert errors.in_one_line(KeyError("x")) is None
    with pytest.raises(ZeroDivisionError), errors.one_line():
        print(1 / 0)
