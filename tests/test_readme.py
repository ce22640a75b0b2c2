"""The examples in Python of the README and of docs/ run as they stand; commands load the plugin."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import ROOT


def test_the_example_runs():
    example, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    names: dict = {}
    exec(example, names)
    assert names["h"].shape == (100, 8, 256)


def test_the_classifier_that_comes_from_lstm_learns_with_either_layer():
    """It tells sentences with word 7 from those without, and padding changes nothing."""
    example, _ = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "coming_from_lstm.md").read_text("utf-8"), re.S)
    assert len(example.splitlines()) <= 25
    names: dict = {}
    exec(example, names)
    for layer in (names["SRU"], torch.nn.LSTM):
        torch.manual_seed(0)
        model = names["Classifier"](20, 2, layer)
        tokens = torch.randint(1, 20, (256, 12))
        tokens[:128][tokens[:128] == 7] = 8
        tokens[128:, 5] = 7
        classes = torch.arange(256) // 128
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(40):
            loss = torch.nn.functional.cross_entropy(model(tokens), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        assert (model(tokens).argmax(1) == classes).float().mean() > 0.95
        padded = torch.cat([tokens, torch.zeros(256, 3, dtype=torch.long)], 1)
        torch.testing.assert_close(model(padded), model(tokens))


def test_stacks_of_the_reference_come_and_go():
    *_, example = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "coming_from_lstm.md").read_text("utf-8"), re.S)
    names: dict = {}
    exec(example, names)
    assert names["h"].shape == (10, 4, 32) and names["c"].shape == (2, 4, 32)
    again = names["export_stack"](names["stack"])
    assert all(torch.equal(value, again[name]) for name, value in names["state"].items())


COMMAND = re.compile(r"(?:fairseq-(?:train|generate|interactive|eval-lm|validate)|"
                     r"fairseq_cli\.\w+|clocked_train\.py)\b")
NO_COMMAND = re.compile(r"command -v |echo |#.*fairseq-| \.\.\.")
SCRIPTS = sorted(ROOT.glob("examples/**/*.sh"))
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])


@pytest.mark.parametrize("path", SCRIPTS + PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_fairseq_loads_the_plugin(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "".join(re.findall(r"^```(?:bash)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    for line in text.replace("\\\n", "").split("\n"):
        if COMMAND.search(line) and not NO_COMMAND.search(line):
            assert "--user-dir" in line
