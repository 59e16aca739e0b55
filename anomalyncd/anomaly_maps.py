"""Make anomaly maps, or find them in the cache, and evaluate them; nothing is trained on them."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from anomalyncd import detectors
from anomalyncd.config import Config
from anomalyncd.detectors import map_store
from anomalyncd.evaluation.map_quality import evaluate_maps
from anomalyncd.inputs import find_images, open_detector
from anomalyncd.runtime import console, devices
from anomalyncd.storage.cache import Cache

log = logging.getLogger(__name__)


def make_maps(config: Config) -> tuple[Path, dict[str, float | None]]:
    """Make a category's anomaly maps, or find them in the cache.

    Returns:
        The folder of the maps, in the release's layout, and their quality figures.

    Raises:
        InputError: unusable images, or an error of the detector.
    """
    cache = Cache(Path(config.cache_folder))
    dataset = find_images(config, cache)
    detector = open_detector(config, cache, devices.choose(config.device))
    advice = devices.memory_explained(detectors.memory_advice(config.detector))
    with console.logging_to(None, quiet=config.quiet), advice:
        for warning in dataset.warnings:
            log.warning(warning)
        anomaly_maps = map_store.collect(
            detector, dataset, config.category, cache, settings=asdict(config.detector)
        )
    return anomaly_maps.folder, evaluate_maps(dataset, anomaly_maps, cache)
