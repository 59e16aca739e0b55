"""An endless stream of drawn pictures and masks, in batches for training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from scripts.pretraining.drawing import draw

Batches = Iterator[tuple[Tensor, Tensor]]

_DRAWN = 192
_LEAST_AREA = 2 * 16 * 16  # pixels of a mask: about two patches


def batches(first: int, size: int, seed: int, sides: tuple[int, ...], workers: int) -> Batches:
    """Batches from number `first` on, as `batch` makes them.

    A batch is a function of its number, so that training can resume at any batch.
    """
    loader = DataLoader(
        _Numbers(first, size, seed, sides, max(workers, 1)),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_one_thread,
        # OpenCV's threads do not survive a fork: its workers would wait for ever.
        multiprocessing_context="spawn" if workers else None,
    )
    for images, masks in loader:
        yield images / 255, masks.float()


class _Numbers(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(
        self, first: int, size: int, seed: int, sides: tuple[int, ...], stride: int
    ) -> None:
        self.first, self.size, self.seed, self.sides = first, size, seed, sides
        self.stride = stride

    def __iter__(self) -> Batches:
        worker = get_worker_info()
        for number in count(self.first + (worker.id if worker else 0), self.stride):
            yield batch(number, self.size, self.seed, self.sides)


def batch(number: int, size: int, seed: int, sides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Pictures (size, 3, s, s) uint8 and masks (size, 1, s, s) uint8, 1 = masked; s of `sides`."""
    side = int(np.random.default_rng((seed, number)).choice(sides))
    images = np.empty((size, side, side, 3), np.uint8)
    masks = np.empty((size, 1, side, side), np.uint8)
    for index in range(size):
        entropy = np.random.SeedSequence((seed, number, index))
        picture, segments = draw(entropy, _DRAWN)
        rng = np.random.default_rng(entropy.spawn(1)[0])
        images[index], masks[index, 0] = _view(rng, picture, segments, side)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)


def _view(
    rng: Generator, picture: NDArray[np.uint8], segments: NDArray[np.uint8], side: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A random square of the picture, and a mask of one thing in it."""
    extent = int(rng.integers(_DRAWN // 2, _DRAWN + 1))
    top, left = rng.integers(0, _DRAWN - extent + 1, 2)
    window = (slice(top, top + extent), slice(left, left + extent))
    shrinks = extent > side
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image = cv2.resize(picture[window], (side, side), interpolation=how)
    pieces = cv2.resize(segments[window], (side, side), interpolation=cv2.INTER_NEAREST)
    return image.astype(np.uint8, copy=False), _mask(rng, pieces.astype(np.uint8, copy=False))


def _mask(rng: Generator, pieces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One piece, all pieces, or a box somewhere; grown until patches can see it."""
    numbers = np.unique(pieces[pieces > 0])
    chance = rng.random()
    if len(numbers) and chance < 0.65:
        mask = pieces == rng.choice(numbers)
    elif len(numbers) and chance < 0.8:
        mask = pieces > 0
    else:
        side = len(pieces)
        height, width = rng.integers(side // 8, side * 3 // 4, 2)
        top, left = rng.integers(0, side - height), rng.integers(0, side - width)
        mask = np.zeros(pieces.shape, bool)
        mask[top : top + height, left : left + width] = True
    grown = mask.astype(np.uint8)
    while cv2.countNonZero(grown) < _LEAST_AREA:
        grown = cv2.dilate(grown, np.ones((9, 9), np.uint8))
    return grown


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
