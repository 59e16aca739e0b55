"""Anomaly maps of a run's photographs, where its cache still has them.

A run's folder holds no maps; its settings say where they were cached and by which detector.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.data.images import read_map
from anomalyncd.errors import InputError
from anomalyncd.results.known_regions import read_rows
from anomalyncd.results.overlay import normalise
from anomalyncd.storage import foreign
from anomalyncd.storage.run_record import METRICS, read_metrics, read_settings

log = logging.getLogger(__name__)

_NOTE = "maps.json"
_NOTE_BYTES = 100_000_000  # it lists all maps: a million of them take 50 MB


class Maps:
    """The maps of one run; none if they are gone."""

    def __init__(self, run: Path) -> None:
        self._folder: Path | None = None
        self._thresholds: dict[str, float] = {}
        self._range = (0.0, 255.0)
        try:
            rows = read_rows(run / "predictions.csv", ("id", "threshold"))
            self._thresholds = {row["id"]: float(row["threshold"]) for row in rows}
            self._folder = _found(read_settings(run).values, [row["id"] for row in rows])
            low, high = read_metrics(run / METRICS)[1]["mebin"]["search_range"]
            self._range = float(low), float(high)
        except (InputError, KeyError, TypeError, ValueError) as error:
            log.info("no anomaly maps: %s", error)
            self._folder = None

    @property
    def are_there(self) -> bool:
        return self._folder is not None

    def of(self, image: str, size: tuple[int, int]) -> NDArray[np.float32] | None:
        """The map of a photograph, 0 to 255.

        Args:
            image: its id.
            size: height, width of the result.
        """
        if self._folder is None:
            return None
        path = self._folder / f"{image}.png"
        try:
            # The id comes from a table that may be forged: it must not lead out of the folder.
            if not path.resolve().is_relative_to(self._folder.resolve()) or not path.is_file():
                return None
            scores = Image.fromarray(read_map(path).astype(np.float32))
        except (InputError, OSError, ValueError):
            return None
        return np.asarray(scores.resize((size[1], size[0]), Image.Resampling.BILINEAR))

    def heat(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map in 0..1, as the report shows it."""
        return normalise(scores, *self._range)

    def mask(self, image: str, scores: NDArray[np.float32]) -> NDArray[np.uint8] | None:
        """Where the map is above the threshold of its photograph, 255 there."""
        threshold = self._thresholds.get(image)
        return None if threshold is None else np.where(scores > threshold, 255, 0).astype(np.uint8)


def _found(settings: dict[str, Any], ids: Sequence[str]) -> Path | None:
    """The folder `<category>` of the maps that this detector has made of these photographs, in the
    run's cache."""
    category, detector = settings.get("category"), settings.get("detector")
    root = settings.get("cache_root") or Path(str(settings.get("output_root")), "cache")
    if not isinstance(category, str) or not category or Path(category).name != category:
        return None
    for note in sorted(Path(str(root)).glob(f"maps-*/{_NOTE}")):
        try:
            content = foreign.read_json(note, _NOTE_BYTES)
        except InputError:
            continue
        is_same = (
            isinstance(content, dict)
            and content.get("settings") == detector
            and content.get("files") == [f"{category}/{name}.png" for name in ids]
        )
        if is_same and (note.parent / category).is_dir():
            return note.parent / category
    return None
