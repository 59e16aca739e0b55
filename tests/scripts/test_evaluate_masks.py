"""The comparison of binarizations: its figures by hand, and its table of a drawn product."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.api import compose
from anomalyncd.types import Labels
from scripts.evaluate_masks import evaluate, fpr_at, overlap
from tests.helpers.product import product, save, stored_maps

levels = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(levels, levels, st.floats(0, 0.99))
def test_fpr_at_is_that_of_the_highest_gate_that_misses_no_more(
    good: list[int], bad: list[int], fnr: float
) -> None:
    gates = [gate for gate in range(11) if np.mean([b < gate for b in bad]) <= fnr + 1e-9]
    expected = np.mean([g >= gates[-1] for g in good])
    spots = np.array([*good, *bad], float)
    defective = np.arange(len(spots)) >= len(good)
    assert fpr_at(fnr, spots, defective) == pytest.approx(float(expected))


def test_overlap_is_intersection_over_union() -> None:
    a, b = np.zeros((2, 4, 4), bool)
    a[:2], b[1:3] = True, True
    assert overlap(a, b) == pytest.approx(1 / 3)


def test_a_drawn_product_gives_a_row_for_each_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = product(tmp_path, n=5)
    samples = []
    for i, sample in enumerate(dataset.samples):
        truth = np.zeros((120, 160), np.uint8)
        y, x = (20 + 5 * i) // 2 * 2, 30 + 10 * i  # as the maps
        truth[y : y + 24, x : x + 24] = 255
        masked = save(tmp_path / "truth" / f"{i}.png", truth) if i < 4 else None
        samples.append(replace(sample, truth_mask=masked))
    labels = Labels(("good", "dent"), np.array([1, 1, 1, 1, 0]), 0)
    labelled = replace(dataset, samples=tuple(samples), labels=labels)
    evaluate(labelled, stored_maps(tmp_path, dataset), compose("mebin.erosion=0"))
    head, *table, last = capsys.readouterr().out.splitlines()
    assert head.startswith("5 maps, search range 20 to 203, gate ")
    rows = {row.split("|")[1].strip(): row.split("|")[2:5] for row in table[2:]}
    assert list(rows) == ["mebin", "fixed", "otsu", "adaptive, map alone", "adaptive"]
    assert [cell.strip() for cell in rows["adaptive, map alone"]] == [
        *("0.000 / 0.000", "1.000", "1.000"),
    ]
    assert last == "FPR of the gate at FNR 0.000: 0.000 (published: 0.000)"
