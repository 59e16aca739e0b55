from __future__ import annotations

from dataclasses import replace

import numpy as np

from anomalyncd.discovery.discover import Alternative, Discovery
from anomalyncd.discovery.number_of_kinds import Candidate
from anomalyncd.discovery.stability import ClassStability
from anomalyncd.results import certainty

NAMES = ("good", "dent", "scratch")


def discovery(other_k: int, other: np.ndarray) -> Discovery:
    classes = np.repeat([0, 1, 2], [4, 10, 8])
    judged = (
        ClassStability(1.0, False, None, False),
        ClassStability(0.9, True, 2, False),
        ClassStability(0.4, False, 1, True),
    )
    return Discovery(
        k=3,
        members=4,
        classes=classes,
        votes=np.eye(3)[classes],
        candidates=(Candidate(3, 0.4, 0.6), Candidate(other_k, 0.3, 0.5)),
        alternatives=(Alternative(other_k, 0.3, other),),
        stability=judged,
        has_normal=True,
        clustered=18,
        compared=18,
        images=20,
        images_without_defect=4,
    )


def test_remarks_of_classes_are_words_with_the_names_of_classes() -> None:
    found = certainty.of_classes(discovery(4, np.repeat([0, 1, 2], [4, 10, 8])), NAMES)
    assert [(one.name, one.is_stable) for one in found] == [("dent", True), ("scratch", False)]
    assert found[0].remarks == ["perhaps two kinds", "perhaps the same as scratch"]
    assert found[1].remarks == ["perhaps the same as dent", "mostly false alarms"]


def test_a_larger_number_shows_what_falls_apart() -> None:
    parts = np.repeat([0, 3, 1, 2], [4, 6, 4, 8])
    (number,) = certainty.of_numbers(discovery(4, parts), NAMES)
    (change,) = number.changes
    assert change.text == "dent would fall into 2 parts, of 6 + 4 regions"
    assert change.parts == [[4, 6, 7, 9], [10, 11, 12, 13]]
    assert certainty.pictured([number]) == [4, 6, 7, 9, 10, 11, 12, 13]


def test_a_smaller_number_shows_what_becomes_one() -> None:
    merged = np.repeat([0, 1], [4, 18])
    (number,) = certainty.of_numbers(discovery(2, merged), NAMES)
    (change,) = number.changes
    assert change.text == "dent and scratch would be one class"
    assert [len(part) for part in change.parts] == [4, 4]


def test_the_sentence_counts_stable_classes() -> None:
    found = discovery(4, np.repeat([0, 1, 2], [4, 10, 8]))
    assert found.sentence == (
        "1 of 2 kinds of defects are stable; the maps find no defect in 4 of 20 images."
    )


def test_the_sentence_says_how_many_regions_were_compared() -> None:
    found = replace(discovery(4, np.repeat([0, 1, 2], [4, 10, 8])), clustered=5000, compared=3000)
    assert "1 of 2 kinds of defects are stable, by 3000 of 5000 regions;" in found.sentence
