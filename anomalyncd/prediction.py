"""Classify new images with a finished run: the same stages, nothing learned."""

from __future__ import annotations

from pathlib import Path

from anomalyncd import catalog, checkpoint, cutting, detectors, devices, maps, tables
from anomalyncd.cache import Cache
from anomalyncd.classify import assign, classify
from anomalyncd.config import FolderConfig, PredictConfig
from anomalyncd.errors import InputError


def predict(config: PredictConfig) -> Path:
    """Write predictions.csv and regions.csv of new images.

    Maps are scaled, and MEBin searches, as in training: one new image is judged as it would be
    among a thousand. The base set is not needed.

    Returns:
        The folder of the tables.

    Raises:
        InputError: no finished run, unusable images or maps, or there are predictions already.
    """
    output = Path(config.output)
    for name in ("predictions.csv", "regions.csv"):
        if (output / name).exists():
            raise InputError(f"{output / name} is there already; set output=… to another folder")
    weights = Path(config.run) / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; run=… takes the folder of a finished run")
    cache = Cache(Path(config.cache_root))
    dataset = catalog.load(FolderConfig(path=config.path), config.category, cache)
    detector = detectors.create(config.detector, config.category)
    network, recipe = checkpoint.load_model(weights)
    network.to(devices.choose(config.device))

    anomaly_maps = maps.collect(detector, dataset, cache, recipe.raw_range)
    cut = cutting.cut_novel(
        dataset.samples, anomaly_maps, recipe.mebin, recipe.regions, recipe.backbone.side, cache
    )
    probabilities = classify(network, cut.regions, temperature=recipe.fit.student_temperature)
    found = assign(probabilities[recipe.head], cut.regions, recipe.fusion)

    output.mkdir(parents=True, exist_ok=True)
    names = recipe.class_names
    tables.write_predictions(
        output / "predictions.csv", dataset.samples, cut, found, names, dataset.labels
    )
    tables.write_regions(
        output / "regions.csv", dataset.samples, cut.regions, found, names, None, None
    )
    return output
