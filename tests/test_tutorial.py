"""docs/tutorial.ipynb runs from top to bottom, and what it trains has learnt."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import ROOT

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def names():
    """What the cells define."""
    matplotlib.use("Agg")
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    threads, names = torch.get_num_threads(), {}
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
    finally:
        torch.set_num_threads(threads)
    yield names
    names["plt"].close("all")


@pytest.mark.slow
def test_the_translator_translates_and_reads_backwards(names):
    assert names["right"] > 0.8
    length = names["length"]
    read = names["read"][:length].argmax(1)
    assert sum(int(place) == length - 1 - n for n, place in enumerate(read)) >= length - 2


@pytest.mark.slow
def test_the_language_model_writes(names):
    assert names["curve"][-1] < 0.4 * names["curve"][0]
    assert names["sample"].startswith("Simple is ") and len(names["sample"]) == 130
