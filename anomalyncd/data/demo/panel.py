"""The product of the drawn base set: a painted sheet-metal cover with vents, and what can go wrong.

Its kinds of defect are none of the flange's: a base set teaches what defects look like, not which.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from anomalyncd.data.demo.rendering import (
    METAL,
    Array,
    Part,
    Point,
    Product,
    along_across,
    bell,
    cloud,
    distance,
    lay_down,
    paint,
    step,
    stroke,
    towards,
)

# Lengths are in units of slightly less than half the cover's width.
HALF, CORNER = (1.02, 0.80), 0.16
BEAD = 0.20  # from the edge
VENT = (0.50, 0.03)  # half length and half width of a slot
VENTS, FIRST_VENT, VENT_PITCH = 3, 0.25, 0.115
SCREWS = [np.array([x, y]) for x in (-0.92, 0.92) for y in (-0.70, 0.70)]
SCREW, RECESS = 0.055, 0.075
BOW = 0.055  # how much the sheet bulges: its highlight lies where it faces the lamp

PAINT = np.array([0.50, 0.60, 0.52])
FOREIGN = np.array([[0.10, 0.10, 0.11], [0.90, 0.90, 0.86], [0.16, 0.26, 0.40]])  # spattered paint
LINT = np.array([[0.07, 0.06, 0.05], [0.30, 0.10, 0.08], [0.13, 0.16, 0.30]])


def _beyond(x: Array, y: Array, half: tuple[float, float], corner: float) -> Array:
    """Distance from the edge of a rectangle with round corners, negative inside."""
    qx, qy = np.abs(x) - (half[0] - corner), np.abs(y) - (half[1] - corner)
    outside = cv2.magnitude(np.maximum(qx, 0), np.maximum(qy, 0))
    return outside + np.minimum(np.maximum(qx, qy), 0) - corner


def _stamp(rng: Generator, side: int) -> Part:
    """A sound cover with its own pose, tint, texture, screws and light."""
    outline = np.array(HALF) * [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    tint = rng.uniform(0.95, 1.05) * rng.normal(1, 0.015, 3)
    part = lay_down(rng, side, outline, PAINT * tint, max_turn=6)
    edge = 1.5 / part.unit  # antialiasing
    inward = -_beyond(part.x, part.y, HALF, CORNER)
    part.solid = step(0, edge, inward)
    part.height = 0.04 * step(0, 0.06, inward)
    part.height += 0.02 * bell(inward, BEAD, 0.04)
    part.height -= BOW * (part.x * part.x + part.y * part.y)
    part.height += 0.00025 * cloud(rng, part.height.shape, 0.035 * part.unit)

    vents = part.around(np.array([0, FIRST_VENT + VENT_PITCH]), VENT[0] + 0.1)
    down = vents.y - FIRST_VENT
    nearest = np.clip(np.rint(down * (1 / VENT_PITCH)), 0, VENTS - 1)
    beyond = _beyond(vents.x, down - VENT_PITCH * nearest, VENT, VENT[1])
    vents.height += 0.012 * step(0.045, 0, beyond)
    vents.solid *= step(0, edge, beyond)

    for place in SCREWS:
        window = part.around(place, 0.12)
        d = distance(window, place)
        window.height -= 0.012 * step(RECESS + 0.015, RECESS, d)
        head = step(SCREW, SCREW - edge, d)
        window.height += 0.02 * step(SCREW + 0.01, SCREW - 0.02, d)
        paint(window.colour, METAL, head)
        paint(window.polish, 1.0, head)
        _, across = along_across(window, rng.uniform(0, np.pi), place)
        slot = step(0.013, 0.013 - edge, np.abs(across)) * head
        window.height -= 0.01 * slot
        paint(window.colour, METAL * 0.2, slot)
    return part


# Defects ------------------------------------------------------------------------------------------


def _spot(rng: Generator, angle: float, clear: float) -> Point:
    """A place in direction `angle` on the panel's field, `clear` of the vents."""
    reach = np.array(HALF) - BEAD - 0.05
    while True:
        place = rng.uniform(0.05, 1) * reach * towards(angle)
        if abs(place[0]) > VENT[0] + clear or place[1] < FIRST_VENT - clear:
            return place


