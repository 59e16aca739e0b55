"""Predictions of a folder of new images, or of one, as tables on disk, without torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

from anomalyncd.config import MAX_MEGAPIXELS, UNKNOWN_SHARE, FolderConfig
from anomalyncd.data import datasets
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.errors import InputError
from anomalyncd.inference.predicted import Prediction, as_predictions
from anomalyncd.results import csv_files
from anomalyncd.runtime_onnx.deployed import Deployed
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset

TABLES = ("predictions.csv", "regions.csv")
_CATEGORY = "images"


def write_tables(
    file: Path,
    photographs: Path,
    output: Path,
    *,
    maps: Path | None = None,
    threads: int = 0,
    unknown_share: float = UNKNOWN_SHARE,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> list[Prediction]:
    """Write predictions.csv and regions.csv, with the columns of a run's.

    Args:
        file: written by `anomalyncd export`.
        photographs: a folder of images, or one.
        output: the folder of the tables.
        maps: a folder of anomaly maps by the images' names; None: the file's detector makes them.
        threads: see `Deployed`, as the others.
        unknown_share: see `Deployed`.
        max_megapixels: see `Deployed`.

    Returns:
        One prediction for each image, in the order of the table.

    Raises:
        InputError: the file, an image or a map cannot be used, or a table exists already.
    """
    for name in TABLES:
        if (output / name).exists():
            raise InputError(f"{output / name} exists already; give another --output")
    classifier = Deployed(
        file, threads=threads, unknown_share=unknown_share, max_megapixels=max_megapixels
    )
    dataset = _dataset(photographs, max_megapixels)
    given = FilesDetector(str(maps), _CATEGORY, max_megapixels).maps(dataset) if maps else None
    cropped, judged = classifier.classify([s.image for s in dataset.samples], given)
    output.mkdir(parents=True, exist_ok=True)
    names = classifier.class_names
    csv_files.write_predictions(
        output / TABLES[0], dataset.samples, cropped, judged, names, dataset.labels
    )
    csv_files.write_regions(
        output / TABLES[1], dataset.samples, cropped.regions, judged, names, None, None
    )
    return as_predictions(cropped.regions, judged, names)


def _dataset(photographs: Path, max_megapixels: int) -> Dataset:
    if photographs.is_file():
        return datasets.one_photograph(photographs, max_megapixels)
    with tempfile.TemporaryDirectory() as folder:
        settings = FolderConfig(path=str(photographs))
        return datasets.load(settings, _CATEGORY, Cache(Path(folder)), "PHOTOS", max_megapixels)
