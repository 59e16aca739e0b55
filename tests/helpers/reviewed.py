"""Small finished runs, made without computing anything, and their review."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from anomalyncd.decisions.actions import Action, Confirm, Deny, Move, Reject
from anomalyncd.inference.unknown import Seen
from anomalyncd.results import known_regions
from anomalyncd.review.session import Review

SIDE = 64


def make_run(
    folder: Path,
    *,
    per_class: int = 4,
    classes: tuple[str, ...] = ("class 0", "class 1", "class 2"),
    image: str = "photo {}",
) -> Path:
    """A run with one photograph and one region for each of its images, class after class.

    Regions of a class have similar features. The confidence rises with the region's row.
    """
    run = folder / "run"
    run.mkdir(parents=True)
    generator = np.random.default_rng(0)
    count = per_class * len(classes)
    tokens = np.zeros((count, 8), np.float32)
    images, regions = [["id", "image", "threshold"]], []
    for row in range(count):
        number = row // per_class
        pixels = np.full((SIDE, SIDE, 3), 60 + 60 * number, np.uint8)
        pixels[20:40, 20:40] = generator.integers(0, 255, (20, 20, 3))
        path = folder / f"{row}.png"
        Image.fromarray(pixels).save(path)
        tokens[row, number] = 1
        tokens[row, 3:] = generator.normal(0, 0.05, 5)
        name = image.format(row)
        images.append([name, str(path), "100"])
        confidence = 0.3 + 0.6 * row / count
        box = [16, 16, 44, 44]
        regions.append([row, name, *box, 90, number, classes[number], f"{confidence:.4f}"])
    columns = [
        *("region", "id", "left", "top", "right", "bottom", "area", "class", "class_name"),
        "confidence",
    ]
    for file, rows in (("predictions.csv", images), ("regions.csv", [columns, *regions])):
        with (run / file).open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened, lineterminator="\n").writerows(rows)
    rows = np.arange(count)
    known_regions.write(run, tokens, tokens, Seen(tokens, rows), Seen(tokens, rows))
    return run


def move(review: Review, rows: list[int], class_id: str, name: str = "") -> Action:
    return Move(*review.addressed(rows), class_id, name)


def confirm(review: Review, rows: list[int], class_id: str, drawn: bool = False) -> Action:
    return Confirm(*review.addressed(rows), class_id, drawn)


def deny(review: Review, rows: list[int], class_id: str, drawn: bool = False) -> Action:
    return Deny(*review.addressed(rows), class_id, drawn)


def reject(review: Review, rows: list[int], reason: str) -> Action:
    return Reject(*review.addressed(rows), reason)
