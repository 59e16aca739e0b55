"""Drawn products, so that a first run needs neither a download nor a network.

The demo product is a flange with six kinds of defect (`flange.py`); the labelled base set shows a
cover panel with four other kinds (`panel.py`). Both are photographed alike (`rendering.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from anomalyncd.data.demo.flange import FLANGE
from anomalyncd.data.demo.panel import PANEL
from anomalyncd.data.demo.rendering import picture

BASE_CLASSES = tuple(PANEL.defects)
VERSION = 1  # part of the cache key of whatever is drawn: raise it when pictures change


def draw(
    root: Path,
    *,
    seed: int = 0,
    side: int = 256,
    train: int = 24,
    good: int = 20,
    per_class: int = 16,
    combined: int = 8,
) -> None:
    """Draw the demo product as a category folder in the layout of MVTec AD.

    Args:
        root: the category's folder.
        seed: ≥ 0; another seed gives other parts and other defects.
        side: height and width of the pictures in pixels.
        train: number of defect-free training pictures.
        good: number of defect-free test pictures.
        per_class: number of test pictures of each kind of defect.
        combined: number of test pictures with two kinds of defect on one part.
    """
    pairs = [(a, b) for a in FLANGE.defects for b in FLANGE.defects if a < b]
    spread = pairs[::4] + pairs[1::4] + pairs[2::4] + pairs[3::4]  # a few show every kind
    plan: dict[str, tuple[int, Sequence[tuple[str, ...]]]] = {
        "train/good": (train, [()]),
        "test/good": (good, [()]),
        **{f"test/{kind}": (per_class, [(kind,)]) for kind in FLANGE.defects},
        "test/combined": (combined, spread),
    }
    for folder, (count, choices) in plan.items():
        for index in range(count):
            kinds = choices[index % len(choices)]
            image, truth = picture(FLANGE, _streams(seed, folder, index), kinds, side)
            _write(root / folder / f"{index:03d}.png", image[..., ::-1])
            if kinds:
                masks = root / "ground_truth" / folder.removeprefix("test/")
                _write(masks / f"{index:03d}_mask.png", truth.astype(np.uint8) * 255)


def draw_base(root: Path, *, seed: int = 0, per_class: int = 24, side: int = 256) -> None:
    """Draw a labelled base set: another product, with kinds of defect that the first one lacks.

    The layout is `images/<class>/<stem>.png` with `masks/<class>/<stem>.png`, as in the release.

    Args:
        root: the base set's folder.
        seed: ≥ 0; another seed gives other parts and other defects.
        per_class: number of pictures of each kind of defect.
        side: height and width of the pictures in pixels.
    """
    for kind in PANEL.defects:
        for index in range(per_class):
            image, truth = picture(PANEL, _streams(seed, f"base/{kind}", index), (kind,), side)
            name = f"{kind}/{index:03d}.png"
            _write(root / "images" / name, image[..., ::-1])
            _write(root / "masks" / name, truth.astype(np.uint8) * 255)


def _streams(seed: int, folder: str, index: int) -> list[SeedSequence]:
    """A picture's own chance: other counts leave the remaining pictures as they are."""
    return SeedSequence([seed, zlib.crc32(folder.encode()), index]).spawn(2)


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    """Write PNG through Python: OpenCV's own writer fails silently on some names of folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
