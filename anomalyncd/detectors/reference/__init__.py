"""Compare images with photographs that are known to be good, or else with each other.

Either way one image is scored alone by what was kept, in a time that does not depend on the number
of images: memory is flat, and the same file scores tomorrow's photographs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import PIL
import torch
from numpy.typing import NDArray

from anomalyncd.config import ReferenceDetectorConfig
from anomalyncd.detectors.reference import known_good, pile
from anomalyncd.detectors.reference.known_good import KnownGood
from anomalyncd.detectors.reference.photographs import KEY, decoded
from anomalyncd.detectors.reference.pile import Pile
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import digest_files
from anomalyncd.storage.identity import weights_file
from anomalyncd.storage.tensors import load_tensors
from anomalyncd.types import Dataset

VERSION = 3  # part of the cache key: raise it when maps change


class ReferenceDetector:
    """Learns from the known-good images of a dataset, or from a panel of its images if there are
    none, and scores all images.

    Args:
        config: backbone, sizes, and what is kept.
        device: where the network and the search run.
    """

    def __init__(self, config: ReferenceDetectorConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._learned: KnownGood | Pile | None = None

    def key(self, dataset: Dataset) -> Any:
        settings = asdict(self.config)
        if weights := weights_file(self.config.backbone, KEY):
            settings["backbone"]["checkpoint"] = digest_files([weights])
        return VERSION, settings, self.device.type, torch.__version__, PIL.__version__

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        """One (map_size, map_size) float32 map per image, ≥ 0, comparable between images.

        Raises:
            InputError: an unreadable image, too few images, or an unusable backbone.
        """
        paths = [sample.image for sample in dataset.samples]
        if dataset.train:
            self._learned = KnownGood.learn(self.config, dataset.train, self.device)
        else:
            self._learned = Pile.learn(self.config, paths, self.device)
        for image in decoded(paths):
            yield self._learned.anomaly_map(image)

    def save(self, path: Path) -> None:
        """Keep what `maps` has learned, for images to come."""
        assert self._learned is not None, "maps() comes first"
        self._learned.save(path)


class LearnedReference:
    """A detector that has learned already: the file of a finished run.

    Raises:
        InputError: the file is not one of these, or does not fit its backbone.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        tensors, header = load_tensors(path)
        if pile.HEADER in header:
            self.learned: KnownGood | Pile = Pile.restore(
                path, tensors, header[pile.HEADER], device
            )
        elif known_good.HEADER in header:
            self.learned = KnownGood.restore(path, tensors, header[known_good.HEADER], device)
        else:
            raise InputError(f"{path}: not what a detector has learned; compute the run again")

    def key(self, dataset: Dataset) -> Any:
        return VERSION, digest_files([self._path])

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        """As `ReferenceDetector.maps`."""
        for image in decoded([sample.image for sample in dataset.samples]):
            yield self.learned.anomaly_map(image)
