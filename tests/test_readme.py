"""The README's example in Python runs as it stands."""

from __future__ import annotations

import re

from conftest import ROOT


def test_the_example_runs():
    example, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    names: dict = {}
    exec(example, names)
    assert names["h"].shape == (100, 8, 256)
