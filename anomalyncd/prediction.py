"""Classify new images with a finished run: the same stages, nothing learned."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from anomalyncd import detectors
from anomalyncd.config import FolderConfig, PredictConfig
from anomalyncd.data import datasets
from anomalyncd.detectors import map_store
from anomalyncd.errors import InputError
from anomalyncd.inference.classify import assign, classify
from anomalyncd.models import checkpoint
from anomalyncd.regions import cropping
from anomalyncd.results import csv_files
from anomalyncd.runtime import console, devices
from anomalyncd.storage.atomic import archive
from anomalyncd.storage.cache import Cache

TABLES = ("predictions.csv", "regions.csv")


def predict(config: PredictConfig) -> Path:
    """Write predictions.csv and regions.csv of new images.

    Where both are already, nothing is done. One alone is renamed, so that nothing is lost.

    Maps are scaled, and MEBin searches, as in training: one new image is judged as it would be
    among a thousand. The base set is not needed.

    Returns:
        The folder of the tables.

    Raises:
        InputError: no finished run, unusable images or maps, or there are predictions already.
    """
    output = Path(config.output or Path(config.run, "predictions"))
    _require_free(output)
    weights = Path(config.run) / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; run=… takes the folder of a finished run")
    network, metadata = checkpoint.load_model(weights, config.checkpoint)
    device = devices.choose(config.device)
    network.to(device)
    network.forward_batch = config.forward_batch
    network.vit.precision = devices.precision(metadata.train.precision, device)
    with tempfile.TemporaryDirectory() as workspace:
        cache = Cache(Path(workspace))
        images, most = FolderConfig(path=config.path), config.max_megapixels
        dataset = datasets.load(images, config.category, cache, "path", most)
        for warning in dataset.warnings:
            console.say(f"warning: {warning}")
        detector = detectors.create(config.detector, config.category, device, cache.root, most)
        anomaly_maps = map_store.collect(
            detector,
            dataset,
            config.category,
            cache,
            settings=asdict(config.detector),
            raw_range=metadata.raw_range,
        )
        if (anomaly_maps.raw_range is None) != (metadata.raw_range is None):
            kinds = ("8-bit, normalised already", "not yet normalised")
            expected, found = kinds if metadata.raw_range is None else kinds[::-1]
            raise InputError(
                f"detector.path: these maps are {found}, and the run was trained on maps that are "
                f"{expected}; give maps made and stored in the same way"
            )
        cut = cropping.crop_novel(
            dataset.samples,
            anomaly_maps,
            metadata.mebin,
            metadata.regions,
            metadata.backbone.image_size,
            cache,
        )
        fewer = max(1, config.forward_batch // 2)
        with devices.memory_explained(f"set forward_batch={fewer}, or use device=cpu"):
            probabilities = classify(
                network, cut.regions, temperature=metadata.train.student_temperature
            )
        found_classes = assign(probabilities[metadata.head], cut.regions, metadata.fusion)

    output.mkdir(parents=True, exist_ok=True)
    for name in TABLES:  # one without the other is of a try that was broken off, or of the user's
        archive(output / name)
    names, labels = metadata.class_names, dataset.labels
    csv_files.write_predictions(
        output / "predictions.csv", dataset.samples, cut, found_classes, names, labels
    )
    csv_files.write_regions(
        output / "regions.csv", dataset.samples, cut.regions, found_classes, names, None, None
    )
    return output


def _require_free(output: Path) -> None:
    """Told before the computing, not after it."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is no folder; set output=… to another place")
    if all((output / name).exists() for name in TABLES):
        raise InputError(f"{output / TABLES[0]} is there already; set output=… to another folder")
