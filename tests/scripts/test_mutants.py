"""The list of `make mutants` fits the code: the lines and the tests that it names exist.

That the tests kill what is on it takes minutes, and is shown by `make mutants`.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from scripts.mutants import ROOT, Mutant, mutants

ALL = mutants()


def test_the_list_is_long_and_names_no_fault_twice() -> None:
    assert len(ALL) >= 70
    assert max(Counter((m.file, m.was, m.becomes) for m in ALL).values()) == 1


@pytest.mark.parametrize("mutant", ALL, ids=lambda m: f"{m.file}-{m.why}")
def test_a_mutant_changes_one_existing_line_and_names_its_test(mutant: Mutant) -> None:
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    assert source.count(mutant.was) == 1
    assert mutant.was != mutant.becomes
    assert "\n" not in mutant.was + mutant.becomes
    compile(source.replace(mutant.was, mutant.becomes), mutant.file, "exec")
    name = mutant.test.partition("::")[2]
    tests = (ROOT / mutant.test_file).read_text(encoding="utf-8")
    assert re.search(rf"^def {name}\b" if name else "^def test_", tests, re.MULTILINE)
