"""Pictures to pretrain on, drawn from nothing: surfaces, parts and compositions, with defects.

A picture is painted on a `Canvas` of colour, height and piece numbers, in four steps: a scene is
laid out, defects are laid on it, light falls on the height, and a camera looks at it. Every step
draws its own random numbers, so that what is seen, what is wrong with it, how it is lit and how it
is photographed vary independently.
"""

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.random import Generator

from scripts.pretraining.defects import blemish
from scripts.pretraining.fields import (
    Field,
    clouds,
    islands,
    log_uniform,
    normalised,
    pattern,
    slope,
    window,
)
from scripts.pretraining.painting import Canvas, Image, box_blur, flat_colour, material, three
from scripts.pretraining.shapes import depth_inside, filled, outline, stroked, turned_part, walk


def surface(rng: Generator, side: int, calm: float = 0.45) -> Canvas:
    """One material from edge to edge: a close-up."""
    colour, height = material(rng, side, calm)
    return Canvas(colour, height, np.zeros((side, side), np.uint8))


def mosaic(rng: Generator, side: int) -> Canvas:
    """Two to four materials that meet along straight, curved or ragged borders."""
    canvas = surface(rng, side)
    for _ in range(int(rng.integers(1, 4))):
        level, steep = np.float32(rng.uniform(0.3, 0.7)), np.float32(log_uniform(rng, 10, 80))
        kind = rng.integers(3)
        where = slope(rng, side) if kind == 0 else clouds(rng, side) if kind == 1 else None
        if where is None:
            where = pattern(rng, side)
        coverage = np.clip((where - level) * steep, 0, 1)
        colour, height = material(rng, side)
        step = np.float32(rng.choice((0, 1, 4)) * rng.uniform(-1, 1))
        canvas.blend(coverage, colour, height + step)
        canvas.number(coverage)
    return canvas


def _profile(rng: Generator, coverage: Field) -> Field:
    """Height in pixels of a part with this outline: sheet, bevelled plate, dome or ridge."""
    kind = rng.integers(4)
    side = coverage.shape[0]
    if kind == 0:
        return np.float32(log_uniform(rng, 0.5, 4)) * coverage
    inside = depth_inside(coverage)
    if kind == 1:
        return np.minimum(inside, np.float32(log_uniform(rng, 2, side / 10)))
    if kind == 2:
        return np.sqrt(inside) * np.float32(log_uniform(rng, 1, 5))
    return inside * np.float32(rng.uniform(0.2, 1))


def _lay(rng: Generator, canvas: Canvas, coverage: Field, body: Field) -> None:
    """Lay a part of a random material on the canvas, with its shadow."""
    if rng.random() < 0.6:
        dx, dy = rng.normal(0, canvas.side / 40, 2)
        shift = np.array([[1, 0, dx], [0, 1, dy]])
        shadow = cv2.warpAffine(coverage, shift, (canvas.side, canvas.side))
        shadow = box_blur(shadow, rng.uniform(0, 6))
        shade = 1 - np.float32(rng.uniform(0.2, 0.8)) * shadow
        canvas.colour *= three(shade)
    colour, relief = material(rng, canvas.side)
    canvas.blend(coverage, colour, body + relief * np.float32(rng.choice((0.2, 1.0))))
    canvas.number(coverage)


def part(rng: Generator, side: int) -> Canvas:
    """One large part, or a few, on a ground that is often plain."""
    canvas = surface(rng, side, calm=0.7)
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        if rng.random() < 0.35:
            coverage, body = turned_part(rng, side)
        else:
            centre = rng.uniform(0.2, 0.8, 2) * side
            size = side * rng.uniform(0.15, 0.7)
            coverage = filled(side, outline(rng, centre, size))
            for _ in range(int(rng.choice((0, 0, 1, 2)))):  # holes, windows
                offset = rng.normal(0, 0.25, 2) * size * rng.choice((0, 1))
                hole = outline(rng, centre + offset, size * rng.uniform(0.1, 0.45))
                coverage = coverage * (1 - filled(side, hole))
            body = _profile(rng, coverage)
        _lay(rng, canvas, coverage, body)
    return canvas


