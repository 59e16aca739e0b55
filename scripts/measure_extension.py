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
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomalyncd.api import compose
from anomalyncd.evaluation import metrics
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
