"""The demo product: a turned metal flange with an enamelled ring, and what can go wrong with it."""

from __future__ import annotations

import math

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

# Lengths are in units of the outer radius.
BORE, HUB, RING, GROOVE = 0.17, 0.30, (0.34, 0.53), (0.57, 0.60)
AXIS = np.zeros(2)
BOLT_CIRCLE, BOLT, COUNTERSINK = 0.77, 0.075, 0.105  # six holes, the first at 30°
SIXTH = np.pi / 3

ENAMEL = np.array([0.07, 0.25, 0.46])
TICKS = np.array([0.86, 0.87, 0.83])
FRACTURE = np.array([0.52, 0.50, 0.48])
SOOT = np.array([0.05, 0.045, 0.04])
STAINS = np.array(  # rust, oil, heat tint, verdigris
    [[0.50, 0.23, 0.07], [0.15, 0.12, 0.07], [0.33, 0.18, 0.50], [0.16, 0.46, 0.36]]
)


def _fold(values: Array, period: float) -> Array:
    """Signed distance to the nearest odd multiple of half a `period`."""
    turns = np.floor(values * (1 / period))
    return values - period * (turns + 0.5)


def _machine(rng: Generator, side: int) -> Part:
    """A sound flange with its own pose, tint, lathe marks and light."""
    around = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    outline = np.column_stack([np.cos(around), np.sin(around)])
    tint = rng.uniform(0.94, 1.06) * rng.normal(1, 0.008, 3)
    part = lay_down(rng, side, outline, METAL * tint, max_turn=12)
    r, angle = cv2.cartToPolar(part.x, part.y)

    # What a lathe makes depends on the radius alone: computed once along it, then looked up.
    line = np.linspace(0, 2, 8192, dtype=np.float32)
    lookup = np.minimum(r * 4096, 8191).astype(np.int32)
    edge = 1.5 / part.unit  # antialiasing
    profile = 0.035 * step(1.0, 0.955, line)
    profile += 0.02 * (step(GROOVE[0], GROOVE[0] - 0.015, line) - 1)
    profile += 0.02 * step(GROOVE[1] - 0.015, GROOVE[1], line)
    profile += 0.03 * (step(HUB + 0.015, HUB - 0.015, line) - step(BORE + 0.03, BORE, line))
    on_ring = step(RING[0], RING[0] + edge, line) * step(RING[1], RING[1] - edge, line)
    profile += 0.02 * on_ring * (1 - ((line - sum(RING) / 2) / (RING[1] - RING[0]) * 2) ** 2)
    on_face = step(1.0, 1.0 - edge, line) * step(BORE, BORE + edge, line)
    on_ticks = step(RING[1] - 0.08, RING[1] - 0.07, line) * on_ring
    part.height, ring, part.solid, ticks = (
        np.take(values, lookup) for values in (profile, on_ring, on_face, on_ticks)
    )
    part.polish = 1 - ring

    # Six-fold symmetry: the nearest bolt hole is straight ahead after folding the angle.
    ahead = _fold(angle, SIXTH)
    bolt = cv2.magnitude(r * np.cos(ahead) - BOLT_CIRCLE, r * np.sin(ahead))
    part.solid *= step(BOLT, BOLT + edge, bolt)
    part.height -= 0.03 * step(COUNTERSINK, BOLT, bolt)

    paint(part.colour, ENAMEL * rng.normal(1, 0.04, 3), ring)
    ticks *= step(0.016, 0.016 - edge, np.abs(_fold(angle, SIXTH / 6)) * r)
    paint(part.colour, TICKS, ticks)
    part.sheen = _sheen(part.x, part.y, r, part.light - part.turn)
    part.streaks = _streaks(rng, part)

    keyway = part.around(np.array([0, BORE]), 0.12)
    across, up_to = np.abs(keyway.x), BORE + 0.07
    keyway.solid *= 1 - step(0.05, 0.05 - edge, across) * step(up_to, up_to - edge, keyway.y)
    return part


def _sheen(x: Array, y: Array, r: Array, light: float) -> Array:
    """Two lights in concentric grooves, (s, s): the opposite fans of a turned disc.

    A groove shines where it runs square to the light, as a hair does (Kajiya & Kay, 1989).
    """
    sheen = np.zeros_like(r)
    for lamp, narrow, strength in ((light, 5.0, 0.66), (light + 1.9, 9.0, 0.22)):
        along = (x * math.sin(lamp) - y * math.cos(lamp)) / (r + 1e-3)
        sheen += strength * np.exp(-narrow * along * along)
    return sheen


