"""Class tokens from a bank: each region's views go through the frozen trunk once.

A run draws two of a region's M views wherever the published way makes two new ones. Only what the
last block's class token can see is kept: the class token and the patches under the mask. So a step
costs the last block and the heads, and the trunk's cost no longer depends on the epochs.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomalyncd import devices
from anomalyncd.errors import InputError
from anomalyncd.model import Model
from anomalyncd.training_set import Pixels, TrainingSet
from anomalyncd.views import draw_parameters, training_views
from anomalyncd.vit import padded

log = logging.getLogger(__name__)

_VIEWS_AT_ONCE = 64
_SILENCE = 20  # seconds without a word while the bank is filled


class Bank:
    """Trunk tokens of M views of every region, in half precision, packed one after the other.

    They lie in a file that is mapped into memory: the system keeps it there while there is room.
    A GPU with room for it takes it whole.
    """

    def __init__(self, model: Model, tokens: Tensor, counts: Tensor, views: int) -> None:
        """
        Args:
            model: whose last block reads the bank.
            tokens: (total, width) float16, region after region, view after view.
            counts: (regions · views,) tokens of each view, on the CPU.
            views: M.
        """
        self.model, self.views = model, views
        self.tokens, self.counts = tokens, counts
        self.starts = counts.cumsum(0) - counts

    @classmethod
    def fill(cls, model: Model, data: TrainingSet, views: int, seed: int, path: Path) -> Bank:
        """Make all views and run the trunk on them.

        Args:
            model: with its frozen trunk, on the device to compute on.
            data: the regions.
            views: M, of each region.
            seed: of the views.
            path: of the bank's file, which is the caller's to remove.

        Raises:
            InputError: the disk is full, or a token does not fit half precision.
        """
        device = next(model.parameters()).device
        pixels = Pixels(data, device)
        stream = torch.Generator().manual_seed(seed)
        counts: list[Tensor] = []
        regions = max(1, _VIEWS_AT_ONCE // views)
        log.info("%d views of each of %d regions go through the frozen blocks", views, len(data))
        start = told = time.monotonic()
        try:
            with path.open("wb") as file:
                for order in torch.arange(len(data)).split(regions):
                    tokens, found = cls._of_views(model, pixels, order, views, stream)
                    file.write(tokens.half().cpu().numpy().data)
                    counts.append(found.cpu())
                    if (now := time.monotonic()) > told + _SILENCE:
                        share = (int(order[-1]) + 1) / len(data)
                        left = (now - start) * (1 / share - 1)
                        log.info("%.0f %% of the views, %.0f s left", 100 * share, left)
                        told = now
        except OSError as error:
            raise InputError(
                f"{path}: the bank cannot be written ({error.strerror}); free space, take fewer "
                "fit.views, or use fit.trunk=exact"
            ) from error
        counted = torch.cat(counts)
        shape = (int(counted.sum()), model.vit.width)
        mapped = torch.from_numpy(np.memmap(path, np.float16, mode="c", shape=shape))
        if devices.has_room(device, mapped.nbytes):
            mapped = mapped.to(device)
        return cls(model, mapped, counted, views)

    def close(self) -> None:
        """Let go of the file: some systems remove none that is mapped."""
        self.tokens = self.tokens.new_empty(0)

    @staticmethod
    def _of_views(
        model: Model, pixels: Pixels, order: Tensor, views: int, stream: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        rows = order.repeat_interleave(views)
        images, masks = pixels.rows(rows)
        drawn = draw_parameters(len(rows), images.shape[1] - model.side, stream)
        x, mask = training_views(images, masks, model.side, model.mean, model.std, drawn)
        tokens, counts = model.vit.seen_tokens(x, model.vit.visible_keys(mask))
        limit = torch.finfo(torch.float16).max
        if not bool((tokens.abs() <= limit).all()):
            raise InputError(
                "fit.trunk=bank: this backbone's tokens do not fit half precision; "
                "use fit.trunk=exact"
            )
        return tokens, counts

    def class_tokens(self, order: Tensor, stream: torch.Generator) -> Tensor:
        """Class tokens of two different views of each region: (2b, width), view 1 of all first.

        Args:
            order: (b,) regions.
            stream: draws the views.
        """
        drawn = torch.rand(len(order), self.views, generator=stream).topk(2).indices.T  # (2, b)
        rows = (order * self.views + drawn).flatten()
        tokens, visible = padded(self.tokens, self.counts[rows], self.starts[rows])
        device = next(self.model.parameters()).device
        tokens, visible = (t.to(device, non_blocking=True) for t in (tokens, visible))
        return self.model.vit.describe(tokens.float(), visible)
