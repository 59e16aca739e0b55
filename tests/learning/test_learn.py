"""A run that is learned from a review: its classes, its network, and what a later review knows."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.cli.main import main
from anomalyncd.decisions import naming
from anomalyncd.decisions.actions import Apart, Merge, Name
from anomalyncd.errors import InputError
from anomalyncd.extension import parent, prototypes, waiting
from anomalyncd.extension.waiting import Waiting
from anomalyncd.learning.learn import learn
from anomalyncd.models import checkpoint
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.review.session import Review
from anomalyncd.storage import class_list
from tests.helpers.reviewed import confirm, deny, make_finished_run, move, reject
from tests.helpers.runs import table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_finished_run(tmp_path_factory.mktemp("made"), per_class=6)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "variant" / "seed-1"
    shutil.copytree(made, copied)
    return copied


def digests(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def names(run: Path) -> list[str]:
    return [one["name"] for one in json.loads((run / class_list.FILE).read_text())["classes"]]


def area_of(run: Path, region: int, area: int) -> None:
    lines = (run / "regions.csv").read_text().splitlines()
    cells = lines[region + 1].split(",")
    cells[lines[0].split(",").index("area")] = str(area)
    lines[region + 1] = ",".join(cells)
    (run / "regions.csv").write_text("\n".join(lines) + "\n")


def test_a_learned_run_has_the_names_and_the_old_ids(run: Path) -> None:
    review = Review(run)
    review.decide(
        *(Name("0", "scratch"), Merge(("2", "1"), "1"), move(review, [17], "new-x", "dent")),
    )
    before = digests(run)
    result = learn(run, quiet=True)
    assert digests(run) == before
    assert result.folder.parent.parent == run.parent.parent  # beside it, in a variant of its own
    assert names(result.folder) == ["scratch", "class 1", "class 2", "dent"]
    found = [row["class"] for row in table(result.folder / "regions.csv")]
    assert found[:6] == 6 * ["0"] and found[6:12] == 6 * ["1"] and found[17] == "3"
    assert "2" not in found  # it was merged
    assert result.metrics["learning"]["parent"] == str(run)
    assert "New class 3, dent: " in " ".join(result.metrics["learning"]["summary"])
    images = table(result.folder / "predictions.csv")
    assert images[0]["class_name"] == "scratch" and images[17]["class_name"] == "dent"


def test_the_network_says_what_was_learned(run: Path) -> None:
    """Its prototypes are new, and a class that has no regions any more is never said."""
    review = Review(run)
    confirmed = (confirm(review, [row], "01"[row > 5]) for row in (0, 6, 12))
    review.decide(Merge(("2", "1"), "1"), *confirmed)
    result = learn(run, quiet=True)
    assert result.metrics["learning"]["agreeing"] == 1
    network, metadata = checkpoint.load_model(result.folder / parent.MODEL)
    tokens = Review(run).regions.tokens
    said = prototypes.nearest(network.heads.prototypes[1, network.n_base :], None, tokens)
    assert said.tolist() == 6 * [0] + 12 * [1]
    assert metadata.class_names == ("class 0", "class 1", "class 2")
    classifier = Classifier(result.folder, device="cpu")
    assert classifier.class_names == metadata.class_names and not classifier.naming.unlearned


def test_rejected_regions_are_of_the_defect_free_class(run: Path) -> None:
    review = Review(run)
    review.decide(*(reject(review, [k], "false_alarm") for k in (12, 13, 14, 15)))
    review.decide(reject(review, [16], "not_a_defect"))
    result = learn(run, quiet=True)
    assert names(result.folder)[3] == "good"
    found = [row["class_name"] for row in table(result.folder / "regions.csv")]
    assert found[12:18] == 6 * ["good"]


def test_photographs_in_which_nothing_was_found_are_the_defect_free_class(tmp_path: Path) -> None:
    run = make_finished_run(tmp_path, normal=True)
    review = Review(run)
    review.decide(reject(review, [4], "false_alarm"))
    result = learn(run, quiet=True)
    assert names(result.folder) == ["good", "class 1", "class 2"]
    found = [row["class"] for row in table(result.folder / "regions.csv")]
    assert found[:5] == 5 * ["0"]


def test_what_was_all_denied_cannot_be_learned(run: Path) -> None:
    review = Review(run)
    rows = [list(range(first, first + 6)) for first in (0, 6, 12)]
    review.decide(*(deny(review, every, str(k)) for every in rows for k in range(3)))
    with pytest.raises(InputError, match="of no region is known what it is"):
        learn(run, quiet=True)


def test_a_denied_region_is_not_said_with_confidence_to_be_what_was_denied(tmp_path: Path) -> None:
    """Nothing else is known that it could be, and the network does not learn from it."""
    run = make_finished_run(tmp_path, normal=True)
    review = Review(run)
    review.decide(Merge(("2", "1"), "1"), deny(review, [9], "1"))
    result = learn(run, quiet=True)
    found = table(result.folder / "regions.csv")
    assert [row["confidence"] for row in found[8:11]] == ["1.0000", "0.0000", "1.0000"]
    assert Review(result.folder).state.class_of(9) == "-1"


@pytest.mark.parametrize("name", ["0", "1", "2"])
def test_a_class_that_was_named_good_is_the_defect_free_one(tmp_path: Path, name: str) -> None:
    run = make_finished_run(tmp_path, normal=True)
    review = Review(run)
    review.decide(Name(name, "good"), reject(review, [4], "false_alarm"))
    result = learn(run, quiet=True)
    found = table(result.folder / "regions.csv")
    good = {0, 1, 2, 3, 4, *range(4 * int(name), 4 * int(name) + 4)}
    assert {k for k, row in enumerate(found) if row["class_name"] == "good"} == good
    assert sum(one.startswith("good") for one in {row["class_name"] for row in found}) == 1


def test_rejected_regions_are_of_the_class_that_was_made_for_good_ones(run: Path) -> None:
    review = Review(run)
    review.decide(move(review, [17], "new-x", "good"), reject(review, [4], "false_alarm"))
    result = learn(run, quiet=True)
    assert names(result.folder) == ["class 0", "class 1", "class 2", "good"]
    assert table(result.folder / "regions.csv")[4]["class"] == "3"


def make_unknown(run: Path, region: int) -> None:
    """As an extension leaves a region, and its photograph, that are unlike every class."""
    for name in ("regions.csv", "predictions.csv"):
        lines = (run / name).read_text().splitlines()
        lines[region + 1] = lines[region + 1].replace(",2,class 2,", ",unknown,unknown,")
        (run / name).write_text("\n".join(lines) + "\n")
    descriptors = np.ones((1, 1, 1, 192), np.float32)
    waiting.write(run, Waiting(np.array([region]), descriptors, descriptors[:, 0, 0]))


def test_a_photograph_is_not_unknown_once_its_regions_are_decided(run: Path) -> None:
    make_unknown(run, 17)
    Review(run).decide(Name("0", "scratch"))
    left = learn(run, quiet=True)
    assert table(left.folder / "predictions.csv")[17]["class"] == "unknown"
    review = Review(left.folder)
    review.decide(move(review, [17], "0"))
    images = table(learn(left.folder, quiet=True).folder / "predictions.csv")
    assert images[17]["class_name"] == "scratch" and images[17]["confidence"] == "1.0000"


def test_an_unknown_region_weighs_in_its_photograph(run: Path) -> None:
    """The photograph of two regions stays unknown while the larger one is."""
    make_unknown(run, 17)
    for name in ("regions.csv", "predictions.csv"):
        place = run / name
        place.write_text(place.read_text().replace("photo 16", "photo 17"))
    lines = (run / "predictions.csv").read_text().splitlines()
    (run / "predictions.csv").write_text("\n".join([*lines[:17], lines[18]]) + "\n")
    area_of(run, 16, 40)
    Review(run).decide(Name("0", "scratch"))
    result = learn(run, quiet=True)
    assert table(result.folder / "predictions.csv")[-1]["class"] == "unknown"
    area_of(run, 16, 400)
    images = table(learn(run, quiet=True).folder / "predictions.csv")
    assert images[-1]["class_name"] == "class 2"


def test_an_empty_photograph_in_a_class_of_defects_does_not_make_them_good(run: Path) -> None:
    area_of(run, 11, 0)
    review = Review(run)
    review.decide(Name("1", "crack"), confirm(review, [0], "0"), confirm(review, [12], "2"))
    review.decide(reject(review, [1], "false_alarm"))
    result = learn(run, quiet=True)
    found = [row["class_name"] for row in table(result.folder / "regions.csv")]
    assert found[6:12] == 6 * ["crack"] and found[1] == "good"


def test_a_later_review_starts_from_what_is_known(run: Path) -> None:
    review = Review(run)
    review.decide(
        *(Name("0", "scratch"), confirm(review, [0, 1], "0"), move(review, [6], "new-x", "dent")),
        *(reject(review, [12], "not_a_defect"), deny(review, [2], "1"), Apart(("0", "1"))),
    )
    later = Review(learn(run, quiet=True).folder)
    assert np.flatnonzero(later.state.decided).tolist() == [0, 1, 6, 12]
    assert later.state.class_of(12) == "not_a_defect" and later.state.class_of(6) == "3"
    assert later.state.name_of("3") == "dent" and (2, "1") in later.state.denied
    assert later.state.apart == {frozenset(("0", "1"))}
    assert naming.read(later.run, names(later.run)).advice(later.run) == ""  # it is learned
    with pytest.raises(InputError, match="no decision so far"):
        learn(later.run)
    later.decide(confirm(later, [3], "0"))
    again = learn(later.run, quiet=True)
    assert names(again.folder) == names(later.run)  # never renumbered
    assert np.flatnonzero(Review(again.folder).state.decided).tolist() == [0, 1, 3, 6, 12]
    assert parent.read(again.folder, checkpoint.load_model(again.folder / parent.MODEL)[1], 192)


def test_learning_again_makes_no_second_defect_free_class(run: Path) -> None:
    review = Review(run)
    confirmed = [confirm(review, list(range(k, k + 6)), str(k // 6)) for k in (0, 6, 12)]
    review.decide(*confirmed, reject(review, [12], "false_alarm"))  # the only region of it
    later = Review(learn(run, quiet=True).folder)
    later.decide(confirm(later, [13], "2"))
    again = learn(later.run, quiet=True)
    assert names(again.folder) == ["class 0", "class 1", "class 2", "good"]


def test_undo_leaves_what_was_learned(run: Path) -> None:
    review = Review(run)
    review.decide(confirm(review, [0], "0"), move(review, [6], "new-x", "dent"))
    later = Review(learn(run, quiet=True).folder)
    later.decide(confirm(later, [1], "0"))
    assert later.undo() is not None and later.undo() is None
    assert np.flatnonzero(later.state.decided).tolist() == [0, 6]


def test_two_classes_of_one_name_are_one_kind(run: Path) -> None:
    review = Review(run)
    review.decide(Name("0", "dent"), move(review, [6], "new-x", "dent"), Name("2", "dent"))
    result = learn(run, quiet=True)
    found = [row["class"] for row in table(result.folder / "regions.csv")]
    assert {found[0], found[6], found[12]} == {"0"}
    assert names(result.folder) == ["dent", "class 1", "class 2"]


def test_a_long_name_that_two_classes_have_can_be_learned(run: Path) -> None:
    """One of them gets a mark after its name, which must fit into the list of classes too."""
    name = 10_000 * "x"
    review = Review(run)
    review.decide(
        *(Name("2", name), move(review, list(range(12, 18)), "0")),
        move(review, [6], "new-x", name),
    )
    found = names(learn(run, quiet=True).folder)
    assert found[2] == f"{found[3]} (no regions)" and found[3] in name


@given(st.integers(0, 10_000))
def test_what_was_decided_is_learned_whatever_it_was(made: Path, seed: int) -> None:
    """Ids stay, a decided region has its class, and every region has a class of the list."""
    from anomalyncd.decisions.state import present
    from anomalyncd.learning.taught import teach

    generator = np.random.default_rng(seed)
    review = Review(made)
    actions = []
    for row in generator.permutation(18)[: generator.integers(1, 18)].tolist():
        target = ["0", "1", "2", "new-a", "new-b"][generator.integers(5)]
        kinds = [move(review, [row], target, "a"), deny(review, [row], target)]
        kinds += [reject(review, [row], "false_alarm"), Merge((target, "1"), "1")]
        actions.append(kinds[generator.integers(4)])
    from anomalyncd.decisions import propagation
    from anomalyncd.decisions.actions import decided_now

    state = present(review.start, [decided_now(action) for action in actions])
    known = review.regions
    kinds = propagation.kinds(review.graph, state, known.areas)
    before = class_list.read(made, ("class 0", "class 1", "class 2"))
    taught = teach(state, kinds, known.areas, known.classes, before, 1)
    assert [one.id for one in taught.classes.classes][:3] == [0, 1, 2]
    assert len(set(taught.classes.names)) == len(taught.classes.names)
    assert ((taught.region_class >= 0) & (taught.region_class < len(taught.classes.names))).all()
    told = taught.confidence > 0  # the others were denied what they were, and nothing else tells
    np.testing.assert_allclose(taught.shares.sum(axis=1), told)
    assert {row for row, _ in state.denied} >= set(np.flatnonzero(~told).tolist())
    for row in np.flatnonzero(state.decided).tolist():
        assert taught.region_class[row] == taught.ids[state.class_of(row)]
        assert taught.confidence[row] == 1


# Commands, and what they refuse -----------------------------------------------------------------


def test_the_command_says_what_it_has_learned_and_returns_a_finished_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Review(run).decide(Name("0", "scratch"))
    assert main(["learn", str(run)]) == 0
    first = capsys.readouterr().out
    assert (
        "Learned from 1 decision on seed-1: 0 of 18 regions were decided" in first
        and "Run: " in first
    )
    assert main(["learn", str(run)]) == 0
    assert "Finished before" in capsys.readouterr().err
    assert sys.argv[0] == "anomalyncd learn"


def test_a_run_that_was_killed_while_it_was_written_is_made_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomalyncd.learning import result as writing

    Review(run).decide(Name("0", "scratch"))
    monkeypatch.setattr(writing.record, "FILE", "no/such/folder")  # ends between two files
    with pytest.raises((InputError, OSError)):
        learn(run, quiet=True)
    monkeypatch.undo()
    again = learn(run, quiet=True)
    assert not again.was_finished and names(again.folder)[0] == "scratch"
    assert learn(run, quiet=True).was_finished


@pytest.mark.parametrize("missing", ["metrics.json", "features.safetensors", "regions.csv"])
def test_a_run_that_is_not_complete_is_refused(run: Path, missing: str) -> None:
    Review(run).decide(Name("0", "scratch"))
    (run / missing).unlink()
    with pytest.raises(InputError, match=r"not a finished run|no such file|cannot be read"):
        learn(run)
    assert len(list(run.parent.parent.iterdir())) == 1  # nothing was made


def test_a_review_without_decisions_has_nothing_to_learn_from(run: Path) -> None:
    with pytest.raises(InputError, match=f"decide something first: anomalyncd review {run}"):
        learn(run)
    review = Review(run)
    review.decide(Name("0", "scratch"))
    review.undo()
    with pytest.raises(InputError, match="nothing to learn from"):
        learn(run)


def test_decisions_that_are_damaged_or_of_another_run_are_refused(run: Path) -> None:
    review = Review(run)
    review.decide(confirm(review, [0], "0"))
    good = review.path.read_text()
    for line in (
        '{"version":1}\n',
        good.replace("photo 0", "photo 1").replace('"id":"', '"id":"x'),
    ):
        review.path.write_text(good + line)
        with pytest.raises(InputError, match=r"decisions\.jsonl"):
            learn(run)


def test_another_folder_is_not_written_to(run: Path, tmp_path: Path) -> None:
    Review(run).decide(Name("0", "scratch"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        learn(run, output=other)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
