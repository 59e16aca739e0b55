"""Photographs → their records, a few at a time, so that memory does not grow with their number."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from anomalyncd.data import datasets
from anomalyncd.data.sizes import require_size
from anomalyncd.errors import InputError
from anomalyncd.inference.predicted import Examined
from anomalyncd.prediction.examiner import Examiner
from anomalyncd.prediction.given import Given
from anomalyncd.prediction.journal import Record, Stamp, stamped
from anomalyncd.results.overlay import draw_regions, normalise
from anomalyncd.results.pages import picture_of
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, Sample, class_name

MOST_TOGETHER = 32  # photographs; the first groups are smaller, so that the first answer comes soon
TILES_OF_CLASS = 60  # regions of a class whose pictures the page shows


@dataclass(frozen=True)
class Photograph:
    """A file, or a frame of a video, that is to be classified."""

    id: str
    name: str  # as written to the tables: the path, and for a frame its number
    key: str
    stamp: Stamp
    path: Path
    pixels: np.ndarray | None = None  # (h, w, 3) BGR of a frame; None: of the file


@dataclass(frozen=True)
class Done:
    """A classified photograph."""

    record: Record
    tiles: list[Record]


@dataclass(frozen=True)
class Unusable:
    """A photograph that cannot be classified, and why."""

    name: str
    problem: str


class Stream:
    """Classifies photographs in groups; a group that fails is repeated one by one."""

    def __init__(
        self,
        examiner: Examiner,
        max_megapixels: int,
        overlays: Path | None,
        shown: Counter[str],
        warn: Callable[[str], None],
    ) -> None:
        """
        Args:
            examiner: classifies each group.
            max_megapixels: of an image.
            overlays: folder for a picture of each photograph; None: none.
            shown: how many regions of each class have a tile already; counted on.
            warn: called with what a user should know of the files.
        """
        self._examiner, self._max_megapixels = examiner, max_megapixels
        self._overlays, self._shown, self._warn = overlays, shown, warn
        self._folder = tempfile.TemporaryDirectory()
        self._warned: set[str] = set()
        self._alone = examiner.alone

    def close(self) -> None:
        """Remove temporary files."""
        self._folder.cleanup()

    def run(self, photographs: Iterable[Photograph]) -> Iterator[Sequence[Done | Unusable]]:
        """The results of each group, in order.

        Raises:
            InputError: the detector compares images with each other, and cannot be used on these.
            OSError: the disk for temporary files is full.
        """
        waiting, size = iter(photographs), 1
        while group := list(islice(waiting, size if self._alone else None)):
            yield self._group(group)
            size = min(2 * size, MOST_TOGETHER)

    def _group(self, group: Sequence[Photograph]) -> Sequence[Done | Unusable]:
        with tempfile.TemporaryDirectory(dir=self._folder.name) as name:
            cache = Cache(Path(name))
            samples = tuple(
                Sample(p.id, _file(p, cache.root / str(i))) for i, p in enumerate(group)
            )
            try:
                found = self._examined(Dataset(samples, None), cache)
            except InputError as error:
                if not self._alone:
                    raise
                if len(group) == 1:
                    return [Unusable(group[0].name, str(error))]
            else:
                return [self._done(i, p, samples[i], found) for i, p in enumerate(group)]
        return [result for photograph in group for result in self._group([photograph])]

    def _examined(self, dataset: Dataset, cache: Cache) -> Examined:
        dataset = datasets.with_headers_read(dataset, self._max_megapixels)
        for warning in dataset.warnings:
            kind = warning.rpartition(": ")[2]
            if kind not in self._warned:  # once, not for each group
                self._warned.add(kind)
                self._warn(warning)
        return self._examiner.examine(dataset, cache)

    def _done(self, i: int, photograph: Photograph, sample: Sample, found: Examined) -> Done:
        names, regions, judged = self._examiner.class_names, found.cropped.regions, found.judged
        rows = np.flatnonzero(regions.image_index == i).tolist()
        of_regions: list[Record] = []
        for r in rows:
            of_region = int(judged.region_class[r])
            of_regions.append(
                {
                    "box": regions.boxes[r].tolist(),
                    "area": int(regions.areas[r]),
                    "anomaly_score": float(regions.scores[r]),
                    "class_id": of_region,
                    "class_name": class_name(of_region, names),
                    "confidence": float(judged.region_confidence[r]),
                }
            )
        class_id = int(judged.image_class[i])
        record: Record = {
            "kind": "image",
            "id": photograph.id,
            "image": photograph.name,
            "class_id": class_id,
            "class_name": class_name(class_id, names),
            "confidence": float(judged.image_confidence[i]),
            "anomaly_score": max((region["anomaly_score"] for region in of_regions), default=0.0),
            "main_elements": int(found.cropped.counts[i]),
            "threshold": float(found.cropped.thresholds[i]),
            "regions": of_regions,
            **stamped(photograph.key, photograph.stamp),
        }
        if self._overlays is not None:
            boxed = [(r, region["class_name"]) for r, region in zip(rows, of_regions, strict=True)]
            path = self._overlays / f"{photograph.id}.jpg"
            draw_regions(sample.image, path, regions, boxed, self._examiner.resize_mode)
        return Done(record, self._tiles(i, photograph, rows, of_regions, found))

    def _tiles(
        self,
        i: int,
        photograph: Photograph,
        rows: Sequence[int],
        of_regions: Sequence[Record],
        found: Examined,
    ) -> list[Record]:
        """Pictures of the regions that the page will show: the first ones of each class."""
        tiles: list[Record] = []
        known, mode = self._examiner.neighbours, self._examiner.resize_mode
        heat = None
        for number, (r, region) in enumerate(zip(rows, of_regions, strict=True)):
            if self._shown[region["class_name"]] >= TILES_OF_CLASS:
                continue
            self._shown[region["class_name"]] += 1
            if heat is None:
                heat = normalise(found.maps[i], *found.cropped.search_range)
            tiles.append(
                {
                    **stamped(photograph.key, photograph.stamp),
                    "number": number,
                    "class_name": region["class_name"],
                    "picture": picture_of(found.cropped.regions, r, heat, mode),
                    "similar": []
                    if known is None or found.tokens is None
                    else known.of(found.tokens[r]),
                }
            )
        return tiles


def frames(video: Given, every: int, stamp: Stamp, max_megapixels: int) -> Iterator[Photograph]:
    """Every N-th frame of a video, from its first on.

    Raises:
        InputError: it cannot be opened, is too large, or ends before its last frame.
    """
    capture = cv2.VideoCapture(str(video.path))
    try:
        if not capture.isOpened():
            raise InputError(
                f"{video.path}: cannot read this video; convert it to MP4 (H.264) or AVI (MJPEG)"
            )
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        require_size(video.path, (width, height), max_megapixels)
        expected, number = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
        while capture.grab():
            if number % every == 0:
                read, pixels = capture.retrieve()
                if not read:
                    break
                yield Photograph(
                    f"{video.id}/{number:06d}",
                    f"{video.path}#{number}",
                    video.frame_key(number),
                    stamp,
                    video.path,
                    pixels,
                )
            number += 1
        # Containers only estimate the number of frames.
        if number == 0 or number < 0.98 * expected - 2:
            raise InputError(
                f"{video.path}: only {number} of {expected} frames could be read; is it complete?"
            )
    finally:
        capture.release()


def _file(photograph: Photograph, place: Path) -> Path:
    """The photograph's file; a frame is written to one."""
    if photograph.pixels is None:
        return photograph.path
    png = cv2.imencode(".png", photograph.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    path = place.with_suffix(".png")
    path.write_bytes(png.tobytes())
    return path
