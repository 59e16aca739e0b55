"""Classify new images with a finished run: the same stages, without training."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd import detectors
from anomalyncd.config import (
    MAX_MEGAPIXELS,
    UNKNOWN_SHARE,
    DetectorConfig,
    MuscDetectorConfig,
    require_forward_batch,
    require_max_megapixels,
    require_unknown_share,
)
from anomalyncd.data import datasets
from anomalyncd.data.images import name_of, pixels_of
from anomalyncd.decisions import naming
from anomalyncd.detectors import map_store
from anomalyncd.errors import InputError
from anomalyncd.inference import appearance, predicted
from anomalyncd.inference.classify import Classified, classify
from anomalyncd.inference.predicted import PredictedRegion as PredictedRegion
from anomalyncd.inference.predicted import Prediction as Prediction
from anomalyncd.inference.predicted import as_predictions
from anomalyncd.inference.unknown import familiar, judge
from anomalyncd.models import checkpoint
from anomalyncd.regions import cropping
from anomalyncd.results import known_regions
from anomalyncd.runtime import devices
from anomalyncd.storage import run_record
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, Sample

if TYPE_CHECKING:
    from anomalyncd.detectors.reference import LearnedReference

log = logging.getLogger(__name__)

ImageLike = str | Path | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Examined(predicted.Examined):
    """All that was found of some images; what lies on disk goes with the cache that it is in."""

    maps: map_store.StoredMaps
    classified: Classified
    # (n_regions, width) and (n_images, width), see `appearance`; None: the run kept none to compare
    looks: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    region_scores: NDArray[np.float64]  # how unlike the run's own regions; above 1: unknown
    image_scores: NDArray[np.float64]  # how unlike the run's own images; above 1: out of scope

    @property
    def tokens(self) -> NDArray[np.float32]:
        return self.classified.tokens


class Classifier:
    """A finished run's network with all that it needs to classify new images.

    Maps are scaled, and MEBin uses the search range, as in training: the class of an image does not
    depend on the other images. The base set is not needed.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        forward_batch: int = 64,
        max_megapixels: int = MAX_MEGAPIXELS,
        unknown_share: float = UNKNOWN_SHARE,
    ) -> None:
        """
        Args:
            run: the folder of a finished run.
            weights: the backbone's weights file, if it has been moved.
            device: as in `Config.device`.
            forward_batch: regions per forward pass.
            max_megapixels: of the largest image that `predict` opens.
            unknown_share: of known regions, and of images of the product, that may be called
                unknown or out of scope by mistake; 0: all get the most similar class.

        Raises:
            InputError: the run is not finished, its model or its features cannot be used, or a
                number is out of range.
        """
        require_forward_batch(forward_batch)
        require_unknown_share(unknown_share)
        require_max_megapixels(max_megapixels)
        self.max_megapixels = max_megapixels
        self.run = Path(run)
        path = self.run / "model.safetensors"
        if not path.is_file():
            begun = (self.run / "config.yaml").is_file()
            reason = "the run is not finished; repeat its command to resume it"
            expected = reason if begun else "expected the folder of a finished run"
            raise InputError(f"{path}: no such file; {expected}")
        self.network, self.metadata = checkpoint.load_model(
            path, None if weights is None else str(weights)
        )
        self.naming = naming.read(self.run, self.metadata.class_names)
        if advice := self.naming.advice(self.run):
            log.warning(advice)
        self.device = devices.choose(device)
        self.network.to(self.device)
        self.network.forward_batch = forward_batch
        precision = devices.precision(self.metadata.train.precision, self.device)
        self.network.vit.precision = precision
        self._verdicts = unknown_share > 0
        seen = known_regions.read_seen(self.run, self.network.vit.width)
        self._familiar = seen and familiar(seen, unknown_share)
        if seen is None and self._verdicts:
            log.warning(
                "%s: its version kept nothing to compare new regions with, so none will be called "
                "unknown; repeat the run, or set unknown_share=0",
                self.run,
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """(K,) names, by class id, as a review of the run has given them."""
        return self.naming.names

    def predict(
        self, images: Sequence[ImageLike], maps: Sequence[NDArray] | None = None
    ) -> list[Prediction]:
        """Classify images.

        Args:
            images: a list of paths, PIL images, or (h, w, 3) uint8 RGB arrays, in any mixture; or
                an (n, h, w, 3) array.
            maps: (h, w) anomaly maps of the images, made and scaled like the run's; None: made by
                the run's detector, which must need nothing but the new images: `reference`, or
                `musc*` with at least 5 images.

        Returns:
            One prediction for each image, in their order.

        Raises:
            InputError: an image or map cannot be used, `images` is a single image instead of a
                list, or the detector needs more than these images.

        Example:
            >>> classifier = anomalyncd.load("outputs/…/seed-1")  # doctest: +SKIP
            >>> found = classifier.predict(["a.png"])  # doctest: +SKIP
            >>> found[0].class_name  # doctest: +SKIP
            'class 2'
        """
        is_array = isinstance(images, np.ndarray) and images.ndim in (2, 3)
        if is_array or isinstance(images, str | Path | Image.Image):
            raise InputError(
                f"predict() was given one image, a {type(images).__name__}; expected a list of "
                "them: predict([image], maps=[its_map])"
            )
        if maps is not None and len(maps) != len(images):
            raise InputError(f"{len(maps)} maps for {len(images)} images; expected one for each")
        if len(images) == 0:
            return []
        with self.examined(images, maps) as found:
            return as_predictions(found.cropped.regions, found.judged, self.class_names)

    @contextmanager
    def examined(
        self, images: Sequence[ImageLike], maps: Sequence[NDArray] | None = None
    ) -> Iterator[Examined]:
        """All that is found of images, until the block ends; arguments and errors of `predict`."""
        with tempfile.TemporaryDirectory() as workspace:
            folder = Path(workspace)
            samples = tuple(
                Sample(str(i), _as_file(image, folder / f"{i}.png", name_of(image, i)))
                for i, image in enumerate(images)
            )
            dataset, cache = Dataset(samples, None), Cache(folder / "cache")
            for warning in datasets.with_headers_read(dataset, self.max_megapixels).warnings:
                log.warning(warning)
            detector = GivenMaps(maps) if maps is not None else self.own_detector(cache)
            yield self.examine(dataset, detector, "images", cache, settings={})

    def examine(
        self,
        dataset: Dataset,
        detector: detectors.Detector,
        category: str,
        cache: Cache,
        settings: dict[str, Any],
    ) -> Examined:
        """Make the maps of a dataset, crop its regions, and classify them.

        Args:
            dataset: the images.
            detector: makes their anomaly maps.
            category: name of the maps' folder.
            cache: where maps and regions are kept.
            settings: of the detector, recorded with the maps.

        Raises:
            InputError: unusable images or maps, or maps of another kind than the run's.
        """
        metadata = self.metadata
        anomaly_maps = map_store.collect(
            detector, dataset, category, cache, settings=settings, raw_range=metadata.raw_range
        )
        if (anomaly_maps.raw_range is None) != (metadata.raw_range is None):
            kinds = ("8-bit, normalised already", "not yet normalised")
            expected, found = kinds if metadata.raw_range is None else kinds[::-1]
            raise InputError(
                f"these anomaly maps are {found}, but the run was trained on maps that are "
                f"{expected}; use maps made and stored in the same way"
            )
        cropped = cropping.crop_novel(
            dataset.samples,
            anomaly_maps,
            metadata.mebin,
            metadata.regions,
            metadata.backbone.image_size,
            cache,
        )
        regions, looks = cropped.regions, None
        fewer = max(1, self.network.forward_batch // 2)
        other = ", or use device=cpu" if self.device.type != "cpu" else ""
        with devices.memory_explained(f"set forward_batch={fewer}{other}"):
            classified = classify(
                self.network, regions, temperature=metadata.train.student_temperature
            )
            merged = classified.probabilities @ self.naming.merging
            classified = replace(classified, probabilities=merged)
            if self._familiar is not None:
                paths = [sample.image for sample in dataset.samples]
                of_regions = appearance.of_regions(self.network, regions, np.arange(len(regions)))
                looks = of_regions, appearance.of_images(self.network, paths)
        region_scores, image_scores = np.zeros(len(regions)), np.zeros(len(dataset.samples))
        if self._familiar is not None and looks is not None:
            region_scores, image_scores = (
                kind.scores(look) for kind, look in zip(self._familiar, looks, strict=True)
            )
        judged = judge(
            classified.probabilities[metadata.head],
            regions,
            metadata.fusion,
            region_scores,
            image_scores,
            verdicts=self._verdicts,
        )
        return Examined(
            anomaly_maps, cropped, judged, classified, looks, region_scores, image_scores
        )

    @cached_property  # for one photograph after the other
    def kept_detector(self) -> LearnedReference | None:
        """What the run's detector has learned; None if it keeps nothing."""
        path = self.run / map_store.LEARNED
        if not path.is_file():
            return None
        from anomalyncd.detectors.reference import LearnedReference

        return LearnedReference(path, self.device)

    @property
    def scores_alone(self) -> bool:
        """Whether the run's own detector scores an image without looking at the other new ones."""
        return self.kept_detector is not None

    def own_detector(self, cache: Cache) -> detectors.Detector:
        """The run's detector, if it needs nothing but the images that it scores."""
        if self.kept_detector is not None:
            return self.kept_detector
        config: DetectorConfig = run_record.read_settings(self.run).detector_config
        if not isinstance(config, MuscDetectorConfig):
            raise InputError(
                f"{self.run}: its detector ({config.label}) needs more than the new images; "
                "give their maps, made like those of the run: detector.path=MAPS for predict, "
                "--maps MAPS for extend and similar, maps=[…] in Python"
            )
        log.warning(
            "the run's detector compares the new images with each other, so their maps can differ "
            "from the run's; give as many images as the run had, or use detector=reference"
        )
        return detectors.create(config, "images", self.device, cache.root, self.max_megapixels)


class GivenMaps:
    """A detector that returns given anomaly maps."""

    def __init__(self, maps: Sequence[NDArray]) -> None:
        self._maps = maps

    def key(self, dataset: Dataset) -> Any:
        return "given"  # the cache is used for this call only

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        yield from self._maps


def load(
    run: str | Path,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    forward_batch: int = 64,
    max_megapixels: int = MAX_MEGAPIXELS,
    unknown_share: float = UNKNOWN_SHARE,
) -> Classifier:
    """The classifier of a finished run; the same arguments and errors as `Classifier`."""
    return Classifier(
        run,
        weights=weights,
        device=device,
        forward_batch=forward_batch,
        max_megapixels=max_megapixels,
        unknown_share=unknown_share,
    )


def _as_file(image: ImageLike, place: Path, name: str) -> Path:
    """The image's own file, or one written to `place` that is read as the same pixels."""
    if isinstance(image, str | Path):
        return Path(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"{name}: an array of {image.dtype} {image.shape}; expected uint8 (h, w, 3), RGB"
            )
    elif isinstance(image, Image.Image):
        image = pixels_of(image, name)
    else:
        raise InputError(f"{name}: of type {type(image).__name__}; expected a path, PIL or array")
    Image.fromarray(image).save(place)
    return place
