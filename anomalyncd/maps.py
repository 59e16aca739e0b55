"""Anomaly maps of a category on disk: normalised together, packed, read one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from anomalyncd.cache import Cache
from anomalyncd.detectors import Detector
from anomalyncd.errors import InputError
from anomalyncd.types import Dataset

_DATA, _INDEX = "maps.u8", "maps.json"


class StoredMaps(Sequence[NDArray[np.uint8]]):
    """Memory-mapped 8-bit maps, each of its own size; holds none of them in memory."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / _INDEX).read_text())
        shapes, raw_range = index["shapes"], index["raw_range"]
        self.folder = folder
        # What 0 and 255 stood for; None for maps that came as 8 bits.
        self.raw_range: tuple[float, float] | None = tuple(raw_range) if raw_range else None
        self._data = np.memmap(folder / _DATA, np.uint8, mode="r")
        self._shapes = [(int(h), int(w)) for h, w in shapes]
        self._starts = np.cumsum([0] + [h * w for h, w in self._shapes])

    def __len__(self) -> int:
        return len(self._shapes)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = self._starts[index % len(self)]
        h, w = self._shapes[index]
        return np.asarray(self._data[start : start + h * w]).reshape(h, w)


def collect(
    detector: Detector,
    dataset: Dataset,
    cache: Cache,
    raw_range: tuple[float, float] | None = None,
) -> StoredMaps:
    """Get the maps of all images, from the cache where they have been made before.

    8-bit maps are stored as they are. Others are normalised together, over all images of the
    category: (x − min) / (max − min) · 255, rounded down, as the release's maps are. One map's own
    minimum and maximum would make every image look as anomalous as any other. A given `raw_range`,
    that of the maps a model was trained on, takes the place of their own; what is beyond saturates.

    Raises:
        InputError: as the detector says, and for maps of mixed types.
    """

    def build(folder: Path) -> None:
        shapes: list[tuple[int, int]] = []
        lowest, highest = np.inf, -np.inf
        dtype = np.dtype(np.uint8)
        raw = folder / "raw"
        with raw.open("wb") as file:
            for sample, scores in zip(dataset.samples, detector.maps(dataset), strict=True):
                dtype = dtype if shapes else scores.dtype
                if scores.dtype != dtype:
                    raise InputError(
                        f"anomaly map of {sample.id} is {scores.dtype} and others are {dtype}; "
                        "expected one type, since maps are normalised together"
                    )
                shapes.append(scores.shape)
                lowest, highest = min(lowest, scores.min()), max(highest, scores.max())
                file.write(np.ascontiguousarray(scores).tobytes())
        used = None
        if dtype == np.uint8:
            raw.rename(folder / _DATA)
        else:
            used = raw_range or (float(lowest), float(highest))
            _normalise(raw, folder / _DATA, shapes, dtype, *used)
            raw.unlink()
        index = {"shapes": shapes, "raw_range": used}
        (folder / _INDEX).write_text(json.dumps(index))

    return StoredMaps(cache.entry("maps", [detector.key(dataset), raw_range], build))


def _normalise(
    raw: Path,
    to: Path,
    shapes: list[tuple[int, int]],
    dtype: np.dtype,
    lowest: float,
    highest: float,
) -> None:
    scale = 255 / (highest - lowest) if highest > lowest else 0.0
    with raw.open("rb") as source, to.open("wb") as target:
        for h, w in shapes:
            scores = np.frombuffer(source.read(h * w * dtype.itemsize), dtype)
            # The epsilon keeps the highest score at 255 where the product falls a hair short of it.
            levels = (scores.astype(float) - lowest) * scale + 1e-9
            target.write(levels.clip(0, 255).astype(np.uint8).tobytes())
