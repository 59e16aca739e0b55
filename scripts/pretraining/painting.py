"""The canvas, and the paints on it: random palettes, and materials with colour and relief."""

from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.random import Generator
from numpy.typing import NDArray

from scripts.pretraining.fields import Field, clouds, islands, log_uniform, pattern

Image = NDArray[np.uint8]


def three(field: Field) -> Field:
    """`field` (side, side) repeated for the three channels; far faster than broadcasting."""
    return np.asarray(cv2.merge((field, field, field)))


def box_blur(field: MatLike, radius: float) -> Field:
    """`field` averaged over squares that reach one pixel further than `radius`."""
    width = 2 * int(1 + radius) + 1
    return np.asarray(cv2.blur(field, (width, width)))


@dataclass
class Canvas:
    """What has been painted so far."""

    colour: Field  # (side, side, 3), 0 to 255, before light falls on it
    height: Field  # (side, side), in pixels
    segments: Image  # (side, side), number of the topmost piece, 0 = ground
    pieces: int = 0

    @property
    def side(self) -> int:
        return self.height.shape[0]

    def blend(self, coverage: Field, colour: MatLike, height: MatLike) -> None:
        """Lay `colour` and `height` over what is there, where `coverage` is 1."""
        self.colour += (colour - self.colour) * three(coverage)
        self.height += (height - self.height) * coverage

    def number(self, coverage: Field) -> None:
        """Give what `coverage` shows a piece number of its own."""
        self.pieces = min(self.pieces + 1, 255)
        self.segments[coverage > 0.4] = self.pieces


def palette(rng: Generator) -> Field:
    """Colours (256, 3) for values from 0 to 1: near-uniform, of one hue, or of several."""
    stops = int(rng.integers(2, 7))
    kind = rng.random()
    # Brown, beige, rust and skin are commoner in the world than violet and mint.
    first_hue = rng.normal(14, 9) if rng.random() < 0.45 else rng.uniform(0, 180)
    hue = first_hue + rng.normal(0, rng.choice((4, 12, 60)), stops)
    colourless = rng.choice((1.5, 4.0))
    saturation = 255 * rng.beta(1.5, colourless, stops)
    if kind < 0.45:  # a surface: little contrast round one tone
        value = rng.uniform(40, 235) + rng.normal(0, rng.uniform(6, 40), stops)
        saturation = np.full(stops, saturation[0]) + rng.normal(0, 12, stops)
    else:
        value = rng.uniform(0, 255, stops)
        if kind < 0.75:
            value = np.sort(value)[:: rng.choice((-1, 1))]
    hsv = np.column_stack((hue % 180, np.clip(saturation, 0, 255), np.clip(value, 0, 255)))
    colours = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    places = np.sort(rng.uniform(0, 255, stops))
    places[0], places[-1] = 0, 255
    values = np.arange(256.0)
    if rng.random() < 0.12:  # printed: no tones between the colours
        return colours[np.searchsorted(places, values).clip(0, stops - 1)].astype(np.float32)
    channels = [np.interp(values, places, colours[:, c]) for c in range(3)]
    return np.stack(channels, -1).astype(np.float32)


def flat_colour(rng: Generator) -> Field:
    """One colour (3,)."""
    return palette(rng)[rng.integers(256)]


def coloured(rng: Generator, tone: Field) -> Field:
    """`tone` in [0, 1] through a random palette: (side, side, 3)."""
    index = (np.clip(tone, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge((index, index, index)), palette(rng)[:, None]))


def material(rng: Generator, side: int, calm: float = 0.35) -> tuple[Field, Field]:
    """A surface: its colour (side, side, 3) and its relief (side, side) in pixels.

    With probability `calm` it hardly varies, so that what lies on it stands out.
    """
    tone = pattern(rng, side)
    quiet = rng.random() < calm
    if quiet:
        spread = np.float32(rng.uniform(0.02, 0.35))
        tone = np.float32(rng.uniform(0, 1)) * (1 - spread) + spread * tone
    colour = coloured(rng, tone)
    if rng.random() < 0.25:  # a second colouring of the same pattern, in patches or overall drift
        where = islands(rng, side) if rng.random() < 0.5 else clouds(rng, side)
        colour += (coloured(rng, tone) - colour) * three(where)
    kind = rng.random()
    if kind < 0.35:  # printed: no relief
        return colour, np.zeros((side, side), np.float32)
    relief = tone if kind < 0.75 else pattern(rng, side)
    depth = log_uniform(rng, 0.6, 2 if quiet else 10) * rng.choice((-1, 1))
    return colour, relief * np.float32(depth)
