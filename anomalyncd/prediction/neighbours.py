"""The known regions that are most similar to a new one."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomalyncd.decisions import naming
from anomalyncd.errors import InputError
from anomalyncd.inference.similarity import directions, nearest
from anomalyncd.results import known_regions
from anomalyncd.results.known_regions import KnownRegions

log = logging.getLogger(__name__)

COUNT = 3


class Neighbours:
    """A run's regions, by the cosine of their class tokens."""

    def __init__(self, known: KnownRegions | None) -> None:
        """
        Args:
            known: by the run; None: its version kept no features, so nothing is similar.
        """
        self.known = known
        self._directions = (
            np.zeros((0, 0), np.float32) if known is None else directions(known.tokens)
        )

    @classmethod
    def of_run(cls, run: Path) -> Neighbours:
        """Those of a finished run; none if it kept nothing that can be compared with."""
        if not (run / known_regions.FEATURES).is_file():  # an earlier version's
            return cls(None)
        try:
            known = known_regions.read(run)
            names = naming.of_regions(run, known.ids, known.classes, known.class_names)
            return cls(replace(known, class_names=names))
        except InputError as error:  # the classes of new images do not need it
            log.warning("%s; no similar regions are shown", error)
            return cls(None)

    def of(self, token: NDArray[np.float32]) -> list[tuple[int, float]]:
        """Row in the run's regions.csv and cosine, the most similar first, of a (width,) token."""
        if self._directions.shape[1:] != token.shape:
            return []
        rows, cosines = nearest(self._directions, directions(token[None])[0], COUNT)
        return [(int(i), round(float(c), 4)) for i, c in zip(rows, cosines, strict=True)]
