"""How the drawn products are photographed: relief, colour and finish under a light from one side.

A product describes itself at every point; a defect edits that description before the light falls
on it, so scratches glint, pits cast a rim and stains do neither. Where the photographs with and
without the defect differ is the truth mask.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

Array = NDArray[Any]  # float32 throughout; OpenCV's annotations promise less
Point = NDArray[np.float64]  # (2,) x, y

SUPERSAMPLING = 2
VISIBLE = 0.035  # the least change of a colour channel, of 1, that belongs to a defect
SENSOR_NOISE = 1.6  # standard deviation, of 255

METAL = np.array([0.72, 0.73, 0.75])
CLOTH = np.array([0.93, 1.00, 1.08])


@dataclass
class Part:
    """One part in front of the camera, or a window of it; s = supersampled side.

    Lengths are in the part's own unit, which is about 0.41 of the picture's side. Defects edit the
    last four fields in place.
    """

    to_pixels: NDArray[np.float64]  # (2, 3) affine, from the part's own frame to the fields
    x: Array  # (s, s) position in the part's frame, whose origin is its middle
    y: Array
    light: float  # where the light comes from, in the picture, radians
    ground: Array  # (s, s) cloth and shadow, seen where there is no part
    sheen: Array  # (s, s) reflection of the light in bare metal
    streaks: Array  # (s, s) unevenness of that metal, about 1
    colour: Array  # (3, s, s) RGB reflectance; planes, because they are painted one by one
    height: Array  # (s, s)
    polish: Array  # (s, s) 1 = bare metal, 0 = enamel, paint, dirt, fracture
    solid: Array  # (s, s) coverage by the part

    @property
    def unit(self) -> float:
        """The unit of length in supersampled pixels."""
        return math.hypot(*self.to_pixels[:, 0])

    @property
    def turn(self) -> float:
        """Angle of the part's x axis in the picture, radians."""
        return math.atan2(self.to_pixels[1, 0], self.to_pixels[0, 0])

    def around(self, middle: Point, reach: float) -> Part:
        """The square window `middle` ± `reach`: views, so that an edit of it edits the part."""
        centre = self.to_pixels[:, :2] @ middle + self.to_pixels[:, 2]
        first = np.maximum(np.floor(centre - reach * self.unit).astype(int), 0)
        last = np.maximum(np.ceil(centre + reach * self.unit).astype(int), first + 8)
        window = (..., slice(first[1], last[1]), slice(first[0], last[0]))
        fields = {
            f.name: getattr(self, f.name)[window]
            for f in dataclasses.fields(self)
            if f.name not in ("to_pixels", "light")
        }
        moved = self.to_pixels - np.column_stack([np.zeros((2, 2)), first])
        return dataclasses.replace(self, to_pixels=moved, **fields)


def step(low: float, high: float, values: Array) -> Array:
    """Smooth 0 → 1 while `values` go from `low` to `high`, which may be the smaller."""
    t = values * (1 / (high - low))
    t -= low / (high - low)
    np.clip(t, 0, 1, out=t)
    return t * t * (3 - 2 * t)


def bell(values: Array, middle: float, width: float) -> Array:
    """Gaussian bump, 1 at `middle`, 1/e at a distance of `width`."""
    t = (values - middle) * (1 / width)
    return np.exp(np.maximum(-t * t, -30))  # denormal numbers are twenty times slower


def towards(angle: float) -> Point:
    """The unit vector of an angle in radians."""
    return np.array([math.cos(angle), math.sin(angle)])


