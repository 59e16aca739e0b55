"""Images → packed regions on disk: each image is decoded once and not kept in memory.

Novel images are cropped around the main elements of their anomaly maps, base images around their
truth masks, by the same cropper.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import PIL

from anomalyncd.config import MebinConfig, RegionsConfig
from anomalyncd.data.images import read_image, read_mask
from anomalyncd.detectors.map_store import StoredMaps
from anomalyncd.errors import InputError
from anomalyncd.regions import mebin
from anomalyncd.regions.gate import find_gate
from anomalyncd.regions.image_crops import (
    Cropped as Cropped,
)
from anomalyncd.regions.image_crops import (
    ImageCrops,
    around_anomalies,
    around_truth,
    stored_size,
)
from anomalyncd.runtime import console
from anomalyncd.storage.cache import Cache, digest_files
from anomalyncd.types import Regions, Sample

_IMAGES, _MASKS, _INDEX = "images.u8", "masks.u8", "index.json"
# Part of the cache key: raise the number when the same input gives different regions.
_VERSIONS = [3, PIL.__version__, cv2.__version__]

Item = TypeVar("Item")
Result = TypeVar("Result")


def crop_novel(
    samples: Sequence[Sample],
    maps: StoredMaps,
    mebin_config: MebinConfig,
    config: RegionsConfig,
    image_size: int,
    cache: Cache,
) -> Cropped:
    """Crop the unlabelled images around the main elements of their maps.

    Raises:
        InputError: an image is unreadable, or a map has another aspect ratio than its image.
    """

    def build(folder: Path) -> None:
        given = mebin_config.search_range
        lo, hi = (given[0], given[1]) if given else mebin.search_range(maps)
        settings = _with_gate(mebin_config, maps)

        def crop_image(index: int) -> ImageCrops:
            sample = samples[index]
            image, name = read_image(sample.image), f"{sample.id} ({sample.image})"
            return around_anomalies(
                image, maps[index], (lo, hi), settings, config, image_size, name
            )

        with console.steps("Regions") as step:
            crops_of_images = _counted(_in_parallel(crop_image, range(len(samples))), step, samples)
            table = _pack(crops_of_images, folder)
        levels = {"search_range": (float(lo), float(hi)), "gate": settings.gate}
        (folder / _INDEX).write_text(json.dumps({**table, **levels}))

    key = [
        _VERSIONS,
        digest_files(sample.image for sample in samples),
        maps.folder.name,
        asdict(mebin_config),
        asdict(config),
        image_size,
    ]
    folder = cache.entry("regions", key, build)
    table = json.loads((folder / _INDEX).read_text())
    lo, hi = table["search_range"]
    return Cropped(
        _open(folder, image_size),
        search_range=(lo, hi),
        gate=table["gate"],
        thresholds=np.array(table["thresholds"]),
        counts=np.array(table["counts"], np.int64),
    )


def crop_base(
    samples: Sequence[Sample], config: RegionsConfig, image_size: int, cache: Cache
) -> Regions:
    """Crop the base set around its truth masks, at most two regions an image.

    Raises:
        InputError: an image or mask is unreadable, or they differ in size.
    """

    def build(folder: Path) -> None:
        def crop_image(sample: Sample) -> ImageCrops:
            assert sample.truth_mask is not None  # checked in datasets.load_base
            image, truth = read_image(sample.image), read_mask(sample.truth_mask)
            if image.shape[:2] != truth.shape:
                raise InputError(
                    f"{sample.truth_mask}: a mask of {truth.shape[1]} × {truth.shape[0]} pixels "
                    f"for an image of {image.shape[1]} × {image.shape[0]}; expected the same size"
                )
            if not truth.any():
                raise InputError(
                    f"{sample.truth_mask}: an empty mask; a base image needs its defect marked"
                )
            return around_truth(image, truth, config, image_size)

        with console.steps("Regions of the base set") as step:
            table = _pack(_counted(_in_parallel(crop_image, samples), step, samples), folder)
        (folder / _INDEX).write_text(json.dumps(table))

    files = [path for sample in samples for path in (sample.image, sample.truth_mask) if path]
    key = [_VERSIONS, digest_files(files), asdict(config), image_size]
    return _open(cache.entry("base-regions", key, build), image_size)


def _with_gate(config: MebinConfig, maps: StoredMaps) -> MebinConfig:
    """The settings with the gate of these maps, if the method has one and none is given."""
    if config.method != "adaptive" or config.gate is not None:
        return config
    return replace(config, gate=find_gate(maps, config.normal_probability))


def _in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in order on all cores, holding only a few results at a time (decoding and MEBin release
    the interpreter lock)."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    workers = len(allowed) or os.cpu_count() or 1
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # otherwise OpenCV's own threads compete with these
    with ThreadPoolExecutor(workers) as pool:
        pending: deque = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            cv2.setNumThreads(threads)


def _counted(
    results: Iterator[Result], step: Callable[[int, int], None], items: Sequence[Any]
) -> Iterator[Result]:
    for done, result in enumerate(results, start=1):
        yield result
        step(done, len(items))


def _pack(crops_of_images: Iterator[ImageCrops], folder: Path) -> dict[str, list]:
    """Append every crop to two files of raw bytes; small data is returned as columns."""
    columns = ("image_index", "boxes", "areas", "scores", "sizes", "thresholds", "counts")
    table: dict[str, list] = {column: [] for column in columns}
    with (folder / _IMAGES).open("wb") as images, (folder / _MASKS).open("wb") as masks:
        for index, cut in enumerate(crops_of_images):
            table["sizes"].append(cut.size)
            table["thresholds"].append(cut.threshold)
            table["counts"].append(cut.count)
            for box, score, (image, mask, area) in zip(
                cut.boxes, cut.scores, cut.crops, strict=True
            ):
                images.write(image.tobytes())
                masks.write(mask.tobytes())
                table["image_index"].append(index)
                table["boxes"].append(box)
                table["areas"].append(area)
                table["scores"].append(score)
    return table


def _open(folder: Path, image_size: int) -> Regions:
    table = json.loads((folder / _INDEX).read_text())
    n, s = len(table["areas"]), stored_size(image_size)
    return Regions(
        images=np.memmap(folder / _IMAGES, np.uint8, mode="r", shape=(n, s, s, 3)),
        masks=np.memmap(folder / _MASKS, np.uint8, mode="r", shape=(n, s, s)),
        image_index=np.array(table["image_index"], np.int64),
        boxes=np.array(table["boxes"], np.int64),
        areas=np.array(table["areas"], np.int64),
        scores=np.array(table["scores"], float),
        image_sizes=np.array(table["sizes"], np.int64),
        name=folder.name,
    )