def _streaks(rng: Generator, part: Part) -> Array:
    """Unevenness of concentric lathe marks, (s, s), about 1."""
    s = len(part.x)
    angles, radii, arc = 256, s // 2, 48
    arcs = rng.standard_normal((angles, radii), dtype=np.float32)
    closed: Array = cv2.blur(np.concatenate([arcs[-arc:], arcs, arcs[:arc]]), (1, arc))[arc:-arc]
    closed *= math.sqrt(arc)
    circles = rng.standard_normal((1, radii), dtype=np.float32)
    polar = 1 + 0.035 * closed + 0.03 * circles
    # Without the last flag, pixels beyond the marks would be whatever the memory held.
    flags = cv2.WARP_POLAR_LINEAR | cv2.WARP_INVERSE_MAP | cv2.WARP_FILL_OUTLIERS
    return cv2.warpPolar(polar, (s, s), part.to_pixels[:, 2].tolist(), 1.05 * part.unit, flags)


# Defects ------------------------------------------------------------------------------------------


def _spot(rng: Generator, angle: float, low: float, high: float, clear: float = 0.06) -> Point:
    """A place in direction `angle`, low ≤ its radius < high, `clear` of the bolt holes."""
    ahead = angle % SIXTH - SIXTH / 2
    while True:
        radius = rng.uniform(low, high)
        from_bolt = math.hypot(radius * math.cos(ahead) - BOLT_CIRCLE, radius * math.sin(ahead))
        if from_bolt > COUNTERSINK + clear:
            return radius * towards(angle)


def _scratch(part: Part, rng: Generator, angle: float) -> None:
    """One to three bright, nearly straight and nearly parallel gouges."""
    middle, heading = _spot(rng, angle, 0.42, 0.88), rng.uniform(0, np.pi)
    part = part.around(middle, 0.5)
    t = np.linspace(-1, 1, 24)
    for _ in range(rng.integers(1, 4)):
        along = towards(heading + rng.normal(0, 0.06))
        across = along[::-1] * (-1, 1)
        start = middle + across * rng.normal(0, 0.035) + along * rng.normal(0, 0.04)
        bend = rng.normal(0, 0.025) * (t * t - 1)
        points = start + np.outer(t * rng.uniform(0.14, 0.32), along) + np.outer(bend, across)
        cover = stroke(part, points, rng.uniform(0.014, 0.024) * (1 - 0.8 * t * t))
        part.height -= rng.uniform(0.006, 0.012) * cv2.GaussianBlur(cover, (0, 0), 1.2)
        paint(part.colour, METAL * 1.25, cover)
        paint(part.polish, 0.0, 0.8 * cover)


def _crack(part: Part, rng: Generator, angle: float) -> None:
    """A dark, jagged line that branches."""
    length, heading = rng.uniform(0.36, 0.62), rng.uniform(0, 2 * np.pi)
    middle = _spot(rng, angle, 0.42, 0.84)
    part = part.around(middle, 0.6)
    cover = np.zeros_like(part.height)

    def grow(start: Point, heading: float, length: float, width: float) -> None:
        steps = max(round(length / 0.035), 3)
        headings = heading + np.cumsum(rng.normal(0, 0.12, steps)) + rng.normal(0, 0.5, steps)
        strides = rng.uniform(0.4, 1.6, steps) * length / steps
        moves = np.column_stack([np.cos(headings), np.sin(headings)]) * strides[:, None]
        points = np.vstack([start, start + np.cumsum(moves, axis=0)])
        np.maximum(cover, stroke(part, points, width * np.linspace(1, 0.3, steps + 1)), out=cover)
        if length > 0.2:
            for node in rng.choice(np.arange(2, steps), rng.integers(2, 4), replace=False):
                fork = heading + rng.choice([-1, 1]) * rng.uniform(0.6, 1.1)
                grow(points[node], fork, length * rng.uniform(0.25, 0.32), 0.7 * width)

    grow(middle - towards(heading) * length / 2, heading, length, rng.uniform(0.016, 0.025))
    part.height -= 0.012 * cv2.GaussianBlur(cover, (0, 0), 1.5)
    paint(part.colour, SOOT, cover)
    paint(part.polish, 0.0, cover)


