"""What extending a run day by day is worth, beside one run on all photographs.

python -m scripts.measure_extension DATA --folder OUT --splits 0,1 detector=reference

DATA is a product in the layout of MVTec AD (`test/<kind>`, `train/good`). A split deals its
photographs to five days; one kind, another one in each split, appears on the third day only. Day 1
is a run (experiment=discover, with the number of kinds of that day), every later day extends it.
Folders are names for the score alone: new photographs are given as a pile without labels.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomalyncd.api import compose
from anomalyncd.evaluation import metrics
from anomalyncd.extension.extend import extend
from anomalyncd.run import execute

DAYS = 5
FIRST_DAY_OF_NEW = 3
SETTINGS = ("experiment=discover", "detector=reference", "base=none", "tracker=none", "quiet=true")


@dataclass(frozen=True)
class Split:
    """Who appears when."""

    new_kind: str
    days: tuple[tuple[Path, ...], ...]


def split(product: Path, seed: int) -> Split:
    """Deal the photographs of `test/` to days; kinds in turn are the new one, by seed."""
    kinds = sorted(f.name for f in (product / "test").iterdir() if f.name != "combined")
    defects = [kind for kind in kinds if kind != "good"]
    new_kind = defects[seed % len(defects)]
    generator = np.random.default_rng(seed)
    days: list[list[Path]] = [[] for _ in range(DAYS)]
    for kind in kinds:
        images = sorted((product / "test" / kind).iterdir())
        possible = range(FIRST_DAY_OF_NEW - 1 if kind == new_kind else 0, DAYS)
        for number, index in enumerate(generator.permutation(len(images))):
            days[possible[number % len(possible)]].append(images[index])
    return Split(new_kind, tuple(map(tuple, days)))


def lay_out(product: Path, found: Split, folder: Path) -> None:
    """Links to the photographs: day 1 as a product with folders of kinds, other days as piles."""
    for number, images in enumerate(found.days, 1):
        for image in images:
            kind = image.parent.name
            if number == 1:
                place = folder / "day-1" / product.name / "test" / kind / image.name
            else:
                place = folder / f"day-{number}" / f"{kind}-{image.name}"
            _link(place, image)
        if number == 1:
            for sub in ("ground_truth", "train"):
                if (product / sub).is_dir():
                    _link(folder / "day-1" / product.name / sub, product / sub)


def _link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(place):
        place.symlink_to(target.resolve())


def measure(product: Path, seed: int, folder: Path, overrides: Sequence[str]) -> dict[str, object]:
    """Extend day by day; what became of the kinds after the last day."""
    found = split(product, seed)
    lay_out(product, found, folder)
    common = [*SETTINGS, "dataset=mvtec", f"category={product.name}", *overrides]
    result = execute(compose(*common, f"dataset.path={folder / 'day-1'}"))
    runs = [result.folder]
    for number in range(2, DAYS + 1):
        result = extend(runs[-1], folder / f"day-{number}", quiet=True)
        runs.append(result.folder)
    tables = [_classes(run) for run in runs]
    kinds = {os.path.realpath(p): p.parent.name for images in found.days for p in images}
    last = tables[-1]
    truth = [kinds[image] for image in last]
    classes = sorted(set(last.values()))
    kind_names = sorted(set(truth))
    score = metrics.score(
        np.array([kind_names.index(kind) for kind in truth]),
        np.array([classes.index(one) for one in last.values()]),
    )
    of_new = Counter(one for image, one in last.items() if kinds[image] == found.new_kind)
    records = [json.loads((run / "extension.json").read_text()) for run in runs[1:]]
    names = [_names(run) for run in runs[1:]]
    appended = [one["id"] for record in records for one in record["appended"]]
    return {
        "new_kind": found.new_kind,
        "nmi": score.nmi,
        "f1": score.f1,
        "appended": [len(record["appended"]) for record in records],
        "new_kind_is": dict(of_new.most_common()),
        "others_in_appended": dict(
            Counter(
                kinds[image]
                for image, one in last.items()
                if one in map(str, appended) and kinds[image] != found.new_kind
            )
        ),
        "waiting": records[-1]["waiting"],
        "moved": sum(len(record["moved"]) for record in records),
        "names_kept": all(b[: len(a)] == a for a, b in itertools.pairwise(names)),
        "changed_images": sum(
            before[image] != after[image]
            for before, after in itertools.pairwise(tables)
            for image in before
        ),
    }


def _classes(run: Path) -> dict[str, str]:
    """Class by image."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return {os.path.realpath(row["image"]): row["class"] for row in csv.DictReader(file)}


def _names(run: Path) -> list[str]:
    return [one["name"] for one in json.loads((run / "classes.json").read_text())["classes"]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("product", type=Path, help="a product's folder in the layout of MVTec AD")
    parser.add_argument("--folder", type=Path, required=True, help="for links to the photographs")
    parser.add_argument("--splits", default="0,1,2", help="numbers, with commas between them")
    parser.add_argument("--whole", action="store_true", help="also one run on all photographs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the runs")
    given = parser.parse_intermixed_args(arguments)
    if given.whole:
        settings = [*SETTINGS, "dataset=mvtec", f"category={given.product.name}", *given.overrides]
        whole = [f"dataset.path={given.product.parent}", "dataset.leave_out=[combined]"]
        found = execute(compose(*settings, *whole)).metrics["scores"]["image"]
        print(f"one run on everything: NMI {found['nmi']:.3f}, F1 {found['f1']:.3f}", flush=True)
    for seed in map(int, given.splits.split(",")):
        row = measure(given.product, seed, given.folder / f"split-{seed}", given.overrides)
        figures = ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
        )
        print(f"split {seed}: {figures}", flush=True)


if __name__ == "__main__":
    main()
