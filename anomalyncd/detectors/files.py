"""Maps of any detector, read from files in the release's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from anomalyncd.cache import digest_files
from anomalyncd.errors import InputError
from anomalyncd.images import MAP_SUFFIXES, read_map
from anomalyncd.types import Dataset


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
        return digest_files(self._paths_of(dataset))

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        return map(read_map, self._paths_of(dataset))

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