def cloud(rng: Generator, shape: Sequence[int], bump: float) -> Array:
    """Smooth noise of about unit variance, its bumps about `bump` pixels wide."""
    coarse = [max(round(length / bump), 2) for length in shape]
    noise = rng.standard_normal(coarse, dtype=np.float32)
    return cv2.resize(noise, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def paint(layer: Array, value: Array | float, cover: Array) -> None:
    """Blend a plane's `value` into `layer`, or RGB planes' (3,), in place by `cover` in [0, 1]."""
    if layer.ndim == 3:
        for plane, one in zip(layer, np.asarray(value, np.float32), strict=True):
            paint(plane, one, cover)
    else:
        layer += (value - layer) * cover


def distance(part: Part, middle: Point) -> Array:
    """Distance of every point from `middle`."""
    return cv2.magnitude(part.x - float(middle[0]), part.y - float(middle[1]))


def along_across(part: Part, angle: float, middle: Point) -> tuple[Array, Array]:
    """Coordinates of every point from `middle`, along the direction `angle` and across it."""
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = part.x - float(middle[0]), part.y - float(middle[1])
    return cos * x + sin * y, cos * y - sin * x


def stroke(part: Part, points: NDArray[np.float64], widths: NDArray[np.float64]) -> Array:
    """Coverage of a polyline `points` (n, 2) of `widths` (n,)."""
    layer = np.zeros(part.height.shape, np.uint8)
    pixels = points @ part.to_pixels[:, :2].T + part.to_pixels[:, 2]
    fixed = np.rint(pixels * 16).astype(int).tolist()  # 4 fractional bits
    thick = np.maximum(np.rint(widths * part.unit), 1).astype(int).tolist()
    for start, end, width in zip(fixed[:-1], fixed[1:], thick[:-1], strict=True):
        cv2.line(layer, start, end, 255, width, cv2.LINE_AA, shift=4)
    return layer.astype(np.float32) / 255


def lay_down(
    rng: Generator,
    side: int,
    outline: NDArray[np.float64],
    colour: NDArray[np.float64],
    max_turn: float,
) -> Part:
    """A flat sheet, posed and lit at random, on cloth in the shadow of its `outline`.

    Args:
        rng: source of all chance.
        side: height and width of the picture in pixels.
        outline: (n, 2) convex, in the part's frame.
        colour: (3,) RGB reflectance.
        max_turn: the most it is turned either way, in degrees.
    """
    s = side * SUPERSAMPLING
    unit, turn = s * rng.uniform(0.395, 0.42), math.radians(rng.uniform(-max_turn, max_turn))
    centre = s * rng.uniform(0.48, 0.52, 2)
    light = math.radians(rng.normal(-125, 14))
    cos, sin = math.cos(turn), math.sin(turn)
    to_pixels = np.column_stack([unit * np.array([[cos, -sin], [sin, cos]]), centre])

    pixels = np.arange(s, dtype=np.float32)
    dx = (pixels[None] - float(centre[0])) / unit
    dy = (pixels[:, None] - float(centre[1])) / unit
    sheet = np.empty((3, s, s), np.float32)
    sheet[:] = colour[:, None, None]
    return Part(
        to_pixels=to_pixels,
        x=cos * dx + sin * dy,
        y=cos * dy - sin * dx,
        light=light,
        ground=_ground(rng, side, outline @ to_pixels[:, :2].T + centre, unit, light),
        sheen=np.broadcast_to(np.float32(0.3), (s, s)),
        streaks=np.broadcast_to(np.float32(1), (s, s)),
        colour=sheet,
        height=np.zeros((s, s), np.float32),
        polish=np.zeros((s, s), np.float32),
        solid=np.broadcast_to(np.float32(1), (s, s)),
    )


def _ground(
    rng: Generator, side: int, outline: NDArray[np.float64], unit: float, light: float
) -> Array:
    """Dark matt cloth under a part's soft shadow, (s, s); `outline` (n, 2) in its pixels."""
    q = side // 2  # all but the grain is soft
    scale = q / (side * SUPERSAMPLING)
    shadow: Array = np.zeros((q, q), np.float32)
    thrown = (outline - 0.07 * unit * towards(light)) * scale
    cv2.fillConvexPoly(shadow, np.rint(thrown).astype(np.int32), 1.0)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 0.05 * unit * scale)
    ramp = np.linspace(-1, 1, q, dtype=np.float32)
    glow = math.cos(light) * ramp[None] + math.sin(light) * ramp[:, None]
    level: Array = (0.26 + 0.035 * glow + 0.006 * cloud(rng, (q, q), q / 6)) * (1 - 0.72 * shadow)
    level = cv2.resize(level, (side, side), interpolation=cv2.INTER_LINEAR)
    level = level * (1 + 0.03 * rng.standard_normal((side, side), dtype=np.float32))
    s = side * SUPERSAMPLING
    return cv2.resize(level, (s, s), interpolation=cv2.INTER_NEAREST)


def photograph(part: Part, side: int) -> Array:
    """The part under its light, (3, side, side) RGB in [0, 1], free of sensor noise."""
    relief = part.height * part.unit
    dx = cv2.Sobel(relief, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(relief, cv2.CV_32F, 0, 1, scale=1 / 8)
    facing = dx * -math.cos(part.light) - dy * math.sin(part.light)
    level = 1 / cv2.sqrt(1 + dx * dx + dy * dy)
    diffuse = np.maximum((0.72 + 0.7 * facing) * level, 0)

    sheen = part.sheen * np.clip(1 + 1.2 * facing, 0, 2) * level
    metal = (0.46 * diffuse + sheen) * part.streaks + 0.15
    lit = 0.25 + 0.9 * diffuse
    paint(lit, metal, part.polish)
    # The lamp mirrored in enamel or paint: a white arc where its curve faces the light just so.
    glaze = 0.5 * (1 - part.polish) * bell(facing, 0.16, 0.06)

    channels = []
    for colour, tone in zip(part.colour, CLOTH.tolist(), strict=True):
        ground = part.ground * tone
        channel = colour * lit
        channel += glaze
        channel -= ground
        channel *= part.solid
        channel += ground
        channels.append(cv2.resize(channel, (side, side), interpolation=cv2.INTER_AREA))
    return np.clip(np.stack(channels), 0, 1)


Defect = Callable[[Part, Generator, float], None]
"""Edits a part in place, somewhere in the direction of an angle in the part's frame."""


@dataclass(frozen=True)
class Product:
    make: Callable[[Generator, int], Part]  # a sound part, for a picture of so many pixels a side
    defects: Mapping[str, Defect]


def picture(
    product: Product, streams: Sequence[SeedSequence], kinds: Sequence[str], side: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One photograph of one part.

    Args:
        product: what is drawn.
        streams: two independent seeds, of the part with its photograph and of its defects: the
            same first one gives the same part, with other defects or none.
        kinds: defects to add, keys of `product.defects`, on different sides of the part.
        side: height and width in pixels.

    Returns:
        RGB image (side, side, 3) and truth (side, side), true where a defect changed it.
    """
    of_part, of_defects = (np.random.default_rng(stream) for stream in streams)
    part = product.make(of_part, side)
    noise = SENSOR_NOISE * of_part.standard_normal((3, side, side), dtype=np.float32)
    photo = sound = photograph(part, side)
    first = of_defects.uniform(0, 2 * np.pi)
    for i, kind in enumerate(kinds):
        product.defects[kind](part, of_defects, first + 2 * np.pi * i / len(kinds))
    if kinds:
        photo = photograph(part, side)
    changed = (np.abs(photo - sound).max(axis=0) > VISIBLE).astype(np.uint8)
    # Shading that turns from darker to brighter crosses zero: the crossing is defect, too.
    truth = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    planes = np.clip(photo * 255 + noise + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(planes.transpose(1, 2, 0)), truth
