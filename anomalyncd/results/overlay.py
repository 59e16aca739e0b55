"""Pictures for people: an anomaly map in colours, laid over its image; the outline of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anomalyncd.data.images import read_image
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.types import Box, Regions, ResizeMode

# Perceptually uniform and safe for colour-blind readers, unlike the usual rainbow.
_COLOURS: NDArray[np.uint8] = np.ascontiguousarray(
    cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]
)
_HEAT_SHARE = 0.6
_LINE, _HALO = (60, 255, 190), (0, 40, 30)


def normalise(anomaly_map: np.ndarray, low: float, high: float) -> NDArray[np.float32]:
    """Scale MEBin's search range to 0..1 and clip: the pictures of one run are comparable."""
    scaled = (anomaly_map.astype(np.float32) - low) / max(high - low, 1e-30)
    return np.clip(scaled, 0, 1)


def colour_map(heat: np.ndarray) -> NDArray[np.uint8]:
    """Colours (..., 3) of heat values (...) in 0..1."""
    return _COLOURS[(np.clip(heat, 0, 1) * 255 + 0.5).astype(np.uint8)]


def heat_overlay(image: NDArray[np.uint8], heat: np.ndarray) -> NDArray[np.uint8]:
    """Lay heat (h, w) in 0..1 over an RGB image (h, w, 3).

    The image is made grey first, so that a colour in the result always means heat.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return (colour_map(heat) * _HEAT_SHARE + grey * (1 - _HEAT_SHARE) + 0.5).astype(np.uint8)


def outline(image: NDArray[np.uint8], mask: NDArray[np.uint8], thickness: int) -> NDArray[np.uint8]:
    """Draw a line of `thickness` pixels around the mask (h, w; > 127 is inside), on a copy.

    The line lies outside the mask, so that a very thin defect stays visible; a dark halo keeps the
    line visible on any product.
    """
    inside = (mask > 127).astype(np.uint8)
    square = np.ones((2 * thickness + 1,) * 2, np.uint8)
    line = cv2.dilate(inside, square)
    halo = cv2.dilate(line, square)
    drawn = image.copy()
    drawn[halo > line] = _HALO
    drawn[line > inside] = _LINE
    return drawn


def draw_regions(
    image: Path, path: Path, regions: Regions, named: Sequence[tuple[int, str]], mode: ResizeMode
) -> None:
    """Write a photograph with its regions outlined and named, as JPEG; a region that is the whole
    image has its name only.

    Args:
        image: the photograph.
        path: of the picture; its folder is created.
        regions: of some photographs.
        named: rows of this photograph, each with the name of its class.
        mode: how regions that are not square were stored.

    Raises:
        InputError: the picture cannot be written.
    """
    drawn = read_image(image)
    height, width = drawn.shape[:2]
    thickness = max(round(max(height, width) / 400), 1)
    mask = np.zeros((height, width), np.uint8)
    for r, _ in named:
        if regions.areas[r]:
            _paste(mask, np.asarray(regions.masks[r]), Box(*regions.boxes[r].tolist()), mode)
    drawn = outline(drawn, mask, thickness)
    scale = max(height, width) / 900
    line = max(round(24 * scale), 9)
    for row, (r, name) in enumerate(named):
        box = Box(*regions.boxes[r].tolist())
        at = (max(box.left, 0), max(box.top, 0)) if regions.areas[r] else (0, row * line)
        _write_name(drawn, name, at, line)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        Image.fromarray(drawn).save(draft, "JPEG", quality=90)


def _paste(mask: NDArray[np.uint8], stored: NDArray[np.uint8], box: Box, mode: ResizeMode) -> None:
    """Put the mask of a stored region back to its place."""
    part = mask_in_box(stored, box, mode)
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.bottom, mask.shape[0]), min(box.right, mask.shape[1])
    seen = part[top - box.top : bottom - box.top, left - box.left : right - box.left]
    np.maximum(mask[top:bottom, left:right], seen, out=mask[top:bottom, left:right])


def mask_in_box(stored: NDArray[np.uint8], box: Box, mode: ResizeMode) -> NDArray[np.uint8]:
    """The mask of a stored region at the size of its box, the inverse of how it was cropped."""
    width, height = box.right - box.left, box.bottom - box.top
    if mode == "stretch":
        return np.asarray(cv2.resize(stored, (width, height)), np.uint8)
    side = max(width, height) if mode == "letterbox" else min(width, height)
    square = np.asarray(cv2.resize(stored, (side, side)), np.uint8)
    if mode == "letterbox":
        top, left = (side - height) // 2, (side - width) // 2
        return square[top : top + height, left : left + width]
    part = np.zeros((height, width), np.uint8)
    part[:side, :side] = square
    return part


def _write_name(picture: NDArray[np.uint8], name: str, at: tuple[int, int], line: int) -> None:
    """Write a name into a picture (h, w, 3), in place, inside of it."""
    drawn = Image.fromarray(picture)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=round(line * 0.75))
    wide = round(pen.textlength(name, font=font)) + line // 2
    left = max(min(at[0], drawn.width - wide), 0)
    top = max(min(at[1] - line, drawn.height - line), 0)
    pen.rectangle((left, top, left + wide, top + line), fill=_HALO)
    pen.text((left + line // 4, top + line // 10), name, fill=_LINE, font=font)
    picture[:] = np.asarray(drawn)


def region_heat(
    heat: NDArray[np.float32], box: Box, image_size: tuple[int, int], size: int, mode: ResizeMode
) -> NDArray[np.float32]:
    """Crop a region's part out of its image's map, with the geometry of the stored region.

    Args:
        heat: (h, w), over the whole image; its aspect ratio may differ from the image's.
        box: in image pixels; where it extends beyond the image, the result is 0.
        image_size: height, width of the image.
        size: height and width of the result in pixels.
        mode: how a box that is not square was made square: resized as a whole with black bars
            (`letterbox`), distorted (`stretch`), or resized by its shorter side and cropped at the
            right or the bottom (`compat`).

    Returns:
        (size, size), aligned with `Regions.images` of that region at that size.
    """
    width, height = box.right - box.left, box.bottom - box.top
    if mode == "stretch":
        scale_x, scale_y = size / width, size / height
    else:
        scale_x = scale_y = size / (max if mode == "letterbox" else min)(width, height)
    bar_x, bar_y = (
        ((size - width * scale_x) / 2, (size - height * scale_y) / 2)
        if mode == "letterbox"
        else (0.0, 0.0)
    )
    left, right, from_x, to_x = _axis(
        box.left, box.right, image_size[1], scale_x, bar_x, size, heat.shape[1]
    )
    top, bottom, from_y, to_y = _axis(
        box.top, box.bottom, image_size[0], scale_y, bar_y, size, heat.shape[0]
    )
    tile = np.zeros((size, size), np.float32)
    if left < right and top < bottom:
        part = Image.fromarray(heat).resize(
            (right - left, bottom - top),
            Image.Resampling.BILINEAR,
            box=(from_x, from_y, to_x, to_y),
        )
        tile[top:bottom, left:right] = np.asarray(part)
    return tile


def _axis(
    start: int, stop: int, extent: int, scale: float, bar: float, size: int, cells: int
) -> tuple[int, int, float, float]:
    """Along one axis: first and last tile pixel that shows the image, and the map's interval."""
    first = max(round(bar + (max(start, 0) - start) * scale), 0)
    last = min(round(bar + (min(stop, extent) - start) * scale), size)
    low = max(start + (first - bar) / scale, 0) * cells / extent
    high = min(start + (last - bar) / scale, extent) * cells / extent
    return first, last, low, high
