"""What self-contained pages are made of: their template, and pictures of regions in base64."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.results.overlay import colour_map, heat_overlay, outline, region_heat
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.types import Box, Regions, ResizeMode

TILE_SIZE = 160  # pixels; the page shows about 110, more on high-resolution or narrow screens
MAX_JPEG_BYTES = 12_000  # per tile: 500 tiles in base64 stay below 8 MB


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of this folder in, everything escaped, and write it atomically."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["duration"] = _duration
    page = environment.get_template(template).stream(**values)
    page.enable_buffering(64)
    with atomic_write(path) as draft:
        # A file name that is not valid Unicode must not prevent the page.
        page.dump(str(draft), encoding="utf-8", errors="replace")


def heat_colours() -> list[str]:
    """Of the scale in the legend."""
    return [f"rgb{tuple(c.tolist())}" for c in colour_map(np.linspace(0, 1, 9))]


def picture_of(regions: Regions, r: int, heat: NDArray[np.float32], mode: ResizeMode) -> str:
    """A region with its outline, and beside it its anomaly map: JPEG in base64.

    Args:
        regions: of some images.
        r: which of them.
        heat: (h, w) in 0..1, the map of its image.
        mode: how regions that are not square were stored.
    """
    region = np.asarray(regions.images[r])
    box = Box(*regions.boxes[r].tolist())
    height, width = regions.image_sizes[regions.image_index[r]].tolist()
    thickness = max(round(len(region) / TILE_SIZE), 1)
    line = outline(region, np.asarray(regions.masks[r]), thickness)
    warm = heat_overlay(_tile(region), region_heat(heat, box, (height, width), TILE_SIZE, mode))
    return as_jpeg(np.hstack([_tile(line), warm]))


def as_jpeg(picture: NDArray[np.uint8]) -> str:
    """A picture in base64."""
    return base64.b64encode(_jpeg(picture)).decode()


def _tile(region: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(region).resize((TILE_SIZE, TILE_SIZE)))


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    """The best quality within `MAX_JPEG_BYTES`; only very noisy pictures need less than 85."""
    for quality in (85, 70, 55, 40, 25):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_JPEG_BYTES:
            break
    return buffer.getvalue()


def _duration(seconds: float) -> str:
    """Seconds for people: 0.42 s, 12.3 s, 3 min 20 s, 1 h 05 min."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
