"""Defects: a mark of any form (`shapes.mark`) that changes the surface in any of eight ways.

Form and effect are drawn independently, so that every form is seen with every effect: a scratch
may be a groove, dirt, a dyed line or a displaced strip.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from scripts.pretraining.fields import Field, log_uniform
from scripts.pretraining.painting import Canvas, box_blur, flat_colour, material, three
from scripts.pretraining.shapes import Points, mark

# What lies in `coverage`, round `centre` and about `size` pixels in radius, is changed in place.
Effect = Callable[[Generator, Canvas, Field, Points, float], None]


def shade(rng: Generator, canvas: Canvas, coverage: Field, centre: Points, size: float) -> None:
    """Darker or lighter."""
    tone = np.float32(rng.choice((0, 0, 255)))
    strength = np.float32(rng.uniform(0.35, 0.95))
    canvas.colour += (tone - canvas.colour) * three(coverage * strength)


def dye(rng: Generator, canvas: Canvas, coverage: Field, centre: Points, size: float) -> None:
    strength = np.float32(rng.uniform(0.4, 1))
    canvas.colour += (flat_colour(rng) - canvas.colour) * three(coverage * strength)


def _relief(rng: Generator, coverage: Field, size: float) -> Field:
    soft = cv2.GaussianBlur(coverage, (0, 0), log_uniform(rng, 0.6, 1 + size / 6))
    depth = log_uniform(rng, 1, 3 + size / 3) * rng.choice((-1, 1))
    return np.asarray(soft * np.float32(depth))


def dent(rng: Generator, canvas: Canvas, coverage: Field, centre: Points, size: float) -> None:
    """A hollow or a bump."""
    canvas.height += _relief(rng, coverage, size)


def plough(rng: Generator, canvas: Canvas, coverage: Field, centre: Points, size: float) -> None:
    """A groove that has raised its edges, or a bead in a trench."""
    relief = _relief(rng, coverage, size)
    canvas.height += relief - box_blur(relief, size / 12)


def replace(rng: Generator, canvas: Canvas, coverage: Field, centre: Points, size: float) -> None:
    """Another material: corrosion, lost coating, a foreign body."""
    colour, relief = material(rng, canvas.side)
    canvas.blend(coverage, colour, canvas.height * np.float32(0.3) + relief)


def smear(rng: Generator, canvas: Canvas, coverage: Field, centre: Points, size: float) -> None:
    reach = 2 * int(rng.integers(2, 12)) + 1
    box = ((reach, 1), (1, reach), (reach, reach))[rng.integers(3)]
    canvas.blend(coverage, cv2.blur(canvas.colour, box), cv2.blur(canvas.height, box))


def displace(rng: Generator, canvas: Canvas, coverage: Field, centre: Points, size: float) -> None:
    """The surface from nearby, turned and scaled: misprint, misweave, fold."""
    angle, scale = rng.normal(0, 25), rng.uniform(0.7, 1.4)
    turn = np.asarray(cv2.getRotationMatrix2D(tuple(centre), angle, scale), np.float64)
    turn[:, 2] += rng.normal(0, canvas.side / 15, 2)
    frame, border = (canvas.side, canvas.side), cv2.BORDER_REFLECT
    colour = cv2.warpAffine(canvas.colour, turn, frame, borderMode=border)
    canvas.blend(coverage, colour, cv2.warpAffine(canvas.height, turn, frame, borderMode=border))


def rim(rng: Generator, canvas: Canvas, coverage: Field, centre: Points, size: float) -> None:
    """Burnt, rusted or bright along the edge."""
    rim = np.minimum(2 * np.abs(coverage - box_blur(coverage, size / 10)), 1)
    canvas.colour += (flat_colour(rng) - canvas.colour) * three(rim)


SEEN: tuple[Effect, ...] = (shade, dye, dent, plough, replace, rim)
ON_A_PATTERN: tuple[Effect, ...] = (smear, displace)  # these do not show on a plain surface


def blemish(rng: Generator, canvas: Canvas) -> None:
    """Lay one defect on the canvas, mostly on a part if there is one; half of them are large."""
    side = canvas.side
    size = side * (rng.uniform(0.15, 0.45) if rng.random() < 0.5 else log_uniform(rng, 0.03, 0.15))
    centre = rng.uniform(0.15, 0.85, 2) * side
    if canvas.pieces and rng.random() < 0.8:
        trials = rng.uniform(0.05, 0.95, (12, 2)) * side
        on_piece = canvas.segments[trials[:, 1].astype(int), trials[:, 0].astype(int)] > 0
        centre = trials[int(on_piece.argmax())]
    coverage = mark(rng, side, centre, size)
    if rng.random() < 0.25:
        ON_A_PATTERN[rng.integers(2)](rng, canvas, coverage, centre, size)
    for effect in rng.choice(len(SEEN), int(rng.choice((1, 1, 2))), replace=False):
        SEEN[effect](rng, canvas, coverage, centre, size)
    canvas.number(coverage)
