"""Scalar fields in [0, 1]: noise, cells, weaves, gratings, fibres: what surfaces are made of.

The expensive noises are made once, as periodic tiles (`bank`); a picture takes a random window of
them, turned, scaled and stretched, which costs a fraction of a millisecond. The regular patterns
are functions of two plane coordinates that are themselves bent by noise.
"""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Field = NDArray[np.float32]
Pattern = Callable[[Generator, int], Field]

TILE = 512
TAU = np.float32(2 * np.pi)


def normalised(field: Field) -> Field:
    """`field` stretched to [0, 1]; a constant field becomes 0."""
    low, high = cv2.minMaxLoc(field)[:2]
    return (field - np.float32(low)) * np.float32(1 / max(high - low, 1e-6))


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A number between `low` and `high` whose logarithm is uniform: no scale is preferred."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@cache
def bank() -> dict[str, list[Field]]:
    """Periodic tiles by kind, each two periods (2 TILE, 2 TILE); 67 MB in all, made in 1 s.

    OpenCV is six times faster at a window that does not cross the border of its source: hence the
    second period. The tiles are the same in every process.
    """
    rng = np.random.default_rng(0)
    fy, fx = np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1

    def filtered(gain: NDArray[np.float64]) -> NDArray[np.float64]:
        white = rng.standard_normal((TILE, TILE))
        return np.asarray(np.fft.irfft2(np.fft.rfft2(white) * gain, s=(TILE, TILE)))

    def tile(values: NDArray[np.float64]) -> Field:
        low, high = np.percentile(values, (0.3, 99.7))
        return np.tile(np.clip((values - low) / (high - low), 0, 1).astype(np.float32), (2, 2))

    clouds = [tile(filtered(radius**-slope)) for slope in (1.0, 1.0, 1.3, 1.6, 1.6, 2.0, 2.4)]
    grain = [tile(filtered(radius**-slope)) for slope in (0.0, 0.4, 0.7)]

    spots = []
    for frequency, width, bias in ((0.03, 0.2, 0.0), (0.04, 0.35, 0.5), (0.05, 0.25, -0.5)):
        band = np.exp(-((np.log(radius / frequency) / width) ** 2) / 2)
        pattern = filtered(band)
        # Repeated band-pass and saturation settles into the stripes and spots of Turing patterns.
        for _ in range(12):
            pattern = np.tanh(2 * pattern / pattern.std() + bias)
            pattern = np.fft.irfft2(np.fft.rfft2(pattern) * band, s=(TILE, TILE))
        spots.append(tile(np.tanh(1.5 * pattern / pattern.std() + bias)))

    cells = []
    pixels = np.stack(np.meshgrid(np.arange(TILE), np.arange(TILE), indexing="xy"), -1)
    lattice = np.stack(np.meshgrid(np.arange(20), np.arange(20), indexing="xy"), -1)
    jittered = (lattice.reshape(-1, 2) + rng.uniform(0, 0.9, (400, 2))) * (TILE / 20)
    for points in (rng.uniform(0, TILE, (250, 2)), jittered):
        distance, index = cKDTree(points, boxsize=TILE).query(pixels, k=2)
        cells.append(tile(distance[..., 0]))
        cells.append(tile(distance[..., 1] - distance[..., 0]))
        cells.append(tile(rng.uniform(size=len(points))[index[..., 0]]))
    return {"clouds": clouds, "grain": grain, "spots": spots, "cells": cells}


def window(rng: Generator, side: int, kind: str, zoom: float, stretch: float = 1.0) -> Field:
    """A turned (side, side) window of a tile of `kind`; `zoom` picture pixels per tile pixel."""
    tiles = bank()[kind]
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = np.diag((1 / (zoom * stretch), 1 / zoom)) @ turn
    corner = np.minimum(matrix, 0).sum(axis=1) * side
    affine = np.column_stack((matrix, rng.uniform(0, TILE, 2) - corner))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    source = tiles[rng.integers(len(tiles))]
    return np.asarray(
        cv2.warpAffine(source, affine, (side, side), flags=flags, borderMode=cv2.BORDER_WRAP)
    )


