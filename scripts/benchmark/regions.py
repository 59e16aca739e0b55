"""Cropping regions and drawing views against Pillow, one after the other."""

from __future__ import annotations

import argparse

import torch

from anomalyncd.regions import image_crops
from anomalyncd.regions.mebin import search_range
from anomalyncd.training.augmentation import draw_parameters, training_views
from scripts.benchmark.harness import Row, alternate, bandwidth, benchmark, operations, peak, row
from scripts.benchmark.inputs import (
    caches,
    cut_all,
    drawn_maps,
    drawn_pixels,
    drawn_product,
    image_side,
    to_device,
    view_side,
    views_at_once,
)
from tests.oracles import cutting as plain_cutting
from tests.oracles import views as plain_views


@benchmark("cropping")
def bench_cropping(options: argparse.Namespace) -> list[Row]:
    """Images decoded, binarized and cut on all cores, against one image after the other."""
    category = drawn_maps(16)
    levels, n, side = search_range(category), len(category), view_side(options)
    with drawn_product(category, options) as (dataset, stored, folder):
        fresh = caches(folder)

        def ours() -> None:
            cut_all(dataset, stored, levels, side, next(fresh))

        def plain() -> None:
            images = [sample.image for sample in dataset.samples]
            plain_cutting.cut(images, list(stored), *levels, image_crops.stored_size(side))

        fast, slow = (total / n for total in alternate(ours, plain, runs=3))
        measured_on = f"{n} images {image_side(options)} px; {1000 / fast:.0f} images/s"
        return [Row("cropping, from file to regions", measured_on, fast, slow, slow / fast)]


@benchmark("views")
def bench_views(options: argparse.Namespace) -> list[Row]:
    """A batch's training views on the device, against Pillow's one region after the other."""
    n, side = views_at_once(options), view_side(options)
    stored = image_crops.stored_size(side)
    images, masks = drawn_pixels(n, stored)
    here = torch.from_numpy(images), torch.from_numpy(masks)
    there = to_device((images, masks), options)
    half = (0.5, 0.5, 0.5)
    drawn = draw_parameters(n, stored - side, torch.Generator().manual_seed(0))

    def ours() -> None:
        training_views(*there, side, half, half, drawn)

    def plain() -> None:
        plain_views.training_views(*here, side, half, half, drawn)

    moved = n * side**2 * 4 * (1 + 4)  # bytes in, and float32 out, of three colours and the mask
    least = max(
        moved / bandwidth(options.device), operations(ours) / peak(options.device, torch.float32)
    )
    return [row("views", f"{n} of {side} px", ours, plain, runs=3, least=least)]
