"""Maps of any detector, read from files in the release's layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyncd.config import MAX_MEGAPIXELS
from anomalyncd.data.folders import readable_inputs, require_targets
from anomalyncd.data.images import HIGHEST_SCORE, MAP_SUFFIXES, read_map
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import digest, digest_files
from anomalyncd.storage.identity import Digests, digests
from anomalyncd.types import Dataset

log = logging.getLogger(__name__)

MAPS_NOTE = "maps.json"  # written beside maps of `anomalyncd maps`, see map_store.py
_LARGEST_NOTE = 100_000_000  # bytes; it lists all maps: a million of them take 50 MB


class FilesDetector:
    """Reads `<path>/<category>/<type>/<stem>.png`, npy, npz or tiff.

    Images and maps pair by type and stem, never by position. The category's
    folder may be missing if `path` holds only this category.

    Raises:
        InputError: no such folder, or its `maps.json` is damaged.
    """

    def __init__(self, path: str, category: str, max_megapixels: int = MAX_MEGAPIXELS) -> None:
        root = Path(path)
        with readable_inputs():
            require_targets((root, root / category))
            if not root.is_dir():
                raise InputError(f"{root}: no such folder; set detector.path=… to the anomaly maps")
            self.root = root / category if (root / category).is_dir() else root
            notes = [folder / MAPS_NOTE for folder in (self.root, self.root.parent)]
            require_targets(notes)
            note = next((path for path in notes if path.is_file()), None)
            self.raw_range = None if note is None else raw_range_in(note)
        self.max_megapixels = max_megapixels

    def key(self, dataset: Dataset) -> Any:
        return self.raw_range, digest_files(self._paths_of(dataset))

    def inputs(self, dataset: Dataset) -> Digests:
        names = (sample.id for sample in dataset.samples)
        found = digests({"anomaly map": dict(zip(names, self._paths_of(dataset), strict=True))})
        if self.raw_range is not None:
            found["range of the maps"] = {MAPS_NOTE: digest(self.raw_range)}
        return found

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        for path in self._paths_of(dataset):
            scores = read_map(path, self.max_megapixels)
            if self.raw_range is None:
                yield scores
            elif scores.dtype == np.uint8:
                lowest, highest = self.raw_range
                yield lowest + scores * ((highest - lowest) / 255)
            else:
                raise InputError(
                    f"{path}: an anomaly map of type {scores.dtype}, but {MAPS_NOTE} beside it "
                    f"describes 8-bit maps; use the maps it was made with, or remove {MAPS_NOTE}"
                )

    def find(self, sample_id: str) -> Path | None:
        """The map of an image, by its id; None if there is none."""
        return next((path for path in self._named(sample_id) if path.is_file()), None)

    def _named(self, sample_id: str) -> list[Path]:
        # Suffixes are appended: with_suffix would cut a stem at its last dot.
        return [self.root / (sample_id + suffix) for suffix in MAP_SUFFIXES]

    def _paths_of(self, dataset: Dataset) -> list[Path]:
        named = [self._named(sample.id) for sample in dataset.samples]
        with readable_inputs():
            require_targets(path for paths in named for path in paths)
            found = [[path for path in paths if path.is_file()] for paths in named]
        missing = [s for s, paths in zip(dataset.samples, found, strict=True) if not paths]
        if missing:
            kinds = ",".join(suffix[1:] for suffix in MAP_SUFFIXES)
            more = f" (and for {len(missing) - 1} more images)" if len(missing) > 1 else ""
            raise InputError(
                f"no anomaly map for {missing[0].image}{more}: looked for "
                f"{self.root / missing[0].id}.{{{kinds}}}; "
                "maps are found by type folder and file name"
            )
        for paths in found:
            if len(paths) > 1:
                raise InputError(f"{paths[0]} and {paths[1].name}: two maps of one image; keep one")
        return [paths[0] for paths in found]


def raw_range_in(note: Path) -> tuple[float, float] | None:
    """The scores that 0 and 255 stand for in stored maps; None if the detector yielded 8-bit maps.

    A file of this name from another program is ignored, with a warning.

    Raises:
        InputError: the file is not JSON, or is ours but damaged.
    """
    where = f"{note}: expected the file that `anomalyncd maps` writes beside its maps"
    remedy = "make the maps again, or remove the file if they are from another program"
    try:
        if note.stat().st_size > _LARGEST_NOTE:
            raise InputError(f"{where}; found more than {_LARGEST_NOTE:,} bytes; {remedy}")
        content = json.loads(note.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{where}; found no readable JSON; {remedy}") from None
    if not isinstance(content, dict) or not {"raw_range", "files"} & content.keys():
        log.warning("%s: not written by this program, so it is not used", note)
        return None
    raw_range = content.get("raw_range", "nothing")
    if raw_range is None:
        return None
    if isinstance(raw_range, list) and len(raw_range) == 2:
        lowest, highest = raw_range
        if _is_score(lowest) and _is_score(highest) and lowest <= highest:
            return float(lowest), float(highest)
    raise InputError(
        f"{where}, in it raw_range=[lowest, highest] of finite numbers, or null; found something "
        f"else; {remedy}"
    )


def _is_score(value: Any) -> bool:
    """A finite number that `valid_scores` accepts; JSON allows NaN and integers of any length."""
    return type(value) in (int, float) and abs(value) <= HIGHEST_SCORE
