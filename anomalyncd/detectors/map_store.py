"""Anomaly maps of a category on disk: normalised together, in the release's layout, read lazily.

All maps are stored as `<category>/<type>/<stem>.png`, 8-bit grey, with a `maps.json` that records
how they were made. The release and `detector=files` read the same layout.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from anomalyncd import detectors
from anomalyncd.data.images import read_map, valid_scores
from anomalyncd.data.levels import on_levels
from anomalyncd.detectors import Detector
from anomalyncd.detectors.files import MAPS_NOTE
from anomalyncd.errors import InputError
from anomalyncd.runtime import console
from anomalyncd.runtime.versions import versions
from anomalyncd.storage.cache import SEAL, Cache, digest_files
from anomalyncd.storage.identity import result_settings
from anomalyncd.types import Dataset

LEARNED = "detector.safetensors"  # what the detector needs for new images, if it says so
VERSION = 1  # part of the cache key: raise it when the same input gives different maps


class StoredMaps(Sequence[NDArray[np.uint8]]):
    """8-bit maps of any sizes, each read when it is accessed."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / MAPS_NOTE).read_text(encoding="utf-8"))
        raw_range = index["raw_range"]
        self.folder = folder
        # The scores that 0 and 255 stand for; None if the detector yielded 8-bit maps.
        self.raw_range: tuple[float, float] | None = tuple(raw_range) if raw_range else None
        self._files = [folder / name for name in index["files"]]
        learned = folder / LEARNED
        # What the detector has learned, for maps of new images; None if it keeps nothing.
        self.learned: Path | None = learned if learned.is_file() else None

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
    """Get the maps of all images, from the cache if they were made before.

    8-bit maps are stored as they are. Others are normalised together, over all images of the
    category: (x − min) / (max − min) · 255, rounded down, as the release's maps are. Each map's
    own minimum and maximum would make all images equally anomalous.

    Args:
        detector: yields the maps.
        dataset: the images.
        category: name of the folder of maps, as in the release.
        cache: where maps are kept.
        settings: of the detector; those that determine the maps are part of the key, and all are
            written to `maps.json`.
        raw_range: the range of the maps that a model was trained on, used instead of their own;
            values beyond it are clipped.

    Raises:
        InputError: the detector fails; its maps are not as `Detector` requires (one for each
            image, two-dimensional, finite, all of one type); or the category has the name of a
            file of the cache.
    """
    if category in (MAPS_NOTE, SEAL, LEARNED):
        raise InputError(
            f"category={category}: the cache keeps a file of this name beside the folder of maps; "
            "choose another name"
        )
    ids = [sample.id for sample in dataset.samples]
    unlabelled = replace(dataset, labels=None)

    def build(folder: Path) -> None:
        start = time.perf_counter()
        files = [f"{category}/{name}.png" for name in ids]
        with tempfile.TemporaryFile(dir=cache.root) as raw:
            shapes, dtype, used = _write_raw(raw, _checked(detector, unlabelled))
            if dtype == np.uint8:
                used = None
            elif raw_range is not None:
                used = raw_range
            for name, scores in zip(files, _read_raw(raw, shapes, dtype), strict=True):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                levels = scores if used is None else on_levels(scores, *used).astype(np.uint8)
                # Level 1 writes a 1024² map in a few milliseconds and packs noise nearly as well.
                png = cv2.imencode(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
                path.write_bytes(png.tobytes())
        index = {
            "settings": settings,
            "versions": versions(),
            "raw_range": used,
            "seconds": round(time.perf_counter() - start, 3),
            "files": files,
        }
        if isinstance(detector, detectors.KeepsWhatItLearned):
            detector.save(folder / LEARNED)
        (folder / MAPS_NOTE).write_text(json.dumps(index, indent=1), encoding="utf-8")

    kind = type(detector)
    by = [VERSION, kind.__module__, kind.__qualname__]
    made_by = [*by, result_settings(settings), detectors.key(detector, unlabelled)]
    made_of = [
        digest_files(sample.image for sample in dataset.samples),
        digest_files(dataset.train),
    ]
    key = [made_by, made_of, ids, category, raw_range]
    return StoredMaps(cache.entry("maps", key, build))


def _checked(detector: Detector, dataset: Dataset) -> Iterator[tuple[str, NDArray]]:
    """Each image's id with its map, checked against what `Detector` requires."""
    n = len(dataset.samples)
    expected = f"expected one map for each of {n} images"
    with detectors.reported(detector):
        made = detector.maps(dataset)
    if not isinstance(made, Iterable):
        raise InputError(
            f"{detectors.name(detector)}: its maps() returned {type(made).__name__}; {expected}"
        )
    maps = iter(made)
    with console.steps("Maps") as step:
        for number, sample in enumerate(dataset.samples):
            try:
                with detectors.reported(detector):
                    scores = next(maps)
            except StopIteration:
                raise InputError(f"{detectors.name(detector)}: {number} maps; {expected}") from None
            name = f"{detectors.name(detector)}, map of {sample.id}"
            yield sample.id, valid_scores(_as_array(scores, name), name)
            step(number + 1, n)
    for _ in maps:
        raise InputError(f"{detectors.name(detector)}: more than {n} maps; {expected}")


def _as_array(scores: Any, name: str) -> NDArray:
    if isinstance(scores, torch.Tensor):
        try:
            return scores.detach().numpy()
        except (TypeError, RuntimeError) as error:  # on a GPU, bfloat16, sparse
            raise InputError(
                f"{name}: a tensor of {scores.dtype} on {scores.device}, which NumPy cannot read; "
                "yield it with .float().cpu()"
            ) from error
    if not isinstance(scores, np.ndarray):
        raise InputError(
            f"{name}: {type(scores).__name__}; expected a NumPy array or a tensor (height, width)"
        )
    return scores


def _write_raw(
    file: IO[bytes], maps: Iterable[tuple[str, NDArray]]
) -> tuple[list[tuple[int, ...]], np.dtype, tuple[float, float] | None]:
    """Append maps to a file of raw numbers; return their shapes, type and range."""
    shapes: list[tuple[int, ...]] = []
    dtype = np.dtype(np.uint8)
    lowest, highest = np.inf, -np.inf
    for name, scores in maps:
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


def _read_raw(
    file: IO[bytes], shapes: Sequence[tuple[int, ...]], dtype: np.dtype
) -> Iterator[NDArray]:
    file.seek(0)
    for shape in shapes:
        size = int(np.prod(shape)) * dtype.itemsize
        yield np.frombuffer(file.read(size), dtype).reshape(shape)
