"""What a run finds is far better than chance: the stages work together, not only each alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.helpers.runs import run

SIDE = 96
NOVEL = ("good", "dot", "scratch", "stain")
BASE = ("ring", "patch")
EACH = 8  # images of a kind
FLOOR = 0.8  # seeds 1 to 6 reached an NMI of 1; random classes have 0.1


def drawn(kind: str, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A grey plate with one defect of the kind somewhere, and the defect's mask."""
    image = rng.normal(120, 6, (SIDE, SIDE, 1)).repeat(3, axis=2)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    x, y = (int(v) for v in rng.integers(26, SIDE - 26, 2))
    match kind:
        case "dot":
            cv2.circle(mask, (x, y), 10, 255, -1)
        case "scratch":
            slope = int(rng.integers(-6, 7))
            cv2.line(mask, (x - 20, y - slope), (x + 20, y + slope), 255, 5)
        case "stain":
            cv2.ellipse(mask, (x, y), (20, 14), float(rng.uniform(0, 180)), 0, 360, 255, -1)
        case "ring":
            cv2.circle(mask, (x, y), 14, 255, 5)
        case "patch":
            cv2.rectangle(mask, (x - 12, y - 12), (x + 12, y + 12), 255, -1)
    colour = {
        "dot": (15, 15, 15),
        "scratch": (245, 245, 245),
        "stain": (170, 80, 30),
        "ring": (30, 60, 200),
        "patch": (40, 190, 60),
    }
    if mask.any():
        image[mask > 0] = np.array(colour[kind]) + rng.normal(0, 6, (int((mask > 0).sum()), 1))
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """Labelled plates, their maps, and a base set of other defects."""
    rng = np.random.default_rng(0)

    def save(place: str, pixels: NDArray[np.uint8]) -> None:
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for number in range(EACH):
        for kind in NOVEL:
            image, mask = drawn(kind, rng)
            save(f"plates/{kind}/{number}", image)
            blurred = cv2.GaussianBlur(mask.astype(float), (9, 9), 0) * 0.8
            noisy = blurred + rng.uniform(0, 20, mask.shape)
            save(f"maps/{kind}/{number}", noisy.astype(np.uint8))
        for kind in BASE:
            image, mask = drawn(kind, rng)
            save(f"base/images/{kind}/{number}", image)
            save(f"base/masks/{kind}/{number}", mask)
    return tmp_path


def settings(plates: Path) -> list[str]:
    return [
        *("experiment=offline_cpu", "dataset=folder", f"dataset.path={plates / 'plates'}"),
        *(f"detector.path={plates / 'maps'}", "base=folder", f"base.path={plates / 'base'}"),
        *("backbone.image_size=64", "train.epochs=80", "train.hidden=64", "train.bottleneck=32"),
        *("train.heads=2", "train.cached_views=4", "train.learning_rate=0.05"),
        *("tracker=none", "quiet=true", "device=cpu", f"output_root={plates / 'out'}"),
    ]


def test_a_run_finds_the_kinds_of_defects(plates: Path) -> None:
    scores = run([*settings(plates), "seed=1"]).metrics["scores"]
    assert scores["image"]["nmi"] > FLOOR
    assert scores["region"]["nmi"] > FLOOR
