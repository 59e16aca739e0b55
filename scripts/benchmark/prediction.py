"""One new image, from its region and from its file, against the frozen blocks alone."""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

from anomalyncd.config import (
    FusionConfig,
)
from anomalyncd.inference.classify import assign, classify
from anomalyncd.regions import image_crops
from anomalyncd.regions.mebin import search_range
from anomalyncd.training.augmentation import evaluation_view
from scripts.benchmark.harness import Row, benchmark, row
from scripts.benchmark.inputs import (
    BASE_8,
    SMALL_16,
    caches,
    cut_all,
    drawn_maps,
    drawn_product,
    drawn_regions,
    image_side,
    network,
    precision_of,
    to_device,
    view_side,
)
from tests.oracles import cutting as plain_cutting
from tests.oracles.vit import class_tokens as plain_class_tokens


@benchmark("prediction")
def bench_prediction(options: argparse.Namespace) -> list[Row]:
    """One new image: its region against the frozen blocks alone, and from file to class.

    Reading and cutting cost the same whatever the network; the published one is ViT-B/8.
    """
    return prediction_rows(SMALL_16, options, runs=15) + prediction_rows(BASE_8, options, runs=3)


def prediction_rows(name: str, options: argparse.Namespace, runs: int) -> list[Row]:
    model = network(name, view_side(options), options)
    stored_size = image_crops.stored_size(model.image_size)
    one = drawn_regions(1, stored_size)
    images, masks = to_device((one.images, one.masks), options)
    x, mask = evaluation_view(images, masks, model.image_size, model.mean, model.std)
    visible = model.vit.attention_mask(mask)

    @torch.inference_mode()
    def frozen_alone() -> None:
        (model.vit.frozen_blocks if x.is_cuda else model.vit.visible_tokens)(x, visible)

    @torch.inference_mode()
    def plainly(images: Tensor, masks: Tensor) -> None:
        view = evaluation_view(images, masks, model.image_size, model.mean, model.std)
        model.heads.classify(plain_class_tokens(model, *view))

    of_region, plain_of_region = partial(classify, model, one), partial(plainly, images, masks)
    on = f"{name}, {model.image_size} px, {precision_of(model)}"
    rows = [
        row(
            "prediction of a region, against its frozen blocks",
            on,
            of_region,
            frozen_alone,
            runs=runs,
        ),
        row("prediction of a region", on, of_region, plain_of_region, runs=runs),
    ]

    maps_before = drawn_maps()
    levels = search_range(maps_before)  # as training has found it
    with drawn_product(maps_before[-1:], options) as (dataset, stored, folder):
        fresh = caches(folder)

        def ours() -> None:
            cut = cut_all(dataset, stored, levels, model.image_size, next(fresh))
            assign(classify(model, cut.regions).probabilities[0], cut.regions, FusionConfig())

        def plain() -> None:
            (image,) = (sample.image for sample in dataset.samples)
            found = plain_cutting.cut([image], list(stored), *levels, stored_size)
            for region in found:
                plainly(*to_device((region.image[None], region.mask[None]), options))

        on = f"{image_side(options)} px, {on}"
        rows += [
            row("from file to class, against its frozen blocks", on, ours, frozen_alone, runs=runs),
            row("from file to class", on, ours, plain, runs=runs),
        ]
    return rows
