"""What a file may claim to hold: checked by its header, before memory is taken for its content."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, TiffImagePlugin

from anomalyncd.config import HIGHEST_MAX_MEGAPIXELS
from anomalyncd.errors import InputError

# Regions around a defect are squares, which may be as high as the photograph is wide, so its longer
# side decides how much memory they take; and making a line square enlarges it by its proportion.
_MOST_SQUARE = 4  # pixels of a square of the longer side, as a multiple of the pixels allowed
_MOST_PROPORTION = 1000  # of the sides; photographs of rails have 23
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of a TIFF


def require_size(name: Path | str, size: tuple[int, int], max_megapixels: int) -> None:
    """Check a photograph's width and height before its pixels are decoded.

    Raises:
        InputError: too many pixels, or a shape whose regions would fill the memory.
    """
    require_bounded(name, size, max_megapixels)
    shorter, longer = sorted(size)
    found = f"{name}: {size[0]:,} × {size[1]:,} pixels; expected a longer side of at most"
    if longer > _MOST_PROPORTION * shorter:
        raise InputError(f"{found} {_MOST_PROPORTION} times the shorter; cut it into parts")
    megapixels = math.ceil(longer**2 / _MOST_SQUARE / 1e6)
    if megapixels > max_megapixels:
        most = math.isqrt(max_megapixels * _MOST_SQUARE * 1_000_000)
        raised = f" or set max_megapixels={megapixels}" * (megapixels <= HIGHEST_MAX_MEGAPIXELS)
        raise InputError(f"{found} {most:,} pixels; make it smaller{raised}")


def require_harmless(name: Path | str, image: Image.Image, max_megapixels: int) -> None:
    """Check all sizes of a file whose header has been read.

    Raises:
        InputError: as in `require_size`, or its tiles have too many pixels.
    """
    require_size(name, image.size, max_megapixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and _TILE_WIDTH in image.tag_v2:
        # The decoder takes memory for a whole tile, which may be larger than the image. (It cuts
        # strips off at the end of the image.)
        tile = (image.tag_v2[_TILE_WIDTH], image.tag_v2.get(_TILE_LENGTH, 0))
        require_bounded(name, tile, max_megapixels, "tiles of ")


def require_bounded(
    path: Path | str, shape: tuple[int, ...], max_megapixels: int, of: str = ""
) -> None:
    """Check the number of pixels of an array of any shape; `of` says what they are.

    Raises:
        InputError: there are too many.
    """
    megapixels = math.ceil(math.prod(shape) / 1e6)
    if megapixels > max_megapixels:
        found = " × ".join(f"{length:,}" for length in shape)
        raised = f" or set max_megapixels={megapixels}" * (megapixels <= HIGHEST_MAX_MEGAPIXELS)
        raise InputError(
            f"{path}: {of}{found} pixels, {megapixels:,} megapixels; expected at most "
            f"{max_megapixels}; make it smaller{raised}"
        )
