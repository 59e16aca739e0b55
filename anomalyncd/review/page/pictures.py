"""Pictures of regions and photographs: made when they are asked for, and kept within a bound."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.data.images import read_image
from anomalyncd.errors import InputError
from anomalyncd.results.overlay import heat_overlay, outline
from anomalyncd.review.page.heat import Maps
from anomalyncd.review.session import Review

THUMBNAIL, LARGE = 160, 480  # pixels, of a region among others and of one that is asked about
_PHOTOGRAPH = 1400  # pixels, the longer side of an enlarged photograph at most …
_SMALLEST = 1000  # … and at least, or its box would hide what it shows
_THUMBNAIL_BYTES = 64_000_000  # kept of thumbnails, 4 to 10 KB each …
_PHOTOGRAPH_BYTES = 256_000_000  # … and of decoded photographs
_MARGIN = 0.35  # of a box's longer side, shown around it
_LINE, _HALO = (60, 255, 190), (0, 40, 30)

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The values used last, up to a number of bytes."""

    def __init__(self, most: int, size: Callable[[Value], int]) -> None:
        self._most, self._size = most, size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> None:
        with self._lock:
            if key in self._values:
                self._bytes -= self._size(self._values.pop(key))
            self._values[key] = value
            self._bytes += self._size(value)
            while self._bytes > self._most and self._values:
                _, oldest = self._values.popitem(last=False)
                self._bytes -= self._size(oldest)

    @property
    def bytes(self) -> int:
        return self._bytes


class Pictures:
    """Only photographs that the run lists are read, and only what decodes as an image is shown."""

    def __init__(self, review: Review, maps: Maps) -> None:
        self._known, self._maps = review.regions, maps
        self.thumbnails: Kept[bytes] = Kept(_THUMBNAIL_BYTES, len)
        self._photographs: Kept[NDArray[np.uint8]] = Kept(_PHOTOGRAPH_BYTES, lambda a: a.nbytes)
        # Regions of one photograph wait for each other, so that it is decoded once.
        self._locks = [threading.Lock() for _ in range(4)]

    def thumbnail(self, region: int, size: int = THUMBNAIL) -> bytes | None:
        """The region with some of its surroundings and its outline, JPEG; None: it is gone."""
        made = self.thumbnails.get((region, size))
        if made is None:
            made = self._thumbnail(region, size)
            if made is not None:
                self.thumbnails.put((region, size), made)
        return made

    def photograph(self, region: int, *, heat: bool) -> bytes | None:
        """The region's whole photograph with its box, JPEG; None: it is gone."""
        pixels = self._pixels(region)
        if pixels is None:
            return None
        longer = max(pixels.shape[:2])
        scale = min(max(longer, _SMALLEST), _PHOTOGRAPH) / longer
        height, width = (max(round(side * scale), 1) for side in pixels.shape[:2])
        shown = np.asarray(Image.fromarray(pixels).resize((width, height)))
        image = self._known.ids[region]
        scores = self._maps.of(image, (height, width))
        if scores is not None:
            if heat:
                shown = heat_overlay(shown, self._maps.heat(scores))
            elif (mask := self._maps.mask(image, scores)) is not None:
                shown = outline(shown, mask, 2)
        left, top, right, bottom = (self._known.boxes[region] * scale).round().astype(int).tolist()
        drawn = np.array(shown)
        for colour, thickness in ((_HALO, 5), (_LINE, 2)):
            cv2.rectangle(drawn, (left, top), (right, bottom), colour, thickness, cv2.LINE_AA)
        return _jpeg(drawn, 88)

    def _thumbnail(self, region: int, size: int) -> bytes | None:
        pixels = self._pixels(region)
        if pixels is None:
            return None
        height, width = pixels.shape[:2]
        left, top, right, bottom = self._known.boxes[region].tolist()
        side = min(max(right - left, bottom - top, 1), 4 * max(height, width))
        # A whole photograph has no surroundings to show.
        reach = side / 2 if side >= min(height, width) else side * (0.5 + _MARGIN)
        x, y = (left + right) / 2, (top + bottom) / 2
        scale = size / (2 * reach)
        matrix = np.array([[scale, 0, (reach - x) * scale], [0, scale, (reach - y) * scale]])
        tile = _warped(pixels, matrix, scale, size)
        scores = self._maps.of(self._known.ids[region], (height, width))
        mask = None if scores is None else self._maps.mask(self._known.ids[region], scores)
        if mask is not None:
            tile = outline(tile, _warped(mask, matrix, scale, size), max(size // 240, 1))
        return _jpeg(tile, 85)

    def _pixels(self, region: int) -> NDArray[np.uint8] | None:
        path = self._known.images[region]
        with self._locks[hash(path) % len(self._locks)]:
            found = self._photographs.get(path)
            if found is None:
                try:
                    if not path.is_file():  # gone; or a pipe, which would block
                        return None
                    found = read_image(path)
                except (InputError, OSError, ValueError):
                    return None
                self._photographs.put(path, found)
            return found


def _warped(
    pixels: NDArray[np.uint8], matrix: NDArray, scale: float, side: int
) -> NDArray[np.uint8]:
    """A square tile of the picture; where it ends, its edge is repeated."""
    if scale < 0.5:  # reduced first, since an affine map reads single pixels
        factor = 2 * scale
        height, width = (max(round(length * factor), 1) for length in pixels.shape[:2])
        shares = np.array([width / pixels.shape[1], height / pixels.shape[0]])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        matrix = matrix.copy()
        matrix[:, :2] /= shares[None]
    tile = cv2.warpAffine(
        pixels, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return tile.astype(np.uint8)


def _jpeg(picture: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
