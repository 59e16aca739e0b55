"""How good a run's classes become with each answer of a person: a simulated review.

    python -m scripts.review_curve RUN… [--seeds 5] [--clicks 0 10 30 100] --output curve

The runs need labels (`true_class` in their tables), which only the simulated person sees. She
answers the questions that the page asks (`review/questions.py`): that a region is of a kind that
she has named, that it is of another kind, whose name she then gives to the class that the page
shows or to a new one, that it is a false alarm, or that two classes are the same kind or not. Each
answer is one decision, and one click.

After so many clicks, `learn` says what kind each region is (`decisions/propagation.py`). A
photograph has the kind of most of its anomalous pixels; regions that are no defects count only if
there are no others, and a photograph without any region is good. F1 is the share of photographs
whose kind has the right name: the name that was given decides, nothing is matched, and a class
without a name is wrong.

Compared with a linear classifier on the same features (logistic regression) of so many regions,
labelled (a) at random, (b) one after the other where it is least confident. It knows, too, that a
photograph without any region is good.

This is how good the classes of the run's own photographs become, which `learn` writes as it is; the
network is not trained for it. How many of these regions the network of a learned run puts into the
same class is in its metrics.json (`learning.agreeing`). Writes OUTPUT.csv and OUTPUT.svg.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from anomalyncd.decisions import propagation
from anomalyncd.decisions.actions import (
    FALSE_ALARM,
    REASONS,
    Action,
    Apart,
    Confirm,
    Merge,
    Move,
    Reject,
    decided_now,
    new_class_id,
)
from anomalyncd.decisions.propagation import Kinds
from anomalyncd.decisions.state import State, applied, initial
from anomalyncd.results.known_regions import read_rows
from anomalyncd.review import questions
from anomalyncd.review.session import Review

GOOD = "good"
NORMAL = (GOOD, "MT_Free")  # what datasets call it
METHODS = ("review + learn", "random + linear", "least confidence + linear")


@dataclass(frozen=True)
class Truth:
    """What the simulated person knows; n regions."""

    of_regions: tuple[str, ...]  # (n,)
    of_images: dict[str, str]  # by id, where it is known


def main() -> None:
    """Measure all runs; write the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clicks", type=int, nargs="+", default=[0, 10, 30, 100])
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    rows = []
    for run in options.runs:
        review, truth = Review(run), read_truth(run)
        for method in METHODS:
            found = [
                curve(method, review, truth, sorted(options.clicks), seed)
                for seed in range(options.seeds)
            ]
            for clicks, scores in zip(sorted(options.clicks), np.transpose(found), strict=True):
                rows.append([_name(run), method, clicks, scores.mean(), scores.std()])
                print(
                    f"{_name(run):32}{method:28}{clicks:5}  {scores.mean():.3f}±{scores.std():.3f}"
                )
    with options.output.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "method", "clicks", "f1", "deviation"])
        writer.writerows(rows)
    options.output.with_suffix(".svg").write_text(plot(rows), encoding="utf-8")


def read_truth(run: Path) -> Truth:
    """The true classes that a labelled run has written into its tables."""
    regions = read_rows(run / "regions.csv", ("true_class",))
    images = read_rows(run / "predictions.csv", ("id", "true_class"))

    def kind(row: dict[str, str]) -> str:
        return GOOD if row["true_class"] in NORMAL else row["true_class"]

    return Truth(
        tuple(kind(row) for row in regions),
        {row["id"]: kind(row) for row in images if row["true_class"]},
    )


def curve(
    method: str, review: Review, truth: Truth, clicks: Sequence[int], seed: int
) -> list[float]:
    """F1 after each number of clicks, ascending."""
    named: Iterator[list[str]]
    if method == METHODS[0]:
        named = (_named_by(kinds, names) for kinds, names in reviewed(review, truth, seed))
    else:
        least_confident = method == METHODS[2]
        named = labelled(review, truth, seed, least_confident=least_confident)
    found: list[float] = []
    last: list[str] = []
    for click, names in enumerate(named):
        last = names
        if click in clicks:
            found.append(f1(review, truth, names))
        if len(found) == len(clicks):
            return found
    return found + [f1(review, truth, last)] * (len(clicks) - len(found))  # all is decided


def reviewed(review: Review, truth: Truth, seed: int) -> Iterator[tuple[Kinds, dict[str, str]]]:
    """After each click: what kind each region is, and the names of kinds that were given."""
    known = review.regions
    state = initial(known.classes, [f"class {k}" for k in known.classes.tolist()])
    given: dict[str, str] = dict.fromkeys(REASONS, GOOD)
    normal = propagation.normal_class(state, known.areas)
    given |= {normal: GOOD} if normal else {}
    # Questions depend on how many were asked: another seed is drawn other regions.
    asked = 1000 * seed
    while True:
        kinds = propagation.kinds(review.graph, state, known.areas)
        yield kinds, {state.current(one): name for one, name in given.items()}
        asked += 1
        question = questions.ask(known.tokens, review.graph, kinds, known.areas, state, asked)
        if question is None:
            return
        state = applied(state, decided_now(_answer(question, state, review, truth, given)))


