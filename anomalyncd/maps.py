"""Anomaly maps of a category on disk: normalised together, in the release's layout, read lazily.

Whatever a detector yields ends as `<category>/<type>/<stem>.png`, 8-bit grey, with a `maps.json`
beside it that says how it was made; the release, and `detector=files`, read the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyncd.cache import Cache, digest_files
from anomalyncd.detectors import Detector
from anomalyncd.detectors.files import MAPS_NOTE
from anomalyncd.errors import InputError
from anomalyncd.images import read_map
from anomalyncd.types import Dataset
from anomalyncd.versions import versions

VERSION = 1  # part of the cache key: raise it when the same input gives other maps


class StoredMaps(Sequence[NDArray[np.uint8]]):
    """8-bit maps, each of its own size, read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / MAPS_NOTE).read_text(encoding="utf-8"))
        raw_range = index["raw_range"]
        self.folder = folder
        # What 0 and 255 stood for; None for maps that came as 8 bits.
        self.raw_range: tuple[float, float] | None = tuple(raw_range) if raw_range else None
        self._files = [folder / name for name in index["files"]]

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        if isinstance(index, slice):
            return [read_map(path) for path in self._files[index]]
        return read_map(self._files[index])


def collect(
    detector: Detector,
    dataset: Dataset,
    category: str,
    cache: Cache,
    *,
    settings: dict[str, Any],
    raw_range: tuple[float, float] | None = None,
) -> StoredMaps:
    """Get the maps of all images, from the cache where they have been made before.

    8-bit maps are stored as they are. Others are normalised together, over all images of the
    category: (x − min) / (max − min) · 255, rounded down, as the release's maps are. One map's own
    minimum and maximum would make every image look as anomalous as any other.

    Args:
        detector: what yields them.
        dataset: the images.
        category: name of the folder that the release looks for.
        cache: where they are kept.
        settings: of the detector; part of the key, and written beside the maps.
        raw_range: that of the maps which a model was trained on, to take the place of their own;
            what lies beyond saturates.

    Raises:
        InputError: as the detector says, and for maps of mixed types.
    """
    ids = [sample.id for sample in dataset.samples]
    unlabelled = replace(dataset, labels=None)

    def build(folder: Path) -> None:
        start = time.perf_counter()
        raw = folder / "raw"
        shapes, dtype, used = _write_raw(raw, detector.maps(unlabelled), ids)
        if dtype == np.uint8:
            used = None
        elif raw_range is not None:
            used = raw_range
        files = [f"{category}/{name}.png" for name in ids]
        for name, scores in zip(files, _read_raw(raw, shapes, dtype), strict=True):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            levels = scores if used is None else _levels(scores, *used)
            # Level 1 writes a 1024² map in a few milliseconds and packs noise nearly as well.
            png = cv2.imencode(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            path.write_bytes(png.tobytes())
        raw.unlink()
        index = {
            "settings": settings,
            "versions": versions(),
            "raw_range": used,
            "seconds": round(time.perf_counter() - start, 3),
            "files": files,
        }
        (folder / MAPS_NOTE).write_text(json.dumps(index, indent=1), encoding="utf-8")

    kind = type(detector)
    made_by = [VERSION, kind.__module__, kind.__qualname__, settings, detector.key(unlabelled)]
    made_of = [
        digest_files(sample.image for sample in dataset.samples),
        digest_files(dataset.train),
    ]
    key = [made_by, made_of, ids, category, raw_range]
    return StoredMaps(cache.entry("maps", key, build))


def _write_raw(
    path: Path, scores_of: Iterator[NDArray], ids: Sequence[str]
) -> tuple[list[tuple[int, ...]], np.dtype, tuple[float, float] | None]:
    """Append maps to a file of raw numbers; their shapes, type and range."""
    shapes: list[tuple[int, ...]] = []
    dtype = np.dtype(np.uint8)
    lowest, highest = np.inf, -np.inf
    with path.open("wb") as file:
        for name, scores in zip(ids, scores_of, strict=True):
            dtype = dtype if shapes else scores.dtype
            if scores.dtype != dtype:
                raise InputError(
                    f"the anomaly map of {name} is {scores.dtype} and others are {dtype}; "
                    "expected one type, since maps are normalised together"
                )
            shapes.append(scores.shape)
            lowest, highest = min(lowest, scores.min()), max(highest, scores.max())
            file.write(np.ascontiguousarray(scores).tobytes())
    return shapes, dtype, (float(lowest), float(highest))


def _read_raw(path: Path, shapes: Sequence[tuple[int, ...]], dtype: np.dtype) -> Iterator[NDArray]:
    with path.open("rb") as file:
        for shape in shapes:
            size = int(np.prod(shape)) * dtype.itemsize
            yield np.frombuffer(file.read(size), dtype).reshape(shape)


def _levels(scores: NDArray, lowest: float, highest: float) -> NDArray[np.uint8]:
    scale = 255 / (highest - lowest) if highest > lowest else 0.0
    # The epsilon keeps the highest score at 255 where the product falls a hair short of it.
    levels = (scores.astype(float) - lowest) * scale + 1e-9
    return levels.clip(0, 255).astype(np.uint8)
