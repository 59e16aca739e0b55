"""Inputs of the benchmarks: drawn products, regions and maps, and untrained networks."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from anomalyncd.config import (
    AttentionConfig,
    BackboneConfig,
    MebinConfig,
    RegionsConfig,
    TrainConfig,
)
from anomalyncd.detectors import map_store
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.models import backbone
from anomalyncd.models import model as models
from anomalyncd.models.model import Model
from anomalyncd.regions import cropping, image_crops
from anomalyncd.runtime import devices
from anomalyncd.storage.cache import Cache
from anomalyncd.training.training_set import TrainingSet
from anomalyncd.types import Dataset, Regions, Sample

N_MAPS = 8  # measured per size: enough to vary, few enough for the plain loop


N_BASE_CLASSES, N_NOVEL_CLASSES = 2, 5


TINY, SMALL_16, SMALL_8, BASE_8 = "ViT-Ti/16", "ViT-S/16", "ViT-S/8", "ViT-B/8"


EMBEDDED = "embedded"


NETWORKS = {
    TINY: "vit_tiny_patch16_224",
    EMBEDDED: "embedded",
    SMALL_16: "vit_small_patch16_224",
    SMALL_8: "vit_small_patch8_224",
    BASE_8: "vit_base_patch8_224",
}


def network(
    name: str, side: int, options: argparse.Namespace, config: TrainConfig | None = None
) -> Model:
    """An untrained network on the device, in the precision that a run would take."""
    source = backbone.build(
        BackboneConfig(
            name=NETWORKS[TINY if options.tiny else name], pretrained=False, image_size=side
        )
    )
    model = models.build(
        source,
        AttentionConfig(),
        config or TrainConfig(),
        n_base=N_BASE_CLASSES,
        n_novel=N_NOVEL_CLASSES,
    )
    model.vit.precision = devices.precision("auto", options.device)
    return model.to(options.device)


def precision_of(model: Model) -> str:
    return str(model.vit.precision).removeprefix("torch.")


def view_side(options: argparse.Namespace) -> int:
    return 32 if options.tiny else 224


def image_side(options: argparse.Namespace) -> int:
    return 128 if options.tiny else 1024


def batch_size(options: argparse.Namespace) -> int:
    return 4 if options.tiny else 32


def views_at_once(options: argparse.Namespace) -> int:
    if options.tiny:
        return 4
    return 64 if options.device.type == "cpu" else 256  # a batch's two views; enough for a GPU


def epochs(options: argparse.Namespace) -> int:
    return 2 if options.tiny else 50


def like_screw(options: argparse.Namespace) -> tuple[int, TrainingSet, TrainConfig]:
    """Side, as many regions as screw and its base set give, and `experiment=offline_cpu`."""
    side = 32 if options.tiny else 112
    data = drawn_set(*((6, 6) if options.tiny else (376, 174)), side)
    config = TrainConfig(batch_size=batch_size(options), epochs=epochs(options), hidden=512)
    return side, data, config


def drawn_set(n_base: int, n_novel: int, side: int) -> TrainingSet:
    stored = image_crops.stored_size(side)
    return TrainingSet(
        drawn_regions(n_novel, stored),
        drawn_regions(n_base, stored),
        np.arange(n_base) % N_BASE_CLASSES,
    )


def drawn_regions(n: int, side: int) -> Regions:
    images, masks = drawn_pixels(n, side)
    return Regions(
        images=images,
        masks=masks,
        image_index=np.arange(n),
        boxes=np.tile([0, 0, side, side], (n, 1)),
        areas=np.count_nonzero(masks, axis=(1, 2)),
        scores=np.linspace(0, 1, n),
        image_sizes=np.tile([side, side], (n, 1)),
    )


def drawn_pixels(n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, side, side, 3) noise, and (n, side, side) masks: discs over 1 to 28 % of the region."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] - side / 2
    radii = rng.uniform(0.05, 0.3, n) * side
    masks = (np.hypot(x, y) < radii[:, None, None]).astype(np.uint8) * np.uint8(255)
    return rng.integers(0, 256, (n, side, side, 3), np.uint8), masks


@contextmanager
def drawn_product(
    category: list[np.ndarray], options: argparse.Namespace
) -> Iterator[tuple[Dataset, map_store.StoredMaps, Path]]:
    """Photographs on disk and their stored maps, in a folder that goes afterwards."""
    side = image_side(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = []
        for i, anomaly_map in enumerate(category):
            for kind in ("images", "maps/t"):
                (folder / kind).mkdir(parents=True, exist_ok=True)
            photograph = cv2.resize(255 - anomaly_map, (side, side))
            cv2.imwrite(str(folder / "images" / f"{i}.png"), cv2.merge([photograph] * 3))
            cv2.imwrite(str(folder / "maps" / "t" / f"{i}.png"), anomaly_map)
            samples.append(Sample(f"t/{i}", folder / "images" / f"{i}.png"))
        dataset = Dataset(tuple(samples), labels=None)
        detector = FilesDetector(str(folder / "maps"), "c")
        stored = map_store.collect(detector, dataset, "c", Cache(folder / "cache"), settings={})
        yield dataset, stored, folder


def caches(folder: Path) -> Iterator[Cache]:
    """New ones, in which nothing is found."""
    return (Cache(folder / "caches" / str(i)) for i in itertools.count())


def cut_all(
    dataset: Dataset,
    stored: map_store.StoredMaps,
    levels: tuple[float, float],
    side: int,
    empty: Cache,
) -> cropping.Cropped:
    mebin = MebinConfig(search_range=list(levels))
    return cropping.crop_novel(dataset.samples, stored, mebin, RegionsConfig(), side, empty)


def to_device(
    pixels: tuple[np.ndarray, np.ndarray], options: argparse.Namespace
) -> tuple[Tensor, Tensor]:
    images, masks = (torch.from_numpy(array).to(options.device) for array in pixels)
    return images, masks


def map_sides(options: argparse.Namespace) -> tuple[tuple[int, int], ...]:
    """Sides of maps, and how often each is measured."""
    return ((64, 1),) if options.tiny else ((256, 9), (1024, 5))


def category_maps(options: argparse.Namespace) -> tuple[list[np.ndarray], str]:
    """Maps of one category, and what to call them."""
    maps = drawn_maps() if options.maps is None else read_maps(options.maps)
    return maps, f"{len(maps)} maps, {'drawn' if options.maps is None else options.maps.name}"


def some_resized(category: list[np.ndarray], side: int) -> list[np.ndarray]:
    """`N_MAPS` maps from all over the category, (side, side)."""
    return [
        cv2.resize(anomaly_map, (side, side), interpolation=cv2.INTER_LINEAR)
        for anomaly_map in category[:: max(1, len(category) // N_MAPS)][:N_MAPS]
    ]


def drawn_maps(n: int = 32, side: int = 256) -> list[np.ndarray]:
    """A category of maps (side, side) uint8 as a detector gives them: always the same ones.

    Smooth unrest everywhere, more of it in some than in others; three in four have one to three
    defects that stand out by different amounts; normalised together.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    maps = []
    for i in range(n):
        unrest = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), side / 64)
        anomaly_map = rng.uniform(0.05, 0.2) * unrest / unrest.std()
        for _ in range(rng.integers(1, 4) if i % 4 else 0):
            centre_x, centre_y = rng.uniform(0, side, 2)
            radius = rng.uniform(0.02, 0.1) * side
            distance = np.hypot(x - centre_x, y - centre_y) / radius
            anomaly_map += rng.uniform(0.5, 1.5) * np.exp(-(distance**2))
        maps.append(anomaly_map)
    stack = np.stack(maps)
    stack = (stack - stack.min()) / (stack.max() - stack.min()) * 255
    return list(stack.astype(np.uint8))


def read_maps(folder: Path) -> list[np.ndarray]:
    """All PNG files under the folder, as grey maps of one category."""
    maps = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.rglob("*.png"))]
    if not maps:
        sys.exit(f"no *.png under {folder}; --maps wants the folder of one category's anomaly maps")
    return [anomaly_map for anomaly_map in maps if anomaly_map is not None]
