"""`make mutants` changes what is there, and asks tests that are."""

from pathlib import Path

import pytest
from mutants.changes import MUTANTS

TESTS = Path(__file__).parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.path}:{m.old}"[:60])
def test_every_mutant_can_be_made(mutant):
    assert (TESTS.parent / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old
    for name in mutant.tests.split():
        assert (TESTS / name.split("::")[0]).exists()
