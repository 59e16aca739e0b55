"""Coverage masks (side, side) in [0, 1] of what lies on a ground: outlines of parts, and marks.

Outlines are closed polygons round a centre; marks are where defects are: scratches, cracks,
pores, stains, tears, threads. What a mark does to the surface is decided elsewhere
(`drawing.blemish`), so that every form is seen with every effect.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scripts.pretraining.fields import Field, clouds, islands, log_uniform, window

Points = NDArray[np.float64]
Mark = Callable[[Generator, int, Points, float], Field]


def filled(side: int, *outlines: Points) -> Field:
    """Coverage of the polygons `outlines` (n, 2) in pixels, with smooth edges."""
    canvas = np.zeros((side, side), np.uint8)
    for outline in outlines:
        cv2.fillPoly(canvas, [(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) * np.float32(1 / 255)


def depth_inside(coverage: Field) -> Field:
    """How many pixels inside the covered each pixel lies; the side, where there is no outside."""
    inside = cv2.distanceTransform((coverage > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return np.minimum(inside, np.float32(len(coverage)))


def stroked(side: int, curves: list[Points], widths: list[int]) -> Field:
    """Coverage of open `curves` (n, 2) in pixels, each with its width."""
    canvas = np.zeros((side, side), np.uint8)
    for curve, width in zip(curves, widths, strict=True):
        cv2.polylines(canvas, [(curve * 16).astype(np.int32)], False, 255, width, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) * np.float32(1 / 255)


def outline(rng: Generator, centre: Points, size: float) -> Points:
    """A closed polygon round `centre` with a radius near `size`, in pixels."""
    kind = rng.integers(7)
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    if kind == 0:  # blob
        for order in range(2, 7):
            radius += rng.normal(0, 0.35 / order) * np.cos(order * angle + rng.uniform(0, 6.3))
        radius = np.maximum(radius, 0.15)
    elif kind == 1:  # polygon or star
        corners = int(rng.integers(3, 9))
        angle = np.linspace(0, 2 * np.pi, 2 * corners, endpoint=False)
        radius = np.ones_like(angle)
        radius[1::2] = np.cos(np.pi / corners) if rng.random() < 0.6 else rng.uniform(0.3, 0.8)
    elif kind == 2:  # gear
        teeth = int(rng.integers(6, 30))
        angle = np.repeat(np.linspace(0, 2 * np.pi, 2 * teeth, endpoint=False), 2)
        angle[1::2] += np.pi / teeth * rng.uniform(0.5, 0.95)
        radius = np.where(np.arange(4 * teeth) % 4 < 2, 1.0, rng.uniform(0.7, 0.92))
    elif kind == 3:  # rounded box, from square to ellipse
        power = log_uniform(rng, 1, 12)
        radius = (np.abs(np.cos(angle)) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power)
    elif kind == 4:  # fragment
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 9)))
        radius = rng.uniform(0.5, 1.2, len(angle))
    elif kind == 5:  # petals
        radius = 1 + rng.uniform(0.1, 0.6) * np.cos(rng.integers(2, 9) * angle)
    else:  # drop or leaf
        radius = (0.6 + 0.4 * np.cos(angle)) ** rng.uniform(0.4, 1.5) + 0.05
    points = np.column_stack((np.cos(angle), np.sin(angle))) * radius[:, None] * size
    points[:, 1] *= rng.choice((1.0, rng.uniform(0.25, 1.0)))
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation.T + centre


def walk(rng: Generator, start: Points, length: float, roughness: float) -> Points:
    """A curve of `length` pixels from `start` whose direction drifts by `roughness` radians."""
    steps = 20
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, roughness, steps))
    moves = np.column_stack((np.cos(heading), np.sin(heading))) * (length / steps)
    return np.vstack((start, start + np.cumsum(moves, axis=0)))


def scratches(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """Near-parallel thin curves that fade where the tool lifts."""
    count = int(log_uniform(rng, 1, 8))
    first = walk(rng, centre, 2 * size, rng.uniform(0, 0.08))
    first = first - first.mean(axis=0) + centre
    curves = [first + rng.normal(0, size * 0.2, 2) * (i > 0) for i in range(count)]
    width = max(1, round(log_uniform(rng, 0.5, 1 + size / 8)))
    mask = stroked(side, curves, [width] * count)
    return mask * np.clip(islands(rng, side) + np.float32(rng.uniform(0, 1)), 0, 1)


def crack(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """A rough line that branches, thinner at each branch."""
    width = log_uniform(rng, 1, 2 + size / 12)
    roughness = rng.uniform(0.2, 0.6)
    trunk = walk(rng, centre, 2 * size, roughness)
    curves, widths = [trunk - trunk.mean(axis=0) + centre], [max(1, round(width))]
    for _ in range(int(rng.integers(0, 6))):
        parent = curves[rng.integers(len(curves))]
        at = parent[rng.integers(4, len(parent))]
        curves.append(walk(rng, at, size * rng.uniform(0.2, 0.9), roughness))
        widths.append(max(1, round(width * 0.6)))
    return stroked(side, curves, widths)


def patch(rng: Generator, side: int, centre: Points, size: float) -> Field:
    return filled(side, outline(rng, centre, size))


def _distance(side: int, centre: Points, angle: float, aspect: float) -> Field:
    """Elliptic distance from `centre` in pixels along the long axis."""
    x = np.arange(side, dtype=np.float32) - np.float32(centre[0])
    y = (np.arange(side, dtype=np.float32) - np.float32(centre[1]))[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.hypot(x * cos + y * sin, (y * cos - x * sin) * np.float32(aspect))


def stain(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """A ragged spot, round to very long, with a soft or hard edge: stain, burn, smear, rust."""
    distance = _distance(side, centre, rng.uniform(0, np.pi), log_uniform(rng, 1, 8))
    rough = np.float32(rng.uniform(0, 1.5)) * (clouds(rng, side) - np.float32(0.5))
    steep = np.float32(log_uniform(rng, 1, 20))
    return np.clip((1 - distance * np.float32(1 / size) + rough) * steep, 0, 1)


def pores(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """One hole, or a cluster of holes, droplets or specks."""
    count = int(log_uniform(rng, 1, 60))
    canvas = np.zeros((side, side), np.uint8)
    spread = size * 0.5 * (count > 1)
    radius = size / np.sqrt(count) * rng.uniform(0.15, 0.8, count) + 0.8
    where = centre + rng.normal(0, 1, (count, 2)) * spread
    for at, r in zip((where * 16).astype(int).tolist(), (radius * 16).astype(int), strict=True):
        cv2.circle(canvas, at, int(r), 255, -1, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) * np.float32(1 / 255)


def thread(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """A loose thread, hair, wire or chip."""
    curve = walk(rng, centre, 4 * size, rng.uniform(0.1, 0.5))
    return stroked(side, [curve - curve.mean(axis=0) + centre], [round(log_uniform(rng, 1, 7))])


def tear(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """A gash: wide in the middle, pointed at both ends, ragged."""
    spine = walk(rng, centre, 2 * size, 0.05)
    spine += centre - spine.mean(axis=0)
    along = spine[-1] - spine[0]
    normal = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-6)
    width = np.sin(np.linspace(0, np.pi, len(spine))) * size * log_uniform(rng, 0.04, 0.5)
    ragged = rng.uniform(0.4, 1, (2, len(spine))) * width
    upper, lower = spine + normal * ragged[0][:, None], spine - normal * ragged[1][:, None]
    return filled(side, np.vstack((upper, lower[::-1])))


def bite(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """All beyond a rough line: a broken-off, uncoated or shifted side."""
    angle = rng.uniform(0, 2 * np.pi)
    far = centre + np.array([np.cos(angle), np.sin(angle)]) * (side - size)
    distance = _distance(side, far, 0.0, 1.0)
    rough = (clouds(rng, side) - np.float32(0.5)) * np.float32(rng.uniform(0, side / 3))
    return np.clip((np.float32(side - size) - distance + rough) * np.float32(0.5), 0, 1)


def ring(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """A closed contour: the edge of a dried drop, an imprint, a scuffed rim."""
    width = max(1, round(log_uniform(rng, 1, 2 + size / 4)))
    contour = outline(rng, centre, size)
    return stroked(side, [np.vstack((contour, contour[:1]))], [width])


def scatter(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """Flakes of noise within a round region: corrosion, abrasion, dust."""
    near = np.clip(2 - 2 * _distance(side, centre, 0.0, 1.0) * np.float32(1 / size), 0, 1)
    flakes = window(rng, side, "clouds", log_uniform(rng, 0.3, 2))
    level = np.float32(rng.uniform(0.45, 0.7))
    return np.clip((flakes - level) * 15, 0, 1) * near


def band(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """A soft straight band across the picture: fold, crease, roll mark, missing row."""
    angle = rng.uniform(0, np.pi)
    x = np.arange(side, dtype=np.float32) - np.float32(centre[0])
    y = (np.arange(side, dtype=np.float32) - np.float32(centre[1]))[:, None]
    across = np.abs(x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))
    across += clouds(rng, side) * np.float32(rng.uniform(0, size / 2))
    half = np.float32(1 + size * rng.uniform(0.05, 0.3))
    return np.clip((half - across) * np.float32(log_uniform(rng, 0.05, 1)), 0, 1)


MARKS: tuple[Mark, ...] = (
    scratches, scratches, crack, crack, patch, patch, stain, stain, pores, pores,
    thread, tear, tear, bite, ring, scatter, band,
)  # fmt: skip


def mark(rng: Generator, side: int, centre: Points, size: float) -> Field:
    """Coverage (side, side) of a random mark round `centre`, `size` pixels in radius."""
    return MARKS[rng.integers(len(MARKS))](rng, side, centre, size)


def turned_part(rng: Generator, side: int) -> tuple[Field, Field]:
    """A body of revolution (screw, bottle, rod, spool): coverage, and height in pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    centre = np.float32(side / 2 + rng.normal(0, side / 12))
    line = np.arange(side, dtype=np.float32) - centre
    along = line * cos + line[:, None] * sin
    across = line[:, None] * cos - line * sin
    half = side * rng.uniform(0.25, 0.7)
    knots = np.sort(rng.uniform(-half, half, rng.integers(1, 6)))
    radii = side * np.exp(rng.uniform(np.log(0.06), np.log(0.4), len(knots) + 1))
    ends = np.concatenate(([-half], knots, [half]))
    at = np.repeat(ends, 2) + np.tile((-1.0, 1.0), len(ends))
    profile = np.concatenate(([0], np.repeat(radii, 2), [0]))
    place = np.arange(-side, side + 1, dtype=np.float32)
    radius = np.interp(place, at, profile).astype(np.float32)
    if rng.random() < 0.3:  # thrown on a wheel rather than cut
        radius = cv2.GaussianBlur(radius[None], (0, 0), side / 20)[0]
    pitch = np.float32(log_uniform(rng, side / 40, side / 8))
    if rng.random() < 0.6:  # a thread: the radius follows a helix
        slant = np.float32(rng.choice((-1, 1)) * 0.5) / np.maximum(radius, 2) * pitch
        index = np.clip(along + side, 0, 2 * side).astype(np.int32)
        phase = (along + across * slant[index]) / pitch
        groove = np.abs(2 * (phase - np.floor(phase)) - 1) * pitch * np.float32(0.6)
        start, stop = np.sort(rng.uniform(-half, half, 2))
        inside = (along > start) & (along < stop)
        reach = radius[index] - np.where(inside, np.minimum(groove, radius[index] * 0.3), 0)
    else:
        index = np.clip(along + side, 0, 2 * side).astype(np.int32)
        reach = radius[index]
    coverage = np.clip(reach - np.abs(across) + np.float32(0.5), 0, 1) * (reach > 0)
    height = np.sqrt(np.maximum(reach * reach - across * across, 0))
    return coverage, height
