"""Small finished runs, made without computing anything, and their review."""

from __future__ import annotations

import csv
import json
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
    width: int = 8,
) -> Path:
    """A run with one photograph and one region for each of its images, class after class.

    Regions of a class have similar features. The confidence rises with the region's row.
    """
    run = folder / "run"
    run.mkdir(parents=True)
    generator = np.random.default_rng(0)
    count = per_class * len(classes)
    tokens = np.zeros((count, width), np.float32)
    columns = ["id", "image", "class", "class_name", "confidence", "main_elements", "threshold"]
    images, regions = [columns], []
    for row in range(count):
        number = row // per_class
        pixels = np.full((SIDE, SIDE, 3), 60 + 60 * number, np.uint8)
        pixels[20:40, 20:40] = generator.integers(0, 255, (20, 20, 3))
        path = folder / f"{row}.png"
        Image.fromarray(pixels).save(path)
        tokens[row, number] = 1
        tokens[row, 3:] = generator.normal(0, 0.05, width - 3)
        name = image.format(row)
        confidence = 0.3 + 0.6 * row / count
        images.append([name, str(path), number, classes[number], f"{confidence:.4f}", 1, "100"])
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
    centres = generator.normal(size=(len(classes), 16))
    looks = np.repeat(centres, per_class, axis=0) + generator.normal(0, 0.1, (count, 16))
    known_regions.write(
        run, tokens, looks.astype(np.float32), Seen(tokens, rows), Seen(tokens, rows)
    )
    return run


def make_finished_run(folder: Path, *, per_class: int = 4, normal: bool = False) -> Path:
    """The same with all files of a finished run: a network that nothing has trained.

    normal: nothing was found in the photographs of class 0.
    """
    from tests.helpers.finished import finished_run  # timm takes seconds to load

    run = make_run(folder, per_class=per_class, width=192)
    names = ("class 0", "class 1", "class 2")
    finished_run(run, names=names)
    settings = {
        "dataset": {"kind": "folder", "path": "photos"},
        "base": {"kind": "none"},
        "backbone": {"name": "vit_tiny_patch16_224", "pretrained": False, "image_size": 32},
        "detector": {"kind": "files", "path": "maps"},
        "category": "plates",
        "seed": 1,
    }
    (run / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    metrics = {
        **{"dataset": "folder", "category": "plates", "detector": "files", "seed": 1, "head": 1},
        **{"scores": {"image": None, "region": None}, "normal_recall": {"image": None}},
        **{"detection": {}, "mebin": {}, "device": "cpu"},
    }
    if normal:
        table = (run / "regions.csv").read_text()
        (run / "regions.csv").write_text(table.replace(",90,0,class 0,", ",0,0,class 0,"))
    (run / "metrics.json").write_text(json.dumps(metrics))
    return run


def move(review: Review, rows: list[int], class_id: str, name: str = "") -> Action:
    return Move(*review.addressed(rows), class_id, name)


def confirm(review: Review, rows: list[int], class_id: str, drawn: bool = False) -> Action:
    return Confirm(*review.addressed(rows), class_id, drawn)


def deny(review: Review, rows: list[int], class_id: str, drawn: bool = False) -> Action:
    return Deny(*review.addressed(rows), class_id, drawn)


def reject(review: Review, rows: list[int], reason: str) -> Action:
    return Reject(*review.addressed(rows), reason)
