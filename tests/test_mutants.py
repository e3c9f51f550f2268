"""Each fault of ``mutants.toml`` still fits the code; `make mutants` sees that tests notice it."""

from __future__ import annotations

import pytest
from mutate import ROOT, Mutant, mutants


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.promise)
def test_the_fault_fits(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert all((ROOT / test.split()[0]).exists() for test in mutant.tests)
