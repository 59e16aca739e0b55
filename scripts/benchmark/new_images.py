"""New photographs from file to class, with all that a run keeps, against its networks alone."""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

import anomalyncd
from anomalyncd.data import demo
from anomalyncd.data.images import read_image
from anomalyncd.detectors.reference.known_good import KnownGood
from anomalyncd.detectors.reference.photographs import squeezed
from anomalyncd.inference.classify import classify
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.regions import cropping
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, Sample
from scripts.benchmark.harness import Row, benchmark, row

TOGETHER = 12


@benchmark("new_images", by_name=True)
def bench_new_images(options: argparse.Namespace) -> list[Row]:
    """A run with known-good photographs, detector=reference and the embedded backbone classifies
    drawn photographs of two sizes, one at a time and several together."""
    return [
        row for side in ((64,) if options.tiny else (224, 1024)) for row in _rows(side, options)
    ]


def _rows(side: int, options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = _discovered(folder, side, options)
        demo.draw(folder / "new", seed=1, side=side, train=0, good=0, per_class=2, combined=0)
        paths = sorted((folder / "new" / "test").rglob("*.png"))[:TOGETHER]
        classifier = Classifier(run, device=str(options.device))
        detector = classifier.kept_detector
        assert detector is not None and isinstance(detector.learned, KnownGood)
        squares = [
            [
                (s.features, squeezed(read_image(path), s.image_size))
                for s in detector.learned.scales
            ]
            for path in paths
        ]
        dataset = Dataset(tuple(Sample(str(i), path) for i, path in enumerate(paths)), None)
        cut = classifier.examine(dataset, detector, "new", Cache(folder / "cache"), {}).cropped

        def networks(cropped: cropping.Cropped, n: int) -> None:
            with torch.inference_mode():
                for features, square in (each for image in squares[:n] for each in image):
                    features(square)
            classify(classifier.network, cropped.regions)

        one = Dataset(dataset.samples[:1], None)
        cut_one = classifier.examine(one, detector, "new", Cache(folder / "first"), {}).cropped
        runs = 1 if options.tiny else 5
        return [
            row(
                f"{n} new photograph(s), from file to class, against the networks alone",
                f"{side} px",
                partial(classifier.predict, paths[:n]),
                partial(networks, cropped, n),
                runs=runs,
            )
            for n, cropped in ((1, cut_one), (len(paths), cut))
        ]


def _discovered(folder: Path, side: int, options: argparse.Namespace) -> Path:
    """A finished run; how well it is trained changes no time."""
    few: dict[str, Any] = (
        {"detector__backbone__image_size": 64, "discovery__members": 2} if options.tiny else {}
    )
    demo.draw(folder / "known", side=side, train=4, good=4, per_class=2, combined=0)
    result = anomalyncd.discover(
        folder / "known" / "test",
        good=folder / "known" / "train" / "good",
        classes=3,
        output_root=folder / "out",
        device=str(options.device),
        quiet=True,
        train__epochs=1,
        **few,
    )
    return Path(result.folder)