def wires(rng: Generator, side: int) -> Canvas:
    """Round cables, pipes, threads over a ground."""
    canvas = surface(rng, side)
    for _ in range(int(rng.integers(1, 5))):
        width = int(log_uniform(rng, 3, side / 5))
        rough = rng.uniform(0, 0.25)
        start = rng.uniform(0, side, 2)
        curves = [walk(rng, start, 1.5 * side, rough)]
        if rng.random() < 0.4:  # a bundle
            curves += [curves[0] + rng.normal(0, 1.2 * width, 2) for _ in range(4)]
        coverage = stroked(side, curves, [width] * len(curves))
        inside = depth_inside(coverage)
        reach = np.float32(width / 2)
        body = np.sqrt(np.maximum(reach * reach - (reach - inside) ** 2, 0))
        _lay(rng, canvas, coverage, body)
    return canvas


def leaves(rng: Generator, side: int) -> Canvas:
    """Many pieces over one another, sizes by a power law: the dead-leaves model, textured."""
    canvas = surface(rng, side)
    materials = [material(rng, side) for _ in range(3)]
    largest, alike = side * rng.uniform(0.08, 0.4), rng.random() < 0.3
    first = outline(rng, np.zeros(2), 1.0)
    step = np.float32(rng.choice((0, 1, 3)))
    count = int(log_uniform(rng, 6, 40))
    for size in np.maximum(largest * rng.random(count) ** rng.uniform(0.3, 2), 3):
        centre = rng.uniform(0, side, 2)
        shape = first * size + centre if alike else outline(rng, centre, float(size))
        low = np.clip(np.floor(shape.min(axis=0)).astype(int) - 1, 0, side - 2)
        high = np.clip(np.ceil(shape.max(axis=0)).astype(int) + 2, low + 1, side)
        box = np.s_[low[1] : high[1], low[0] : high[0]]
        coverage = filled(int((high - low).max()), shape - low)
        coverage = coverage[: high[1] - low[1], : high[0] - low[0]]
        texture, relief = materials[rng.integers(3)]
        colour = flat_colour(rng)
        if rng.random() < 0.6:
            colour = np.float32(0.4) * colour + np.float32(0.6) * texture[box]
        level = canvas.height[box].mean() + step
        piece = Canvas(canvas.colour[box], canvas.height[box], canvas.segments[box], canvas.pieces)
        piece.blend(coverage, colour, relief[box] * np.float32(0.3) + level)
        piece.number(coverage)
        canvas.pieces = piece.pieces
    return canvas


SCENES = (surface, surface, surface, surface, part, part, part, part, mosaic, leaves, wires)