def _stain(part: Part, rng: Generator, angle: float) -> None:
    """A soft-edged blot of rust, oil, heat tint or verdigris."""
    middle, size = _spot(rng, angle, 0.38, 0.85), rng.uniform(0.08, 0.16)
    part = part.around(middle, 4 * size)
    blot = np.zeros_like(part.height)
    for _ in range(rng.integers(3, 7)):
        away = distance(part, middle + rng.normal(0, 0.65 * size, 2))
        blot += np.exp(-((away / (size * rng.uniform(0.4, 0.8))) ** 2) / 2)
    blot *= 1 + 0.22 * cloud(rng, blot.shape, 0.055 * part.unit)
    body, core = step(0.08, 0.9, blot), step(0.5, 1.8, blot)
    cover = (0.7 * body + 0.2 * core) * rng.uniform(0.75, 1.0)
    paint(part.colour, STAINS[rng.integers(len(STAINS))], cover)
    paint(part.polish, 0.0, 0.5 * cover)


def _hole(part: Part, rng: Generator, angle: float) -> None:
    """A dark round pit with a raised, lit rim; sometimes with a smaller one or two beside it."""
    size = rng.uniform(0.055, 0.115)
    middle = _spot(rng, angle, 0.38, 0.88, clear=1.3 * size)
    part = part.around(middle, 4 * size)
    wobble = 1 + 0.07 * cloud(rng, part.height.shape, 0.1 * part.unit)
    pits = [(middle, size)]
    for scale in rng.uniform(0.3, 0.55, rng.integers(0, 3)).tolist():
        beside = towards(rng.uniform(0, 2 * np.pi)) * size * rng.uniform(1.7, 2.2)
        pits.append((middle + beside, size * scale))
    for place, radius in pits:
        d = distance(part, place) * wobble / radius  # 1 at the pit's edge
        part.height += 0.22 * radius * bell(d, 1.05, 0.22)
        part.height -= 0.55 * radius * step(1.0, 0.5, d)
        inside = step(1.0, 0.78, d)
        paint(part.colour, SOOT * 1.6, inside)
        paint(part.polish, 0.0, inside)


def _chip(part: Part, rng: Generator, angle: float) -> None:
    """A bite out of the outer edge, with a rough fracture face around what is missing."""
    depth, half = rng.uniform(0.11, 0.2), rng.uniform(0.1, 0.24)
    part = part.around(towards(angle), 0.45)
    outward, along = along_across(part, angle, AXIS)
    d = cv2.magnitude((outward - 1) / depth, along / half)
    d = d + 0.12 * cloud(rng, d.shape, 0.07 * part.unit)
    broken = step(1.0, 0.95, d)
    rough = 0.0015 * cloud(rng, d.shape, 0.025 * part.unit)
    part.height -= broken * (0.2 * depth * (1 - d) + rough)
    grain = 0.06 * cloud(rng, d.shape, 0.02 * part.unit)
    paint(part.colour, FRACTURE[:, None, None] * (1 + grain), broken)
    paint(part.polish, 0.0, broken)
    part.solid *= 1 - step(0.66, 0.6, d + rng.uniform(-0.06, 0.1))


def _misprint(part: Part, rng: Generator, angle: float) -> None:
    """Enamel that did not take: a ragged gap in the printed ring, bare metal showing."""
    part = part.around(towards(angle) * sum(RING) / 2, 0.4)
    outward, along = along_across(part, angle, AXIS)
    gap: Array = 1 - np.abs(np.arctan2(along, outward)) / rng.uniform(0.22, 0.6)
    gap = gap + rng.uniform(0.12, 0.3) * cloud(rng, gap.shape, 0.055 * part.unit)
    ring = 1 - part.polish  # of a sound part: nothing else is unpolished
    bare = step(0.1, 0.2, gap) * ring
    part.height -= 0.008 * bare
    paint(part.colour, METAL, bare)
    paint(part.polish, 1.0, bare)


FLANGE = Product(
    _machine,
    {
        "chip": _chip,
        "crack": _crack,
        "hole": _hole,
        "misprint": _misprint,
        "scratch": _scratch,
        "stain": _stain,
    },
)
