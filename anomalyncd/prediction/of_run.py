"""A finished run as an `Examiner`."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import cast

from anomalyncd.config import PredictConfig
from anomalyncd.prediction.classifier import Classifier, Examined
from anomalyncd.prediction.examiner import given_maps
from anomalyncd.prediction.neighbours import Neighbours
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, ResizeMode


class OfRun:
    """Classifies with torch, and knows the regions of the run."""

    def __init__(self, config: PredictConfig) -> None:
        """
        Raises:
            InputError: the run or the maps cannot be used.
        """
        self._config = config
        self._classifier = Classifier(
            config.run,
            weights=config.checkpoint,
            device=config.device,
            forward_batch=config.forward_batch,
            max_megapixels=config.max_megapixels,
            unknown_share=config.unknown_share,
        )
        self._given = given_maps(config)

    @cached_property
    def neighbours(self) -> Neighbours:
        """See `Examiner`, as the others."""
        return Neighbours.of_run(self._classifier.run)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._classifier.class_names

    @property
    def resize_mode(self) -> ResizeMode:
        return cast(ResizeMode, self._classifier.metadata.regions.resize_mode)

    @property
    def search_range(self) -> tuple[float, float]:
        low, high = self._classifier.metadata.mebin.search_range or (0, 255)
        return low, high

    @property
    def alone(self) -> bool:
        # MuSc compares the images that it is given with each other: it needs all of them at once.
        return self._given is not None or self._classifier.scores_alone

    def examine(self, dataset: Dataset, cache: Cache) -> Examined:
        config, settings = self._config, asdict(self._config.detector)
        detector = self._given or self._classifier.own_detector(cache)
        return self._classifier.examine(dataset, detector, config.category, cache, settings)
