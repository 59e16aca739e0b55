"""An exported file as an `Examiner`, without torch."""

from __future__ import annotations

from typing import cast

from anomalyncd.config import PredictConfig
from anomalyncd.inference.predicted import Examined
from anomalyncd.prediction.examiner import given_maps
from anomalyncd.runtime_onnx.deployed import Deployed
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, ResizeMode


class OfFile:
    """Classifies with the file's engine; it holds no regions to compare with."""

    alone = True
    neighbours = None

    def __init__(self, config: PredictConfig, threads: int = 0) -> None:
        """
        Args:
            config: `run` is the file; settings of torch have no effect.
            threads: see `Deployed`.

        Raises:
            InputError: the file or the maps cannot be used.
        """
        self._deployed = Deployed(
            config.run,
            threads=threads,
            unknown_share=config.unknown_share,
            max_megapixels=config.max_megapixels,
        )
        self._given = given_maps(config)

    @property
    def class_names(self) -> tuple[str, ...]:
        """See `Examiner`, as the others."""
        return self._deployed.class_names

    @property
    def resize_mode(self) -> ResizeMode:
        return cast(ResizeMode, self._deployed.card.regions.resize_mode)

    @property
    def search_range(self) -> tuple[float, float]:
        low, high = self._deployed.card.mebin.search_range or (0, 255)
        return low, high

    def examine(self, dataset: Dataset, cache: Cache) -> Examined:
        paths = [sample.image for sample in dataset.samples]
        maps = None if self._given is None else self._given.maps(dataset)
        return self._deployed.examine(paths, maps)
