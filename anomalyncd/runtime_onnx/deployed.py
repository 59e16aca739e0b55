"""A deployed model: the stages of `prediction.classifier`, with an engine in place of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.config import (
    MAX_MEGAPIXELS,
    UNKNOWN_SHARE,
    require_max_megapixels,
    require_unknown_share,
)
from anomalyncd.data.images import digest_of, name_of, pixels_of, read_image, valid_scores
from anomalyncd.data.levels import on_levels, smoothed
from anomalyncd.errors import InputError
from anomalyncd.inference.predicted import Examined, Prediction, as_predictions
from anomalyncd.inference.unknown import familiar, judge
from anomalyncd.regions.image_crops import Cropped, ImageCrops, around_anomalies, whole
from anomalyncd.runtime_onnx import card as cards
from anomalyncd.runtime_onnx import engines
from anomalyncd.runtime_onnx.engines import Arrays
from anomalyncd.types import Regions

ImageLike = str | Path | Image.Image | NDArray[np.uint8]

_AT_ONCE = 16  # photographs whose regions go through the network together


@dataclass(frozen=True)
class Looked:
    """What is kept of one photograph until it goes through the network."""

    crops: ImageCrops
    levels: NDArray[np.uint8]  # (h, w) anomaly map
    whole: NDArray[np.uint8]  # made square, for the check of scope


class Deployed:
    """An exported classifier. The class of an image does not depend on the other images."""

    def __init__(
        self,
        file: str | Path,
        *,
        threads: int = 0,
        unknown_share: float = UNKNOWN_SHARE,
        max_megapixels: int = MAX_MEGAPIXELS,
    ) -> None:
        """
        Args:
            file: written by `anomalyncd export`: .onnx, or .xml with its .bin beside it.
            threads: to compute with; 0: as many as there are cores.
            unknown_share: of known regions, and of images of the product, that may be called
                unknown or out of scope by mistake; 0: all get the most similar class.
            max_megapixels: of the largest image that `predict` opens.

        Raises:
            InputError: the file is not one of these or damaged, its engine is not installed, or a
                number is out of range.
        """
        require_unknown_share(unknown_share)
        require_max_megapixels(max_megapixels)
        self.max_megapixels = max_megapixels
        self._engine = engines.opened(Path(file), threads)
        self.card, seen = cards.from_metadata(self._engine.metadata, str(file))
        self._verdicts = unknown_share > 0
        self._familiar = seen and familiar(seen, unknown_share)
        self._try_out(str(file), None if seen is None else seen[0].features.shape[1])

    @property
    def class_names(self) -> tuple[str, ...]:
        """(K,) names, by class id."""
        return self.card.class_names

    def predict(
        self, images: Sequence[ImageLike], maps: Sequence[NDArray] | None = None
    ) -> list[Prediction]:
        """Classify images; arguments and result are those of `anomalyncd.Classifier.predict`.

        Args:
            images: a list of paths, PIL images, or (h, w, 3) uint8 RGB arrays, in any mixture.
            maps: (h, w) anomaly maps of the images, made and scaled like the run's; None: made by
                the file's detector.

        Raises:
            InputError: an image or map cannot be used, or the file holds no detector and no maps
                are given.
        """
        if isinstance(images, str | Path | Image.Image):
            raise InputError(f"expected a list of images, found one {type(images).__name__}")
        if maps is not None and len(maps) != len(images):
            raise InputError(f"{len(maps)} maps for {len(images)} images; expected one for each")
        if len(images) == 0:
            return []
        predictions: list[Prediction] = []
        for start in range(0, len(images), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found = self.examine(images[part], None if maps is None else maps[part])
            predictions += as_predictions(found.cropped.regions, found.judged, self.class_names)
        return predictions

    def examine(
        self, images: Sequence[ImageLike], maps: Iterable[NDArray] | None = None
    ) -> Examined:
        """Regions of some images, at least one, and their classes; arguments as of `predict`.

        The pixels of all regions stay in memory.

        Raises:
            InputError: as `predict`.
        """
        probabilities, of_regions, of_images, kept, levels = [], [], [], [], []
        looked = self.looked_at(images, maps)
        while group := list(islice(looked, _AT_ONCE)):
            found = self._engine.network(self.views(group))
            n = len(found[engines.PROBABILITIES]) - len(group)  # the last are whole images
            probabilities.append(found[engines.PROBABILITIES][:n].astype(float))
            of_regions.append(found[engines.APPEARANCE][:n])
            of_images.append(found[engines.APPEARANCE][n:])
            kept += [one.crops for one in group]
            levels += [one.levels for one in group]
        cropped = self._cropped(kept)
        rows = np.concatenate(probabilities)
        if not np.isfinite(rows).all():
            raise InputError("a region has no finite probabilities; export the run again")
        scores = self._unlike(np.concatenate(of_regions), np.concatenate(of_images))
        judged = judge(
            rows / rows.sum(1, keepdims=True),
            cropped.regions,
            self.card.fusion,
            *scores,
            verdicts=self._verdicts,
        )
        return Examined(levels, cropped, judged)

    def anomaly_map(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w, 3) RGB → a square map, by the file's detector, not scaled to the run's.

        Raises:
            InputError: the file has no detector, or only this very image to compare with.
        """
        inputs = self.squares(image)
        found = self._engine.detector(inputs)
        assert self.card.detector is not None  # squares() has checked it
        maps = [
            smoothed(np.asarray(found[engines.SCORES.format(i)], np.float32)) / peak
            for i, peak in enumerate(self.card.detector.peaks)
        ]
        return np.mean(maps, axis=0, dtype=np.float32)

    def squares(self, image: NDArray[np.uint8]) -> Arrays:
        """What the detector's graph gets for an image; errors as of `anomaly_map`."""
        detector = self.card.detector
        if detector is None:
            raise InputError(
                "this file holds no detector, since its run's cannot be exported: give the maps "
                "of the images, made like those of the run: --maps FOLDER (in Python: maps=[…])"
            )
        picture = Image.fromarray(image)
        inputs: Arrays = {
            engines.PHOTOGRAPH.format(i): np.asarray(
                picture.resize((size, size), Image.Resampling.BICUBIC)
            )[None]
            for i, size in enumerate(detector.image_sizes)
        }
        if detector.members:
            digest = digest_of(image)
            left_out = np.array([member == digest for member in detector.members])
            if left_out.all():
                raise InputError("nothing to compare this image with: the file knows only itself")
            inputs[engines.LEFT_OUT] = left_out
        return inputs

    def views(self, group: Sequence[Looked]) -> Arrays:
        """What the network's graph gets: regions of images, then the images as a whole."""
        size = self.card.image_size
        crops = [crop for one in group for crop in one.crops.crops]
        start = (len(crops[0][0]) - size) // 2
        centre = slice(start, start + size)
        empty = np.zeros((size, size), np.uint8)  # none counts as all of it
        pictures = [image[centre, centre] for image, _, _ in crops] + [one.whole for one in group]
        masks = [mask[centre, centre] for _, mask, _ in crops] + [empty] * len(group)
        return {engines.VIEWS: np.stack(pictures), engines.MASKS: np.stack(masks)}

    def looked_at(
        self, images: Sequence[ImageLike], maps: Iterable[NDArray] | None = None
    ) -> Iterator[Looked]:
        """The regions of each image, found one after the other; arguments as of `predict`."""
        card = self.card
        lo, hi = cast(list[float], card.mebin.search_range)  # the card has checked it
        given_maps = iter(maps or ())
        for i, given in enumerate(images):
            name = name_of(given, i)
            image = self._pixels(given, name)
            scores: NDArray = (
                self.anomaly_map(image)
                if maps is None
                else valid_scores(np.asarray(next(given_maps)), f"the map of {name}")
            )
            if (scores.dtype == np.uint8) != (card.raw_range is None):
                kinds = ("8-bit, normalised already", "not yet normalised")
                expected, found = kinds if card.raw_range is None else kinds[::-1]
                raise InputError(
                    f"{name}: its anomaly map is {found}, but the run was trained on maps that "
                    f"are {expected}; use maps made and stored in the same way"
                )
            if card.raw_range is not None:
                scores = on_levels(scores, *card.raw_range).astype(np.uint8)
            crops = around_anomalies(
                image, scores, (lo, hi), card.mebin, card.regions, card.image_size, name
            )
            # The size of the image, without holding its mask.
            crops = replace(crops, mask=np.broadcast_to(np.uint8(0), crops.size))
            yield Looked(crops, scores, whole(image, card.image_size))

    def _pixels(self, image: ImageLike, name: str) -> NDArray[np.uint8]:
        if isinstance(image, str | Path):
            return read_image(Path(image), self.max_megapixels)
        if isinstance(image, Image.Image):
            return pixels_of(image, name)
        known = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
        if not known or image.shape[2] != 3 or not image.size:
            raise InputError(f"{name}: expected a path, a PIL image, or a (h, w, 3) uint8 array")
        return image

    def _cropped(self, kept: Sequence[ImageCrops]) -> Cropped:
        boxes = [box for one in kept for box in one.boxes]
        crops = [crop for one in kept for crop in one.crops]
        mebin = self.card.mebin
        lo, hi = cast(list[float], mebin.search_range)
        return Cropped(
            Regions(
                images=np.stack([image for image, _, _ in crops]),
                masks=np.stack([mask for _, mask, _ in crops]),
                image_index=np.repeat(np.arange(len(kept)), [len(one.boxes) for one in kept]),
                boxes=np.array(boxes, np.int64),
                areas=np.array([area for _, _, area in crops], np.int64),
                scores=np.array([score for one in kept for score in one.scores]),
                image_sizes=np.array([one.size for one in kept], np.int64),
            ),
            (lo, hi),
            mebin.gate,
            np.array([one.threshold for one in kept]),
            np.array([one.count for one in kept], np.int64),
        )

    def _try_out(self, file: str, width: int | None) -> None:
        """Run both graphs once: a card that does not belong to them is found before an image is.

        Args:
            file: its name, for messages.
            width: of the features that are compared with; None: there are none.

        Raises:
            InputError: the graphs do not fit the card, or each other.
        """
        size, k = self.card.image_size, len(self.class_names)
        view = {
            engines.VIEWS: np.zeros((1, size, size, 3), np.uint8),
            engines.MASKS: np.zeros((1, size, size), np.uint8),
        }
        expected: list[tuple[str, tuple[int | None, ...]]] = [
            (engines.PROBABILITIES, (1, k)),
            (engines.APPEARANCE, (1, width)),
        ]
        found = self._engine.network(view)
        detector = self.card.detector
        if detector is not None:
            grey = np.zeros((*detector.image_sizes[:1] * 2, 3), np.uint8)
            found = found | self._engine.detector(self.squares(grey))
            shape = (None, None)
            expected += [(engines.SCORES.format(i), shape) for i in range(len(detector.peaks))]
        for name, shape_expected in expected:
            array = found.get(name)
            fits = array is not None and len(array.shape) == len(shape_expected)
            fits = fits and array is not None and array.dtype == np.float32
            pairs = zip(shape_expected, () if array is None else array.shape, strict=False)
            if not fits or any(one not in (None, other) for one, other in pairs):
                shown = "nothing" if array is None else f"{array.dtype} {array.shape}"
                raise InputError(
                    f"{file}: its graphs do not fit its card ({name}: {shown}; expected float32 "
                    f"{shape_expected}); export the run again"
                )

    def _unlike(
        self, of_regions: NDArray[np.float32], of_images: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How unlike what the run has seen are the regions, and the images."""
        if self._familiar is None:
            return np.zeros(len(of_regions)), np.zeros(len(of_images))
        regions, images = self._familiar
        return regions.scores(of_regions), images.scores(of_images)


def load(
    file: str | Path,
    *,
    threads: int = 0,
    unknown_share: float = UNKNOWN_SHARE,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Deployed:
    """The classifier in an exported file; the same arguments and errors as `Deployed`."""
    return Deployed(
        file, threads=threads, unknown_share=unknown_share, max_megapixels=max_megapixels
    )