def _answer(
    question: questions.OfRegion | questions.OfPair,
    state: State,
    review: Review,
    truth: Truth,
    given: dict[str, str],
) -> Action:
    if isinstance(question, questions.OfPair):
        pair = (question.first, question.second)
        names = {state.current(one): name for one, name in given.items()}
        kinds = [names.get(one) or _usual(state, truth, one) for one in pair]
        return Merge(pair, pair[0]) if kinds[0] == kinds[1] else Apart(pair)
    region = review.addressed([question.region])
    kind = truth.of_regions[question.region]
    if kind == GOOD:
        return Reject(*region, FALSE_ALARM, question.drawn)
    known = next((one for one, name in given.items() if name == kind), None)
    if known is not None:
        known = state.current(known)
        if known == question.class_id:
            return Confirm(*region, known, question.drawn)
        return Move(*region, known, "", question.drawn)
    named = {state.current(one) for one in given}
    class_id = new_class_id() if question.class_id in named else question.class_id
    given[class_id] = kind
    return Move(*region, class_id, kind, question.drawn)


def _usual(state: State, truth: Truth, class_id: str) -> str:
    kinds = [truth.of_regions[row] for row in state.members(class_id).tolist()]
    return max(sorted(set(kinds)), key=kinds.count)


def _named_by(kinds: Kinds, names: dict[str, str]) -> list[str]:
    best = kinds.shares.argmax(axis=1)
    return [names.get(kinds.class_ids[k], "") for k in best.tolist()]


def labelled(
    review: Review, truth: Truth, seed: int, *, least_confident: bool
) -> Iterator[list[str]]:
    """Names of all regions by a linear classifier, after each label."""
    generator = np.random.default_rng(seed)
    looks, areas = review.graph.looks, review.regions.areas
    names = np.array(truth.of_regions, object)
    left = np.flatnonzero(areas > 0)
    generator.shuffle(left)
    rows: list[int] = []
    while True:
        found = np.full(len(names), "", object)
        sure = np.zeros(len(names))
        if len(set(names[rows])) > 1:
            model = LogisticRegression(C=100, max_iter=300).fit(looks[rows], names[rows].tolist())
            shares = model.predict_proba(looks)
            found, sure = model.classes_[shares.argmax(axis=1)].astype(object), shares.max(axis=1)
        elif rows:
            found[:] = names[rows[0]]
        found[rows] = names[rows]
        found[areas == 0] = GOOD
        yield found.tolist()
        if not len(left):
            return
        place = int(sure[left].argmin()) if least_confident else 0
        rows.append(int(left[place]))
        left = np.delete(left, place)


def f1(review: Review, truth: Truth, names: Sequence[str]) -> float:
    """The share of photographs whose kind has the right name."""
    pixels: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for image, name, area in zip(
        review.regions.ids, names, review.regions.areas.tolist(), strict=True
    ):
        pixels[image][name] += area if name != GOOD else 1e-6 * (area + 1)
    right = [
        max(pixels[image], key=lambda name: pixels[image][name]) == true
        for image, true in truth.of_images.items()
    ]
    return float(np.mean(right))


def _name(run: Path) -> str:
    parts = run.resolve().parts
    return f"{parts[-4]}, {parts[-3]}" if len(parts) > 4 else run.name


def plot(rows: Sequence[Sequence[object]]) -> str:
    """One panel for each run: F1 over clicks, a line for each method."""
    runs = list(dict.fromkeys(str(row[0]) for row in rows))
    colours = dict(zip(METHODS, ("#1f6feb", "#8b949e", "#bc4c00"), strict=True))
    most = max(int(str(row[2])) for row in rows) or 1
    width, height, gap = 260, 180, 44
    parts = []
    for number, run in enumerate(runs):
        left, top = gap + (number % 3) * (width + gap), 40 + (number // 3) * (height + 66)

        def place(
            clicks: object, score: object, left: int = left, top: int = top
        ) -> tuple[float, float]:
            x = left + width * (float(str(clicks)) / most) ** 0.5  # the first clicks count most
            return x, top + height * (1 - float(str(score)))

        parts.append(f'<text x="{left}" y="{top - 8}" font-weight="bold">{_escaped(run)}</text>')
        for score in (0, 0.25, 0.5, 0.75, 1):
            y = place(0, score)[1]
            parts.append(
                f'<path d="M{left} {y:.1f}h{width}" stroke="#8884"/>'
                f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{score:g}</text>'
            )
        for clicks in sorted({int(str(row[2])) for row in rows}):
            x, y = place(clicks, 0)
            parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{clicks}</text>')
        for method, colour in colours.items():
            own = [row for row in rows if row[0] == run and row[1] == method]
            points = [f"{x:.1f},{y:.1f}" for x, y in (place(row[2], row[3]) for row in own)]
            style = f'fill="none" stroke="{colour}" stroke-width="2"'
            parts.append(f'<polyline points="{" ".join(points)}" {style}/>')
    lines = -(-len(runs) // 3)
    bottom = 40 + lines * (height + 66)
    for number, (method, colour) in enumerate(colours.items()):
        x = gap + number * 220
        parts.append(
            f'<path d="M{x} {bottom - 4}h24" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{x + 30}" y="{bottom}">{method}</text>'
        )
    whole = gap + min(len(runs), 3) * (width + gap)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(whole, 720)} {bottom + 16}" '
        'font-family="sans-serif" font-size="11" fill="#57606a">' + "".join(parts) + "</svg>\n"
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


if __name__ == "__main__":
    main()