def clouds(rng: Generator, side: int) -> Field:
    """Fractal noise of any size; large clouds are smooth and are made at half the resolution."""
    zoom = log_uniform(rng, 0.5, 5)
    if zoom < 1.5:
        return normalised(window(rng, side, "clouds", zoom))
    half = normalised(window(rng, (side + 1) // 2, "clouds", zoom / 2))
    return np.asarray(cv2.resize(half, (side, side), interpolation=cv2.INTER_CUBIC))


def plane(rng: Generator, side: int, periods: tuple[float, float] = (3, 40)) -> tuple[Field, Field]:
    """Turned coordinates u, v in periods, a number of `periods` over the side, bent at random."""
    count = log_uniform(rng, *periods)
    angle = rng.uniform(0, np.pi) if rng.random() < 0.6 else rng.integers(4) * np.pi / 2
    step = np.arange(side, dtype=np.float32) * np.float32(count / side)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = step * cos + step[:, None] * sin + np.float32(rng.uniform(0, 50))
    v = step[:, None] * cos - step * sin + np.float32(rng.uniform(0, 50))
    if rng.random() < 0.6:
        bend = np.float32(count * rng.uniform(0, 0.25) ** 1.5)
        u += bend * clouds(rng, side)
        v += bend * clouds(rng, side)
    return u, v


def _wave(rng: Generator, phase: Field) -> Field:
    """A periodic profile of `phase` in periods: sine, rounded square, triangle, saw or pulse."""
    kind = rng.integers(5)
    if kind == 0:
        return 0.5 + 0.5 * np.sin(TAU * phase)
    if kind == 1:
        return np.clip(0.5 + np.float32(rng.uniform(1, 6)) * np.sin(TAU * phase), 0, 1)
    fraction = phase - np.floor(phase)
    if kind == 2:
        return np.abs(2 * fraction - 1)
    if kind == 3:
        return fraction
    return np.clip((np.abs(2 * fraction - 1) - np.float32(rng.uniform(0.6, 0.95))) * 12, 0, 1)


def _per_cell(rng: Generator, u: Field, v: Field) -> Field:
    """A random value for each unit cell of the plane."""
    table = rng.random(1024, dtype=np.float32)
    index = u.astype(np.int32) * 73 + v.astype(np.int32) * 151
    return table[index & 1023]


def noise(rng: Generator, side: int) -> Field:
    return clouds(rng, side)


def grain(rng: Generator, side: int) -> Field:
    return window(rng, side, "grain", log_uniform(rng, 0.8, 3))


def cells(rng: Generator, side: int) -> Field:
    return window(rng, side, "cells", log_uniform(rng, 0.3, 3), log_uniform(rng, 0.6, 1.6))


def spots(rng: Generator, side: int) -> Field:
    return window(rng, side, "spots", log_uniform(rng, 0.3, 3), log_uniform(rng, 0.6, 1.6))


def marble(rng: Generator, side: int) -> Field:
    """A tile seen through coordinates that noise has bent."""
    kind = ("clouds", "cells", "spots", "grain")[rng.integers(4)]
    tile = bank()[kind][rng.integers(len(bank()[kind]))]
    u, v = plane(rng, side, (60, 500))
    bend = np.float32(rng.uniform(20, 200))
    u, v = u + bend * clouds(rng, side), v + bend * clouds(rng, side)
    return np.asarray(cv2.remap(tile, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))


def ridges(rng: Generator, side: int) -> Field:
    return 1 - np.abs(2 * clouds(rng, side) - 1) ** np.float32(rng.uniform(0.3, 1))


def islands(rng: Generator, side: int) -> Field:
    """Noise with a soft threshold: patches, flakes, rust."""
    level, steep = np.float32(rng.uniform(0.25, 0.75)), np.float32(log_uniform(rng, 3, 60))
    return np.clip(0.5 + (clouds(rng, side) - level) * steep, 0, 1)


def terraces(rng: Generator, side: int) -> Field:
    levels = np.float32(rng.integers(3, 12))
    return np.floor(clouds(rng, side) * levels) / levels


def brushed(rng: Generator, side: int) -> Field:
    """Grain drawn out along one direction: brushed, ground or rolled metal."""
    zoom = log_uniform(rng, 0.8, 3)
    return normalised(window(rng, side, "grain", zoom, log_uniform(rng, 8, 120)))


def grating(rng: Generator, side: int) -> Field:
    return _wave(rng, plane(rng, side)[0])


def plaid(rng: Generator, side: int) -> Field:
    u, v = plane(rng, side, (2, 25))
    return np.float32(0.5) * (_wave(rng, u) + _wave(rng, v))


def rings(rng: Generator, side: int) -> Field:
    """Bent rings round a centre that may lie outside: wood, turned faces, ripples."""
    u, v = plane(rng, side, (3, 25))
    centre = rng.uniform(-0.5, 1.5, 2) * side
    x, y = (np.clip(centre, 0, side - 1)).astype(int)
    stretch = np.float32(rng.uniform(0.15, 1))
    return _wave(rng, np.hypot(u - u[y, x], stretch * (v - v[y, x])))


def spokes(rng: Generator, side: int) -> Field:
    u, v = plane(rng, side, (1, 4))
    y, x = rng.integers(0, side, 2)
    angle = cv2.phase(u - u[y, x], v - v[y, x]) / TAU
    twist = np.float32(rng.uniform(-2, 2)) * np.hypot(u - u[y, x], v - v[y, x])
    return _wave(rng, angle * np.float32(rng.integers(3, 40)) + twist)


def weave(rng: Generator, side: int) -> Field:
    """Plain weave, twill or satin: over and under, round threads."""
    u, v = plane(rng, side, (6, 50))
    column, row = np.floor(u), np.floor(v)
    over_count = int(rng.integers(2, 6))
    phase = column + row * np.float32(rng.integers(1, 3))
    over = phase - over_count * np.floor(phase / over_count) < rng.integers(1, over_count)
    across = np.where(over, u - column, v - row)
    along = np.where(over, v - row, u - column)
    height = np.sin(np.pi * across) * (np.float32(0.65) + np.float32(0.35) * np.sin(np.pi * along))
    return np.asarray(height, np.float32)


def knit(rng: Generator, side: int) -> Field:
    u, v = plane(rng, side, (4, 25))
    fraction = u - np.floor(u)
    slope = np.float32(rng.uniform(0.5, 2))
    return np.abs(np.sin(np.pi * (v + slope * np.abs(fraction - 0.5)))) * np.sqrt(
        np.abs(np.sin(2 * np.pi * u))
    )


def bricks(rng: Generator, side: int) -> Field:
    """Bricks, tiles, planks: joints between cells of random tone."""
    u, v = plane(rng, side, (2, 20))
    aspect = np.float32(log_uniform(rng, 0.2, 1.2))
    u = u * aspect
    u += np.float32(rng.choice((0, 0.5, 0.37))) * np.floor(v)
    fu, fv = u - np.floor(u), v - np.floor(v)
    edge = np.minimum(np.minimum(fu, 1 - fu) / aspect, np.minimum(fv, 1 - fv))
    tone = np.float32(rng.uniform(0, 0.8))
    joint = np.clip(edge / np.float32(rng.uniform(0.02, 0.2)), 0, 1)
    return joint * (1 - tone + tone * _per_cell(rng, u, v))


def checks(rng: Generator, side: int) -> Field:
    u, v = plane(rng, side, (2, 30))
    if rng.random() < 0.5:
        return _per_cell(rng, u, v)
    total = np.floor(u) + np.floor(v)
    return np.abs(total - 2 * np.floor(total / 2)).astype(np.float32)


def dots(rng: Generator, side: int) -> Field:
    """A staggered or square lattice of dots: perforation, halftone, studs, scales."""
    u, v = plane(rng, side, (4, 35))
    u += np.float32(rng.choice((0, 0.5))) * np.floor(v)
    shift = np.float32(rng.choice((0.5, 0.5, 0.0)))
    fu, fv = u - np.floor(u) - np.float32(0.5), v - np.floor(v) - shift
    size = np.float32(rng.uniform(0.2, 0.5)) * (0.6 + np.float32(0.4) * _per_cell(rng, u, v))
    return np.clip((size - np.hypot(fu, fv)) * np.float32(log_uniform(rng, 3, 30)), 0, 1)


def fibres(rng: Generator, side: int) -> Field:
    """Curved strands over one another: felt, hair, paper, wire wool, straw, hatching."""
    canvas = np.full((side, side), int(rng.integers(0, 120)), np.uint8)
    count, thick = int(log_uniform(rng, 30, 220)), int(log_uniform(rng, 1, 5))
    direction, spread = rng.uniform(0, np.pi), rng.choice((0.05, 0.4, 3.0))
    angle = direction + rng.normal(0, spread, (count, 1))
    start = rng.uniform(-0.2, 1.2, (count, 2)) * side
    length = side * log_uniform(rng, 0.1, 1.2)
    bend = rng.normal(0, rng.uniform(0, 1.5), (count, 1))
    t = np.linspace(-0.5, 0.5, 9)
    x = start[:, :1] + length * t * np.cos(angle + bend * t)
    y = start[:, 1:] + length * t * np.sin(angle + bend * t)
    curves = (np.stack((x, y), -1) * 16).astype(np.int32)
    for curve, tone in zip(curves, rng.integers(60, 256, count).tolist(), strict=True):
        cv2.polylines(canvas, [curve], False, tone, thick, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) * np.float32(1 / 255)


def pebbles(rng: Generator, side: int) -> Field:
    """Discs of power-law sizes over one another: the dead-leaves model."""
    canvas = np.full((side, side), int(rng.integers(0, 256)), np.uint8)
    count = int(log_uniform(rng, 40, 250))
    radius = np.minimum(side * 0.012 * rng.random(count) ** -0.5, side * 0.3).astype(int) + 1
    centre = rng.integers(0, side, (count, 2)).tolist()
    for at, size, tone in zip(
        centre, radius.tolist(), rng.integers(0, 256, count).tolist(), strict=True
    ):
        cv2.circle(canvas, at, size, tone, -1, cv2.LINE_AA)
    return canvas.astype(np.float32) * np.float32(1 / 255)


def glyphs(rng: Generator, side: int) -> Field:
    """Rows of letters and digits: print, engraving, labels."""
    canvas = np.zeros((side, side), np.uint8)
    scale = log_uniform(rng, 0.3, 2.5) * side / 192
    font = int(rng.choice((cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX,
                           cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)))  # fmt: skip
    row, thick = int(rng.integers(0, 20)), int(rng.integers(1, 3 + int(scale)))
    while row < side + 10 * scale:
        text = "".join(chr(c) for c in rng.integers(33, 127, int(12 / scale) + 3))
        left = int(rng.integers(-20, 20))
        cv2.putText(canvas, text, (left, row), font, scale, 255, thick, cv2.LINE_AA)
        row += int(rng.uniform(26, 45) * scale) + 3
    angle = rng.choice((0, 0, 90, rng.uniform(0, 360)))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1)
    turned = cv2.warpAffine(canvas, turn, (side, side), borderMode=cv2.BORDER_WRAP)
    return turned.astype(np.float32) * np.float32(1 / 255)


def slope(rng: Generator, side: int) -> Field:
    """A smooth gradient: a plain surface."""
    x, y = rng.uniform(-1, 1, 2).astype(np.float32)
    line = np.linspace(0, 1, side, dtype=np.float32)
    return normalised(line * x + line[:, None] * y)


PATTERNS: tuple[Pattern, ...] = (
    noise, noise, grain, cells, cells, spots, marble, marble, ridges, islands, terraces, brushed,
    brushed, grating, plaid, rings, rings, spokes, weave, weave, knit, bricks, checks, dots, dots,
    fibres, fibres, pebbles, glyphs, slope, slope, slope,
)  # fmt: skip


def pattern(rng: Generator, side: int) -> Field:
    """A random field (side, side) in [0, 1]: one pattern, or two of them combined."""
    first = PATTERNS[rng.integers(len(PATTERNS))](rng, side)
    if rng.random() < 0.5:
        return first
    second = PATTERNS[rng.integers(len(PATTERNS))](rng, side)
    kind = rng.integers(4)
    if kind == 0:
        return first * second
    if kind == 1:
        return np.maximum(first, second * np.float32(rng.uniform(0.3, 1)))
    if kind == 2:
        weight = np.float32(rng.beta(1, 2))
        return first + (second - first) * weight
    return first + (second - first) * islands(rng, side)
