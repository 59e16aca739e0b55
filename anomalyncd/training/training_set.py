"""The training set: base and novel regions, base regions first."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.runtime import devices
from anomalyncd.storage.cache import digest
from anomalyncd.types import UNLABELLED, Regions

_REGIONS_AT_ONCE = 1024


@dataclass(frozen=True)
class TrainingSet:
    novel: Regions
    base: Regions | None = None
    base_targets: NDArray[np.int64] | None = None  # (len(base),) base classes
    # (len(novel), K) shares of a consensus that is learned instead of the network's own predictions
    votes: NDArray[np.float64] | None = None

    @property
    def n_base(self) -> int:
        return len(self.base) if self.base is not None else 0

    def __len__(self) -> int:
        return self.n_base + len(self.novel)

    @property
    def stored_size(self) -> int:
        """Of the stored regions, which views are cropped from."""
        return self.novel.images.shape[1]

    @property
    def fingerprint(self) -> list[str]:
        """What is learned from: the names of the cache entries, and their classes."""
        known = [self.novel.name]
        if self.base is not None and self.base_targets is not None:
            known += [self.base.name, self.base_targets.tobytes().hex()]
        if self.votes is not None:
            known.append(digest(self.votes.tolist()))
        return known

    def pixels(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, s, s, 3) uint8 and masks (b, s, s) uint8 of regions in ascending order."""
        rows = indices.numpy()
        parts = [(self.novel, rows[rows >= self.n_base] - self.n_base)]
        if self.base is not None:
            parts.insert(0, (self.base, rows[rows < self.n_base]))
        images = np.concatenate([regions.images[own] for regions, own in parts])
        masks = np.concatenate([regions.masks[own] for regions, own in parts])
        return torch.from_numpy(images), torch.from_numpy(masks)


@dataclass(frozen=True)
class Batch:
    """What the losses need of a batch's regions beside their features."""

    labels: Tensor  # (b,) base class, UNLABELLED for novel regions
    scores: Tensor  # (b − n_base,) anomaly scores of the novel regions
    n_base: int  # the first rows; known on the host, so that slicing needs no synchronisation
    votes: Tensor | None = None  # (b − n_base, K) of a consensus


class Targets:
    """What is known of all regions beside their pixels, on the device."""

    def __init__(self, data: TrainingSet, device: torch.device) -> None:
        labels = np.full(len(data), UNLABELLED)
        if data.base_targets is not None:
            labels[: data.n_base] = data.base_targets
        scores = np.concatenate([np.zeros(data.n_base), data.novel.scores])
        self.labels = torch.from_numpy(labels).to(device)
        self.scores = torch.from_numpy(scores).float().to(device)
        self.n_base = data.n_base
        votes = data.votes
        self.votes = None if votes is None else torch.from_numpy(votes).float().to(device)

    def batch(self, indices: Tensor) -> Batch:
        """Of regions in ascending order, which puts base ones first."""
        n_base = int((indices < self.n_base).sum())
        rows = devices.moved(indices, self.labels.device)
        novel = rows[n_base:]
        votes = None if self.votes is None else self.votes[novel - self.n_base]
        return Batch(self.labels[rows], self.scores[novel], n_base, votes)


class Pixels:
    """Regions' pixels where training reaches them fast: on the device if half its free memory
    holds them all, else batch by batch from the disk's cache."""

    def __init__(self, data: TrainingSet, device: torch.device) -> None:
        self.data, self.device = data, device
        self.resident: tuple[Tensor, Tensor] | None = None
        pixels = len(data) * math.prod(data.novel.masks.shape[1:])
        if devices.has_room(device, 4 * pixels):  # RGB and mask
            # part by part: the host's memory may be smaller than the GPU's
            parts = [
                tuple(pixels.to(device) for pixels in data.pixels(part))
                for part in torch.arange(len(data)).split(_REGIONS_AT_ONCE)
            ]
            images, masks = zip(*parts, strict=True)
            self.resident = torch.cat(images), torch.cat(masks)

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and masks of regions in ascending order, on the device."""
        if self.resident is None:
            images, masks = self.data.pixels(indices)
            return devices.moved(images, self.device), devices.moved(masks, self.device)
        rows = devices.moved(indices, self.device)
        return self.resident[0][rows], self.resident[1][rows]
