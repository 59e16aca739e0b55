"""How regions and whole images look to the first half of the backbone, which no training changes.

So a run's own regions are not closer to each other than new ones are to them, as they are in the
features that training has pulled apart: what is measured on them holds for new regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anomalyncd.data.images import read_image
from anomalyncd.inference.unknown import Seen, evenly
from anomalyncd.models.model import Model
from anomalyncd.regions.image_crops import whole
from anomalyncd.runtime import console
from anomalyncd.training.augmentation import evaluation_view
from anomalyncd.types import Regions

_TURNS = 4


def of_run(model: Model, regions: Regions, images: Sequence[Path]) -> tuple[Seen, Seen]:
    """What a run keeps to compare new images with: regions with a main element, and images.

    Args:
        model: on the device to compute on.
        regions: of the run.
        images: of the run.

    Raises:
        InputError: an image cannot be read.
    """
    found = evenly(np.flatnonzero(regions.areas > 0))
    kept = evenly(np.arange(len(images)))
    return (
        Seen(of_regions(model, regions, found), regions.image_index[found]),
        Seen(of_images(model, [images[i] for i in kept]), kept),
    )


def of_regions(model: Model, regions: Regions, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Describe regions by their part under the mask.

    Args:
        model: on the device to compute on.
        regions: to choose from.
        rows: n of them.

    Returns:
        (n, width).
    """
    found = []
    with console.steps("How regions look") as step:
        for start in _starts(model, len(rows)):
            part = rows[start : start + model.forward_batch]
            found.append(_described(model, regions.images[part], regions.masks[part]))
            step(start + len(part), len(rows))
    return _joined(model, found)


def in_every_turn(model: Model, regions: Regions) -> NDArray[np.float32]:
    """Describe all regions by their part under the mask, whichever way they lie.

    Args:
        model: on the device to compute on.
        regions: n of them.

    Returns:
        (n, width), the mean of four turns.
    """
    found = []
    with console.steps("How regions look in every turn") as step:
        for start in _starts(model, len(regions)):
            part = slice(start, start + model.forward_batch)
            turned = [
                _described(
                    model,
                    np.rot90(regions.images[part], turn, (1, 2)),
                    np.rot90(regions.masks[part], turn, (1, 2)),
                )
                for turn in range(_TURNS)
            ]
            found.append(np.mean(turned, axis=0))
            step(min(part.stop, len(regions)), len(regions))
    return _joined(model, found)


def of_images(model: Model, images: Sequence[Path]) -> NDArray[np.float32]:
    """Describe each image as a whole, made square.

    Args:
        model: on the device to compute on.
        images: n files.

    Returns:
        (n, width).

    Raises:
        InputError: an image cannot be read.
    """
    size = model.image_size
    empty = np.zeros((model.forward_batch, size, size), np.uint8)  # none counts as all of it
    found = []
    with console.steps("How images look") as step:
        for start in _starts(model, len(images)):
            batch = np.stack(list(_squares(images[start : start + model.forward_batch], size)))
            found.append(_described(model, batch, empty[: len(batch)]))
            step(start + len(batch), len(images))
    return _joined(model, found)


def _starts(model: Model, n: int) -> range:
    return range(0, n, model.forward_batch)


def _squares(images: Sequence[Path], size: int) -> Iterator[NDArray[np.uint8]]:
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda path: whole(read_image(path), size), images)


@torch.inference_mode()
def _described(model: Model, images: NDArray, masks: NDArray) -> NDArray[np.float32]:
    device = next(model.parameters()).device
    views, visible = evaluation_view(
        torch.from_numpy(np.array(images)).to(device),
        torch.from_numpy(np.array(masks)).to(device),
        model.image_size,
        model.mean,
        model.std,
    )
    half = len(model.vit.blocks) // 2
    return model.vit.early_mean(views, visible, half).float().cpu().numpy()


def _joined(model: Model, parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.zeros((0, model.vit.width), np.float32)
