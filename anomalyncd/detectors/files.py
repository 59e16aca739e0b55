"""Maps of any detector, read from files in the release's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from anomalyncd.cache import digest_files
from anomalyncd.errors import InputError
from anomalyncd.images import MAP_SUFFIXES, read_map
from anomalyncd.types import Dataset, Sample


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
        return digest_files(self._path_of(sample) for sample in dataset.samples)

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        for sample in dataset.samples:
            yield read_map(self._path_of(sample))

    def _path_of(self, sample: Sample) -> Path:
        for suffix in MAP_SUFFIXES:
            path = self.root / (sample.id + suffix)  # with_suffix would eat a stem's own dots
            if path.is_file():
                return path
        kinds = ",".join(suffix[1:] for suffix in MAP_SUFFIXES)
        raise InputError(
            f"no anomaly map for {sample.image}: looked for {self.root / sample.id}.{{{kinds}}}; "
            "maps are found by type folder and file name"
        )
