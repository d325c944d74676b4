"""The mutants of a cluster stand where the source has the defence, so that `tests/cluster/mutants.py` can run them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from cluster.mutants_of_cluster import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
TESTS = [
    f"{path.stem}::{name}"
    for path in ROOT.glob("tests/cluster/**/*.rs")
    for name in re.findall(r"#\[test\]\n(?:#\[.*\]\n)*fn (\w+)", path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_source_has_the_text_once(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.text) == 1
    assert mutant.instead != mutant.text and "{off}" in mutant.instead


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.test], ids=lambda mutant: mutant.name)
def test_named_test_exists(mutant: Mutant) -> None:
    assert any(mutant.test in test for test in TESTS)


def test_names_are_unique_and_kept_mutants_have_a_reason() -> None:
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    assert all(bool(mutant.why) == mutant.kept for mutant in MUTANTS)
