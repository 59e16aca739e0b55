"""Maps of any detector, read from files in the release's layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from anomalyncd.cache import digest_files
from anomalyncd.errors import InputError
from anomalyncd.images import MAP_SUFFIXES, read_map
from anomalyncd.types import Dataset

MAPS_NOTE = "maps.json"  # written beside maps that were made here, see maps.py


class FilesDetector:
    """Reads `<path>/<category>/<type>/<stem>.png`, npy, npz or tiff.

    Images and maps pair by type and stem, never by position. A folder that holds the maps of one
    category alone may leave the category's folder out.
    """

    def __init__(self, path: str, category: str) -> None:
        root = Path(path)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; set detector.path=… to the anomaly maps")
        self.root = root / category if (root / category).is_dir() else root

    def key(self, dataset: Dataset) -> Any:
        return self._raw_range(), digest_files(self._paths_of(dataset))

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        raw_range = self._raw_range()
        for path in self._paths_of(dataset):
            scores = read_map(path)
            if raw_range is None:
                yield scores
            else:
                lowest, highest = raw_range
                yield lowest + scores * ((highest - lowest) / 255)

    def _raw_range(self) -> tuple[float, float] | None:
        """What 0 and 255 stand for in maps that were made here; None for others."""
        for folder in (self.root, self.root.parent):
            if (folder / MAPS_NOTE).is_file():
                raw_range = json.loads((folder / MAPS_NOTE).read_text(encoding="utf-8"))[
                    "raw_range"
                ]
                return None if raw_range is None else (raw_range[0], raw_range[1])
        return None

    def _paths_of(self, dataset: Dataset) -> list[Path]:
        # Suffixes are appended: with_suffix would eat a stem's own dots.
        found = [
            [path for suffix in MAP_SUFFIXES if (path := self.root / (s.id + suffix)).is_file()]
            for s in dataset.samples
        ]
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
