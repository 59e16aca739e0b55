"""Predictions of a folder of new images, or of one, as tables on disk."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import cast

from anomalyncd import detectors
from anomalyncd.config import FilesDetectorConfig, FolderConfig, PredictConfig
from anomalyncd.data import datasets
from anomalyncd.errors import InputError
from anomalyncd.inference.classify import Predictions
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.regions import cropping
from anomalyncd.results import csv_files
from anomalyncd.runtime import console
from anomalyncd.storage.atomic import archive
from anomalyncd.storage.cache import Cache
from anomalyncd.storage.run_folder import hold
from anomalyncd.types import Dataset, Sample

TABLES = ("predictions.csv", "regions.csv")


def predict(config: PredictConfig) -> Path:
    """Write predictions.csv and regions.csv of new images: a folder of them, or one.

    If only one of the two exists already, it is renamed, so that nothing is lost.

    Returns:
        The folder of the tables.

    Raises:
        InputError: the run is not finished, images or maps are unusable, or both files exist.
    """
    output = Path(config.output or Path(config.run, "predictions"))
    _require_free(output)
    classifier = Classifier(
        config.run,
        weights=config.checkpoint,
        device=config.device,
        forward_batch=config.forward_batch,
        max_megapixels=config.max_megapixels,
        unknown_share=config.unknown_share,
    )
    with tempfile.TemporaryDirectory() as workspace:
        cache = Cache(Path(workspace))
        most = config.max_megapixels
        dataset = _photographs(config, cache)
        for warning in dataset.warnings:
            console.say(f"warning: {warning}")
        settings = cast(FilesDetectorConfig, config.detector)  # config.py has checked it
        detector = (
            detectors.create(settings, config.category, classifier.device, cache.root, most)
            if settings.path
            else classifier.own_detector(cache)
        )
        busy = "another process writes predictions there; wait for it, or set output=… elsewhere"
        with hold(output, busy, "set output=… elsewhere"):
            _require_free(output)  # another process may have written it since the first check
            cropped, found = classifier.classify(
                dataset, detector, config.category, cache, asdict(config.detector)
            )
            _write(output, classifier, dataset, cropped, found)
    return output


def _photographs(config: PredictConfig, cache: Cache) -> Dataset:
    """The images of a folder, or one image."""
    path, most = Path(config.path), config.max_megapixels
    if path.is_file():
        return datasets.with_headers_read(Dataset((Sample(path.stem, path),), None), most)
    return datasets.load(FolderConfig(path=config.path), config.category, cache, "path", most)


def _write(
    output: Path,
    classifier: Classifier,
    dataset: Dataset,
    cropped: cropping.Cropped,
    found: Predictions,
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name in TABLES:  # one alone is from an interrupted attempt, or the user's own
        archive(output / name)
    names = classifier.class_names
    csv_files.write_predictions(
        output / "predictions.csv", dataset.samples, cropped, found, names, dataset.labels
    )
    csv_files.write_regions(
        output / "regions.csv", dataset.samples, cropped.regions, found, names, None, None
    )


def _require_free(output: Path) -> None:
    """Check the output folder before the computation, not after it."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is not a folder; set output=… to another path")
    if all((output / name).exists() for name in TABLES):
        raise InputError(f"{output / TABLES[0]} exists already; set output=… to another folder")
