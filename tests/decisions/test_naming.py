"""Names and merges of a review, where nothing is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anomalyncd.decisions import naming
from anomalyncd.decisions.actions import Confirm, Merge, Name, decided_now, to_line
from anomalyncd.deploy.graphs import NetworkGraph
from anomalyncd.errors import InputError
from anomalyncd.extension import parent
from anomalyncd.models import checkpoint
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.review.session import Review
from anomalyncd.types import VERDICTS
from tests.helpers.reviewed import confirm, make_finished_run, make_run, move, reject

OWN = ("class 0", "class 1", "class 2")


@pytest.fixture
def review(tmp_path: Path) -> Review:
    return Review(make_run(tmp_path))


def test_a_run_without_a_review_keeps_its_names(review: Review) -> None:
    found = naming.read(review.run, OWN)
    assert (found.names, found.into, found.advice(review.run)) == (OWN, (0, 1, 2), "")
    assert naming.fingerprint(review.run) is None
    np.testing.assert_array_equal(found.merging, np.eye(3))


def test_names_and_merges_need_no_learning(review: Review) -> None:
    review.decide(Name("1", "scratch"), Merge(("2", "1"), "1"), confirm(review, [0], "0"))
    found = naming.read(review.run, OWN)
    assert (found.names, found.into) == (("class 0", "scratch", "scratch"), (0, 1, 1))
    assert found.advice(review.run) == ""
    shares = np.array([[0.4, 0.25, 0.35]]) @ found.merging
    np.testing.assert_allclose(shares, [[0.4, 0.6, 0]])


def test_the_class_of_a_question_that_was_named_has_its_name(review: Review) -> None:
    before = naming.fingerprint(review.run)
    review.decide(move(review, [0], "0", "dent"))
    assert naming.read(review.run, OWN).names[0] == "dent"
    assert naming.fingerprint(review.run) not in (None, before)


def test_what_names_cannot_express_is_said_in_one_line(review: Review) -> None:
    review.decide(move(review, [0], "1"), reject(review, [4], "false_alarm"))
    found = naming.read(review.run, OWN)
    assert found.names == OWN
    line = found.advice(review.run)
    assert line.startswith("2 decisions") and f"anomalyncd learn {review.run}" in line
    review.undo()
    assert (
        naming.read(review.run, OWN)
        .advice(review.run)
        .startswith("1 decision of the review is about single regions, which names cannot express")
    )


def test_names_of_regions_follow_every_decision(review: Review) -> None:
    review.decide(Name("1", "dent"), move(review, [0], "1"), reject(review, [5], "not_a_defect"))
    known = review.regions
    found = naming.of_regions(review.run, known.ids, known.classes, known.class_names)
    assert found[:6] == ("dent", "class 0", "class 0", "class 0", "dent", "not a defect")


@pytest.mark.parametrize(("row", "image"), [(99, "photo 99"), (-5, "photo 7"), (3, "photo 4")])
def test_decisions_about_regions_of_another_run_are_refused(
    review: Review, row: int, image: str
) -> None:
    known = review.regions
    review.path.write_text(to_line(decided_now(Confirm((row,), (image,), "1"))))
    with pytest.raises(InputError, match=r"decisions\.jsonl: .* the file belongs to another run"):
        naming.of_regions(review.run, known.ids, known.classes, known.class_names)


@pytest.mark.parametrize("name", ["a\nb\x1b[31m", 10_000 * "x", *VERDICTS.values(), "false alarm"])
def test_a_name_can_be_printed_and_is_no_verdict(review: Review, name: str) -> None:
    review.decide(Name("0", name))
    shown = naming.read(review.run, OWN).names[0]
    assert shown.isprintable() and 0 < len(shown) <= 207
    assert shown not in (*VERDICTS.values(), "false alarm")


def test_decisions_that_are_damaged_are_named(review: Review) -> None:
    review.path.write_text("{}\n")
    with pytest.raises(InputError, match=r"decisions\.jsonl, line 1"):
        naming.read(review.run, OWN)


def test_a_classifier_an_exported_graph_and_an_extension_use_them(tmp_path: Path) -> None:
    run = make_finished_run(tmp_path)
    Review(run).decide(Name("1", "scratch"), Merge(("2", "1"), "1"))
    classifier = Classifier(run, device="cpu", unknown_share=0)
    assert classifier.class_names == ("class 0", "scratch", "scratch")
    network, metadata = checkpoint.load_model(run / "model.safetensors")
    views = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    masks = torch.full((2, 32, 32), 255, dtype=torch.uint8)
    plain = NetworkGraph(network, 1, 0.1).eval()(views, masks)[0]
    merged = NetworkGraph(network, 1, 0.1, classifier.naming.into).eval()(views, masks)[0]
    torch.testing.assert_close(merged[:, 1], plain[:, 1:].sum(1))
    assert (merged[:, 2] == 0).all()
    before = parent.read(run, metadata, 192)
    assert before.classes.names == ("class 0", "scratch", "class 2")
    assert set(before.known.classes.tolist()) == {0, 1}
    assert {row["class_name"] for row in before.regions} == {"class 0", "scratch"}
