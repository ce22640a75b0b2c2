"""Ways to start a training: hydra, two ranks by hand, torchrun; and those that train nothing."""

import pytest
import torch
from conftest import (
    TRAIN_OPTIONS,
    USER_DIR,
    fails_in_one_line,
    free_port,
    run_fairseq,
    run_python,
    train,
    train_on_two_ranks,
)
from test_command_line import assert_same_model, refused, updates


def train_by_hydra(data, folder, *args):
    """fairseq-hydra-train; its last update and its checkpoint."""
    result = run_fairseq(
        "hydra_train", f"common.user_dir={USER_DIR}", "common.cpu=true", "task=translation",
        f"task.data={data}", "optimization.lr=[0.02]", "dataset.max_tokens=256",
        "dataset.num_workers=0", f"checkpoint.save_dir={folder}", f"hydra.run.dir={folder}", *args)
    state = torch.load(folder / "checkpoint_last.pt", weights_only=True)
    return updates(result.stdout + result.stderr)[-1], state


def test_hydra(data, tmp_path):
    last, state = train_by_hydra(
        data, tmp_path, "+model._name=srupp_tiny", "+model.proj_size=6", "+optimizer._name=radam",
        "+optimizer.weight_decay=0.1", "optimization.max_update=3", "criterion=cross_entropy",
        "lr_scheduler=fixed")
    assert last == 3
    sizes = [state["cfg"]["model"][size] for size in ("hidden_size", "proj_size", "dropout")]
    assert sizes == [32, 6, 0.1], "of the preset, of the command and of the model"
    assert state["last_optimizer_state"]["param_groups"][0]["weight_decay"] == 0.1
    assert state["last_optimizer_state"]["param_groups"][0]["lr"] == 0.02


def test_hydra_knows_the_presets(data, tmp_path):
    """As it does fairseq's own: model=, task= and optimizer= name them."""
    last, state = train_by_hydra(
        data, tmp_path, "model=srupp_tiny", "model.proj_size=6", "optimizer=radam",
        "optimization.max_update=2")
    assert last == 2
    sizes = [state["cfg"]["model"][size] for size in ("hidden_size", "proj_size", "num_heads")]
    assert sizes == [32, 6, 2], "of the preset, of the command and of the preset"


@pytest.mark.parametrize("model, message", [
    (("+model._name=srupp_tiny", "+model.dropout=1.5"),
     "--dropout must be at least 0 and below 1, got 1.5"),
    (("model=srupp_lm_tiny",), "--task translation trains an encoder with a decoder, --arch "
                               "srupp_lm is none"),
])
def test_hydra_fails_in_one_line(data, tmp_path, model, message):
    result = run_python(
        "-m", "fairseq_cli.hydra_train", f"common.user_dir={USER_DIR}", "common.cpu=true",
        "task=translation", f"task.data={data}", *model,
        "+optimizer._name=radam", "optimization.lr=[0.02]", "criterion=cross_entropy",
        "lr_scheduler=fixed", "dataset.max_tokens=256", f"checkpoint.save_dir={tmp_path}",
        f"hydra.run.dir={tmp_path}")
    assert message in fails_in_one_line(result)


@pytest.fixture(scope="module")
def one_process(data, tmp_path_factory):
    """Its checkpoint after five sums of two batches."""
    folder = tmp_path_factory.mktemp("one")
    train(data, folder, "--dropout", "0", "--max-update", "5", "--update-freq", "2")
    return folder / "checkpoint_last.pt"


def test_two_cpu_processes(data, one_process, tmp_path):
    """Two ranks take the same steps as one process that sums two batches, and resume."""

    def two(stop):
        return train_on_two_ranks(data, *TRAIN_OPTIONS, "--dropout", "0", "--max-update", stop,
                                  "--save-dir", tmp_path)

    two("3")
    assert "@ 3 updates)" in two("5")
    assert_same_model(one_process, tmp_path / "checkpoint_last.pt", rtol=0, atol=1e-5)


def test_torchrun_on_a_cpu(data, one_process, tmp_path):
    """One command; the same steps as one process that sums two batches, and it resumes."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
               free_port(), "-m", "fairseq_cli.train", data, *TRAIN_OPTIONS, "--dropout", "0",
               "--save-dir", tmp_path, "--max-update"]
    for stop in "3", "5":
        result = run_python(*command, stop)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "@ 3 updates)" in result.stdout
    assert_same_model(one_process, tmp_path / "checkpoint_last.pt", rtol=0, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="these launches work where there is a GPU")
@pytest.mark.parametrize("args", [
    ["--distributed-world-size", "2"],
    ["--distributed-world-size", "2", "--distributed-init-method", "tcp://localhost:9"],
])
def test_launches_that_would_train_nothing(data, tmp_path, args):
    message = refused(data, tmp_path, *args)
    assert "2 processes without a GPU" in message and "--distributed-no-spawn" in message
