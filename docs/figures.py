"""The figures of method.md, made by the code itself on the drawn demo product.

    python docs/figures.py docs/_figures

One scratched part goes through the method's steps: its anomaly map, how many components the map
has at each threshold and where that number is stable, mask and boxes, the region with its mask,
and the patches that the class token may attend to.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import torch
from import_graph import module_graph, room_graph, svg
from numpy.typing import NDArray
from PIL import Image

import anomalyncd
from anomalyncd import detectors
from anomalyncd.config import AttentionConfig, BackboneConfig, MebinConfig
from anomalyncd.data import datasets, demo
from anomalyncd.data.images import read_image
from anomalyncd.detectors import map_store
from anomalyncd.models import backbone
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.regions.boxes import crop
from anomalyncd.results import overlay
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Box

SHOWN = "combined/003"  # the picture with two kinds of defect that the figures follow
VIEW = 112  # pixels of a view of the embedded backbone, of 7 × 7 patches
ENLARGED = 3  # times that small pictures are enlarged
LINE = (60, 255, 190)


def draw(folder: Path) -> None:
    """Draw all figures.

    Args:
        folder: where they are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        image, maps, shown = _product_and_maps(Path(scratch))
    anomaly_map = maps[shown]
    height, width = image.shape[:2]
    lo, hi = anomalyncd.search_range(maps)
    heat = overlay.normalise(cv2.resize(anomaly_map, (width, height)), lo, hi)
    _save(folder / "photograph.png", image)
    _save(folder / "map.png", overlay.heat_overlay(image, heat))

    config = MebinConfig()
    counts = anomalyncd.component_counts(anomaly_map, lo, hi, config.step, config.erosion)
    (folder / "counts.svg").write_text(_counts_figure(counts, config), encoding="utf-8")

    found = anomalyncd.binarize_one(anomaly_map, lo, hi, config)
    mask = cv2.resize(
        found.mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_NEAREST
    )
    boxes = anomalyncd.find_boxes(mask, found.count)
    _save(folder / "boxes.png", _with_boxes(overlay.outline(image, mask, 1), boxes))

    region, region_mask, _ = crop(image, mask, boxes[0], VIEW, "letterbox")
    _save(folder / "region.png", _enlarged(region))
    _save(folder / "region_mask.png", _enlarged(np.repeat(region_mask[..., None], 3, axis=2)))
    _save(folder / "patches.png", _with_patches(region, region_mask))

    house = room_graph(module_graph(Path(__file__).parents[1] / "anomalyncd"))
    (folder / "rooms.svg").write_text(svg(house), encoding="utf-8")


def _product_and_maps(root: Path) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]], int]:
    """The picture that is shown, the maps of a small category, and which of them is its own."""
    demo.draw(root / "demo", train=0, good=4, per_class=0, combined=4)
    config = anomalyncd.compose(
        *("dataset=mvtec", f"dataset.path='{root}'", "category=demo", "dataset.leave_out=[]"),
        *("detector=musc_embedded", "base=none", "backbone=embedded"),
    )
    cache = Cache(root / "cache")
    dataset = datasets.load(config.dataset, "demo", cache)
    detector = detectors.create(config.detector, "demo", torch.device("cpu"), cache.root)
    maps = map_store.collect(detector, dataset, "demo", cache, settings={})
    shown = [sample.id for sample in dataset.samples].index(SHOWN)
    return read_image(dataset.samples[shown].image), [np.array(one) for one in maps], shown


def _with_boxes(image: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.uint8]:
    drawn = image.copy()
    for box in boxes:
        cv2.rectangle(drawn, (box.left, box.top), (box.right - 1, box.bottom - 1), LINE, 1)
    return drawn


def _with_patches(region: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The region; patches that the class token may not attend to are dark."""
    vit = backbone.build(BackboneConfig("embedded", image_size=VIEW)).vit
    attention = AttentionConfig()
    network = MaskGuidedViT(vit, attention.masked_blocks)
    masks = torch.from_numpy(mask)[None, None].float() / 255
    kept = network.attention_mask(masks)[0, 0, 0, vit.num_prefix_tokens :].numpy()
    side = int(len(kept) ** 0.5)
    patches = np.kron(kept.reshape(side, side), np.ones((VIEW // side,) * 2))[..., None]
    drawn = _enlarged(np.where(patches, region, region // 4).astype(np.uint8))
    drawn[:: len(drawn) // side] = drawn[:, :: len(drawn) // side] = 128
    return drawn


def _counts_figure(counts: NDArray[np.int64], config: MebinConfig) -> str:
    """The number of components over the threshold, highest first; long equal stretches marked."""
    wide, high, left, top = 640, 220, 46, 12
    most = max(int(counts.max()), 1)

    def x(index: float) -> float:
        return left + index / len(counts) * wide

    def y(count: float) -> float:
        return top + high - count / most * high

    parts, start, stretches = [], 0, []
    for count, run in groupby(counts.tolist()):
        length = len(list(run))
        if count and length >= config.min_interval:
            stretches.append((length, start, count))
        start += length
    longest = max((length for length, *_ in stretches), default=0)
    for length, start, _ in stretches:
        opacity = 0.35 if length == longest else 0.12
        parts.append(
            f'<rect x="{x(start):.1f}" y="{top}" width="{x(length) - left:.1f}" height="{high}" '
            f'fill="#12a87c" opacity="{opacity}"/>'
        )
    points = [
        f"{x(index + end):.1f},{y(count):.1f}"
        for index, count in enumerate(counts.tolist())
        for end in (0, 1)
    ]
    parts.append(
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#888" stroke-width="2"/>'
    )
    ticks = range(0, most + 1, max(most // 5, 1))
    parts += [_text(left - 8, y(count) + 4, str(count), "end") for count in ticks]
    parts += [
        _text(x((255 - threshold) / config.step), top + high + 18, str(threshold))
        for threshold in (255, 191, 127, 63, 3)
    ]
    parts.append(_text(left + wide / 2, top + high + 38, "threshold"))
    size = f'viewBox="0 0 {left + wide + 16} {top + high + 46}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(parts) + "\n</svg>\n"


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-family="sans-serif" font-size="13" fill="#888" '
        f'text-anchor="{anchor}">{text}</text>'
    )


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    Image.fromarray(image).save(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
