"""Draw the labelled base set inside the package, `base=embedded`.

    python -m scripts.make_base_set                         # writes anomalyncd/data/base_set
    python -m scripts.make_base_set --out DIR --seed 1      # another one, for base=folder

Each picture shows one defect on a surface of its own. A class is a form with an effect on the
surface, on every surface alike: what tells classes apart is the defect, never the surface.
"""

from __future__ import annotations

import argparse
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.data.datasets import EMBEDDED_BASE
from scripts.pretraining import shapes
from scripts.pretraining.defects import Effect, dent, dye, plough, replace, shade
from scripts.pretraining.drawing import lit, part, photographed, surface
from scripts.pretraining.fields import Field, log_uniform
from scripts.pretraining.painting import Canvas, three

SIDE = 128  # pixels of a picture
PER_CLASS = 40
_DRAWN = 192  # patterns are designed for this size
_LEAST_CONTRAST = 14.0  # mean change of a defect's pixels, of 255
_AREA = (0.004, 0.5)  # of a defect, as a share of the picture


def dark(
    rng: Generator, canvas: Canvas, coverage: Field, centre: shapes.Points, size: float
) -> None:
    """Nearly black, as a hole or a gap is."""
    tone = np.float32(rng.uniform(0, 30))
    canvas.colour += (tone - canvas.colour) * three(coverage * np.float32(rng.uniform(0.7, 1)))


@dataclass(frozen=True)
class Kind:
    """A class of defects: a form, its size as a share of the picture, and one of some effects."""

    form: shapes.Mark
    sizes: tuple[float, float]
    effects: tuple[tuple[Effect, ...], ...]


KINDS: dict[str, Kind] = {
    "break": Kind(shapes.bite, (0.25, 0.45), ((dark,), (replace,))),
    "corrosion": Kind(shapes.scatter, (0.15, 0.4), ((replace,), (dye,))),
    "crack": Kind(shapes.crack, (0.12, 0.4), ((dark,),)),
    "dent": Kind(shapes.patch, (0.06, 0.25), ((dent,),)),
    "hole": Kind(shapes.pores, (0.05, 0.2), ((dark, dent),)),
    "scratch": Kind(shapes.scratches, (0.12, 0.4), ((plough,), (shade,), (plough, shade))),
    "stain": Kind(shapes.stain, (0.1, 0.3), ((dye,), (shade,))),
    "thread": Kind(shapes.thread, (0.06, 0.15), ((dye, dent),)),
}


def picture(seed: SeedSequence, kind: Kind) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One picture (SIDE, SIDE, 3) RGB with one visible defect, and its mask (SIDE, SIDE)."""
    while True:
        scene, defect, light, camera = map(np.random.default_rng, seed.spawn(4))
        canvas = (part if scene.random() < 0.3 else surface)(scene, _DRAWN)
        sound = Canvas(canvas.colour.copy(), canvas.height.copy(), canvas.segments)
        size = _DRAWN * log_uniform(defect, *kind.sizes)
        centre = defect.uniform(0.3, 0.7, 2) * _DRAWN
        coverage = kind.form(defect, _DRAWN, centre, size)
        for effect in kind.effects[defect.integers(len(kind.effects))]:
            effect(defect, canvas, coverage, centre, size)
        before = lit(_same(light), sound)
        after = lit(_same(light), canvas)
        mask = coverage > 0.4
        if not _AREA[0] < mask.mean() < _AREA[1]:
            continue
        change = np.abs(after.clip(0, 255) - before.clip(0, 255)).mean(axis=2)
        if change[mask].mean() < _LEAST_CONTRAST:
            continue
        image = cv2.resize(photographed(camera, after), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        levels = cv2.resize(mask.astype(np.uint8) * 255, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return np.asarray(image, np.uint8), levels > 100


def _same(rng: Generator) -> Generator:
    """A generator in the same state, so that two pictures are lit alike."""
    copied = np.random.default_rng()
    copied.bit_generator.state = rng.bit_generator.state
    return copied


def draw(out: Path, *, seed: int, per_class: int, kinds: dict[str, Kind] = KINDS) -> None:
    """Write `images/<class>/<number>.jpg` and `masks/<class>/<number>.png`.

    Args:
        out: the base set's folder.
        seed: ≥ 0; another seed gives other pictures.
        per_class: number of pictures of each class.
        kinds: the classes.
    """
    for name, kind in kinds.items():
        images, masks = out / "images" / name, out / "masks" / name
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            own = SeedSequence([seed, zlib.crc32(name.encode()), index])
            image, mask = picture(own, kind)
            Image.fromarray(image).save(images / f"{index:03d}.jpg", quality=85, optimize=True)
            Image.fromarray(mask).save(masks / f"{index:03d}.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=EMBEDDED_BASE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=PER_CLASS)
    given = parser.parse_args()
    draw(given.out, seed=given.seed, per_class=given.per_class)