def _dent(part: Part, rng: Generator, angle: float) -> None:
    """A smooth hollow or bump that bends the highlight; the paint holds."""
    size, squeeze = rng.uniform(0.09, 0.17), rng.uniform(0.6, 1.0)
    middle = _spot(rng, angle, 0.1)
    part = part.around(middle, 4 * size)
    along, across = along_across(part, rng.uniform(0, np.pi), middle)
    d: Array = cv2.magnitude(along, across / squeeze) / size
    d *= 1 + 0.08 * cloud(rng, d.shape, 0.25 * part.unit)
    depth = rng.choice([-1, 1], p=[0.7, 0.3]) * rng.uniform(0.3, 0.5) * size
    part.height += depth * np.exp(-(d**2.4) / 2)


def _fibre(part: Part, rng: Generator, angle: float) -> None:
    """A hair or two caught in the wet paint: smoothly curled lines, slightly raised."""
    middle = _spot(rng, angle, 0.2)
    part = part.around(middle, 0.6)
    for _ in range(rng.choice([1, 2], p=[0.7, 0.3])):
        length, steps = rng.uniform(0.7, 1.3), 64
        curl = rng.normal(0, 3) + 9 * cloud(rng, (1, steps), 16)[0]  # radians per unit
        headings = rng.uniform(0, 2 * np.pi) + np.cumsum(curl) * length / steps
        moves = np.column_stack([np.cos(headings), np.sin(headings)]) * length / steps
        points = np.cumsum(moves, axis=0)
        points += middle - points.mean(axis=0) + rng.normal(0, 0.05, 2)
        cover = stroke(part, points, np.full(steps, rng.uniform(0.010, 0.016)))
        part.height += 0.007 * cv2.GaussianBlur(cover, (0, 0), 1.5)
        paint(part.colour, LINT[rng.integers(len(LINT))], 0.9 * cover)


def _run(part: Part, rng: Generator, angle: float) -> None:
    """Sagging paint: one to three drips that thicken downwards and end in a drop."""
    middle = _spot(rng, angle, 0.15)
    part = part.around(middle, 0.6)
    count = rng.integers(1, 4)
    sag = np.zeros_like(part.height)
    for i in range(count):
        width, length = rng.uniform(0.04, 0.065), rng.uniform(0.2, 0.5)
        x = part.x - float(middle[0] + (i - (count - 1) / 2) * rng.uniform(0.13, 0.18))
        y = part.y - float(middle[1]) + 0.3
        along = np.clip(y / length, 0, 1)
        wide = width * (0.45 + 0.25 * along + 0.5 * along**8)
        d = cv2.magnitude(x, y - along * length) / wide
        np.maximum(sag, wide * np.maximum(1 - d * d, 0), out=sag)
    part.height += 0.6 * sag
    paint(part.colour, PAINT * (0.8, 0.86, 0.8), step(0, 0.03, sag))


def _spatter(part: Part, rng: Generator, angle: float) -> None:
    """Many small raised droplets of some other paint, dense at one place and thrown one way."""
    middle, thrown = _spot(rng, angle, 0.15), rng.uniform(-np.pi, 0)
    colour = FOREIGN[rng.integers(len(FOREIGN))]
    for _ in range(rng.integers(30, 70)):
        far, size = 0.35 * rng.beta(1, 2), min(0.011 * rng.lognormal(0.3, 0.5), 0.045)
        place = middle + far * towards(thrown + rng.normal(0, 0.5))
        window = part.around(place, 1.5 * size + 0.02)
        d = distance(window, place) / size
        window.height += 0.5 * size * np.maximum(1 - d * d, 0)
        paint(window.colour, colour, step(1.0, 0.8, d))


PANEL = Product(_stamp, {"dent": _dent, "fibre": _fibre, "run": _run, "spatter": _spatter})