def lit(rng: Generator, canvas: Canvas) -> Field:
    """The canvas under a light: (side, side, 3) from 0 to about 255."""
    side = canvas.side
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 1.3)
    x, y = np.float32(np.cos(elevation)) * np.array((np.cos(azimuth), np.sin(azimuth)), np.float32)
    z = np.float32(np.sin(elevation))
    dx = cv2.Sobel(canvas.height, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(canvas.height, cv2.CV_32F, 0, 1, scale=1 / 8)
    facing = (z - dx * x - dy * y) / np.sqrt(1 + dx * dx + dy * dy)  # cosine to the light
    ambient = np.float32(rng.uniform(0.15, 0.6))
    shade = ambient + (1 - ambient) * np.maximum(facing, 0) / max(z, np.float32(0.5))
    if rng.random() < 0.4:  # occlusion: hollows are darker
        hollow = box_blur(canvas.height, 6) - canvas.height
        shade *= np.clip(1 - np.float32(0.08) * hollow, 0.4, 1.3)
    if rng.random() < 0.5:  # a light that falls off, or a spot
        drift = slope(rng, side) if rng.random() < 0.5 else window(rng, side, "clouds", 4)
        shade *= 1 + np.float32(rng.uniform(0.1, 0.9)) * (drift - np.float32(0.5))
    if rng.random() < 0.1:  # the shadow of something out of the picture
        edge = box_blur(islands(rng, side), 4)
        shade *= 1 - np.float32(rng.uniform(0.2, 0.6)) * edge
    image = canvas.colour * three(shade)
    if rng.random() < 0.4:  # a highlight where the surface mirrors the light
        gloss = np.maximum(facing, 0) ** np.float32(log_uniform(rng, 6, 80))
        image += three(gloss * np.float32(rng.uniform(40, 200)))
    return image


def photographed(rng: Generator, scene: Field) -> Image:
    """What a camera makes of the scene: exposure, colour cast, optics, noise, compression."""
    side = scene.shape[0]
    image: MatLike = scene
    if rng.random() < 0.7:  # exposed for the brightest and darkest parts
        low, high = np.percentile(image[::6, ::6], (1, 99))
        image = (image - low) * np.float32(rng.uniform(0.6, 1.1) * 255 / max(high - low, 30))
        image += np.float32(rng.uniform(0, 40))
    image = image * rng.normal(1, rng.choice((0.02, 0.12)), 3).astype(np.float32)
    if rng.random() < 0.3:
        line = np.linspace(-1, 1, side, dtype=np.float32) ** 2
        vignette = 1 - np.float32(rng.uniform(0.1, 0.4)) * (line + line[:, None])
        image = image * three(vignette)
    kind = rng.random()
    if kind < 0.45:
        image = cv2.GaussianBlur(image, (0, 0), log_uniform(rng, 0.4, 1.8))
    elif kind < 0.52:  # only one depth is sharp
        far = cv2.GaussianBlur(image, (0, 0), rng.uniform(2, 5))
        image = image + (far - image) * three(normalised(np.abs(slope(rng, side) - 0.4)))
    elif kind < 0.57:
        kernel = np.zeros((9, 9), np.float32)
        ends = rng.integers(0, 9, 2).tolist()
        cv2.line(kernel, (ends[0], ends[1]), (8 - ends[0], 8 - ends[1]), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if rng.random() < 0.6:
        sigma = np.float32(log_uniform(rng, 2, 40))
        grains = [window(rng, side, "grain", 1) for _ in range(int(rng.choice((1, 3))))]
        noise = cv2.merge(grains * (3 // len(grains)))
        image = image + (noise - np.float32(0.5)) * sigma
    photo: MatLike = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        curve = np.linspace(0, 1, 256) ** log_uniform(rng, 0.45, 1.4)
        photo = cv2.LUT(photo, (255 * curve).astype(np.uint8))
    if rng.random() < 0.3:
        photo = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.25:
        quality = int(rng.integers(20, 95))
        _, encoded = cv2.imencode(".jpg", photo, (cv2.IMWRITE_JPEG_QUALITY, quality))
        photo = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return np.asarray(photo, np.uint8)


def draw(seed: int | np.random.SeedSequence, side: int = 192) -> tuple[Image, Image]:
    """One picture: RGB (side, side, 3), and the number of the piece each pixel shows (side, side).

    Piece 0 is the ground; parts come next and defects last, so that a mask for training is one
    piece or a union of them. There is always at least one piece. The same seed gives the same
    picture on the same machine.
    """
    rng = np.random.default_rng(seed)
    canvas = SCENES[rng.integers(len(SCENES))](rng, side)
    for _ in range(int(rng.choice((0, 1, 1, 2, 3, 4)))):
        blemish(rng, canvas)
    while not canvas.segments.any():
        blemish(rng, canvas)
    return photographed(rng, lit(rng, canvas)), canvas.segments
