"""Class tokens from cached features: each region's views go through the frozen blocks once.

A step draws two of a region's M views where the published method makes two new ones. Only what the
last block's class token can see is kept: the class token and the patches under the mask. So a step
costs the last block and the heads, and the cost of the frozen blocks does not grow with the epochs.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.errors import InputError
from anomalyncd.models.mask_guided_vit import padded
from anomalyncd.models.model import Model
from anomalyncd.runtime import devices
from anomalyncd.runtime.distributed import ALONE, World
from anomalyncd.runtime.versions import versions
from anomalyncd.storage.cache import digest
from anomalyncd.training.augmentation import draw_parameters, training_views
from anomalyncd.training.training_set import Pixels, TrainingSet

log = logging.getLogger(__name__)

# Views that are drawn together and kept or lost together. It is no setting: another number draws
# other views. How many pass the network together, and so its memory, is `Model.forward_batch`.
GROUP = 64

_DIGEST = 16  # bytes
_TOKENS, _COUNTS = "tokens.f16", "counts.i64"  # files


class CachedFeatures:
    """Tokens of M views of every region after the frozen blocks, in half precision, packed.

    They lie in a file that is mapped into memory: the system keeps it there while there is room.
    On a GPU with enough free memory they lie there.
    """

    def __init__(
        self, model: Model, tokens: Tensor, counts: Tensor, views: int, world: World = ALONE
    ) -> None:
        """
        Args:
            model: whose last block reads the features.
            tokens: (total, width) float16, region after region, view after view.
            counts: (regions · views,) tokens of each view, on the CPU.
            views: M.
            world: the processes that share each batch's work.
        """
        self.model, self.views, self.world = model, views, world
        self.tokens, self.counts = tokens, counts
        self.starts = counts.cumsum(0) - counts

    @classmethod
    def fill(
        cls,
        model: Model,
        data: TrainingSet,
        views: int,
        seed: int,
        folder: Path,
        *,
        fingerprint: str,
        on_views: Callable[[int, int, int], None] = lambda done, total, kept: None,
        world: World = ALONE,
    ) -> CachedFeatures:
        """Make all views and run the frozen blocks on them, or resume where a killed process ended.

        Several processes take a group of views each in turn. The first one writes all of them, to
        a folder that all can read.

        Args:
            model: with its frozen blocks, on the device to compute on.
            data: the regions.
            views: M, of each region.
            seed: of the views.
            folder: of the files; the caller removes it.
            fingerprint: of regions and frozen weights. Files that were made from others, or with
                other settings, are made from scratch.
            on_views: called with the number of views done, of all, and of those that an earlier
                process had done.
            world: the processes that share the work.

        Raises:
            InputError: the disk is full, or a token does not fit half precision.
        """
        device = next(model.parameters()).device
        pixels = Pixels(data, device)
        generator = torch.Generator().manual_seed(seed)
        groups = torch.arange(len(data) * views).split(GROUP)
        total, done = len(data) * views, 0
        try:
            files, kept = None, 0
            if world.is_first:
                made_of = _made_of(model, fingerprint, views, seed)
                files = _Files(folder, made_of, model.vit.width)
                kept = files.keep([len(group) for group in groups])
                resumed = f"; {kept} of them are done already" if kept else ""
                log.info("%d views go through the frozen blocks%s", total, resumed)
            kept = int(world.collect(torch.tensor([kept], device=device))[0])
            nothing = torch.empty(0, model.vit.width, device=device).half()
            none = torch.empty(0, dtype=torch.int64, device=device)
            mine, turn = (nothing, none), 0
            for group in groups:
                params = draw_parameters(len(group), data.stored_size - model.image_size, generator)
                done += len(group)
                if done <= kept:  # drawn all the same, so that the random stream is unchanged
                    continue
                if turn == world.rank:
                    images, masks = pixels.rows(group // views)
                    x, mask = training_views(
                        images, masks, model.image_size, model.mean, model.std, params
                    )
                    visible = [_visible(model, *part) for part in model.in_parts(x, mask)]
                    found, counts = (torch.cat(part) for part in zip(*visible, strict=True))
                    mine = found.half(), counts
                turn += 1
                if turn == world.size or done == total:
                    for part in zip(*map(world.collect, mine), strict=True):
                        if files and len(part[1]):
                            files.append(*part)
                    on_views(done, total, kept)
                    mine, turn = (nothing, none), 0
            world.collect(none)  # wait until the first process has written all of them
            tokens, counts = map(torch.from_numpy, _mapped(folder, model.vit.width))
        except OSError as error:
            raise InputError(
                f"{folder}: the cached features cannot be written ({error.strerror}); free space, "
                "lower train.cached_views, or use train.features=online"
            ) from error
        if devices.has_room(device, tokens.nbytes):
            tokens = tokens.to(device)
        return cls(model, tokens, counts, views, world)

    def close(self) -> None:
        """Release the file: some systems remove none that is mapped."""
        self.tokens = self.tokens.new_empty(0)

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove the files, as far as they exist."""
        if folder.is_file():  # not a folder of ours
            folder.unlink()
        _label(folder).unlink(missing_ok=True)  # first: without it, the rest is of no use
        shutil.rmtree(folder, ignore_errors=True)

    def class_tokens(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Class tokens of two different views of each region: (2b, width), view 1 of all first.

        Args:
            indices: (b,) of regions.
            generator: draws the views. Every process draws all of them, and works on its share.
        """
        mine = self.world.share(len(indices))
        chosen = (
            torch.rand(len(indices), self.views, generator=generator).topk(2).indices.T
        )  # (2, b)
        rows = (indices * self.views + chosen)[:, mine].flatten()
        found = torch.stack([self.starts[rows], self.counts[rows]])
        longest = int(found[1].max())
        starts, counts = devices.moved(found, self.tokens.device)
        tokens, visible = padded(self.tokens, counts, starts, longest)
        device = next(self.model.parameters()).device
        tokens, visible = (devices.moved(t, device) for t in (tokens, visible))
        features = self.model.vit.class_token(tokens.float(), visible)
        return self.world.gather_views(features, len(indices))


def _label(folder: Path) -> Path:
    return folder / "made_of"


class _Files:
    """The files, which hold complete groups of views even if their process is killed.

    Each group's digest is written after its tokens and counts. After a power cut a file may have
    its full length and zeros in it: a group whose digest does not match is made again.
    """

    def __init__(self, folder: Path, made_of: str, width: int) -> None:
        """
        Args:
            folder: created here, or left by a killed process.
            made_of: digest of what the content must have been made from; other content is removed.
            width: of a token.
        """
        self.tokens, self.counts = folder / _TOKENS, folder / _COUNTS
        self.digests = folder / "digests"
        self.width = width
        label = _label(folder)
        files = (self.tokens, self.counts, self.digests)
        whole = all(path.is_file() for path in (label, *files))
        if not whole or label.read_bytes() != made_of.encode():
            CachedFeatures.remove(folder)
            folder.mkdir(exist_ok=True)
            for file in files:
                file.write_bytes(b"")
            label.write_text(made_of, encoding="utf-8")

    def keep(self, groups: Sequence[int]) -> int:
        """Truncate the files to whole groups.

        Args:
            groups: number of views in each group.

        Returns:
            The number of views that are left.
        """
        counts, digests = self.counts.read_bytes(), self.digests.read_bytes()
        there = self.tokens.stat().st_size
        tokens = np.memmap(self.tokens, np.uint8, mode="r") if there else np.empty(0, np.uint8)
        views = size = number = 0
        for group in groups:
            of_views = counts[8 * views : 8 * (views + group)]
            if len(of_views) < 8 * group:
                break
            end = size + 2 * self.width * int(np.frombuffer(of_views, np.int64).sum())
            known = digests[_DIGEST * number : _DIGEST * (number + 1)]
            if not size < end <= there or _digest(tokens[size:end].data, of_views) != known:
                break
            views, size, number = views + group, end, number + 1
        del tokens  # some systems truncate no file that is mapped
        os.truncate(self.digests, _DIGEST * number)
        os.truncate(self.counts, 8 * views)
        os.truncate(self.tokens, size)
        return views

    def append(self, tokens: Tensor, counts: Tensor) -> None:
        """Add a group: (total, width) tokens of views of (b,) counts each."""
        parts = [values.cpu().numpy().tobytes() for values in (tokens.half(), counts)]
        for path, content in zip(
            (self.tokens, self.counts, self.digests), (*parts, _digest(*parts)), strict=True
        ):
            with path.open("ab") as file:
                file.write(content)


def _mapped(folder: Path, width: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """All tokens, (total, width), on disk, and all counts."""
    counts = np.fromfile(folder / _COUNTS, np.int64)
    shape = (int(counts.sum()), width)
    # "r+", because a private map counts as memory that must be there, though nothing is written
    return np.memmap(folder / _TOKENS, np.float16, mode="r+", shape=shape), counts


def _digest(tokens: bytes | memoryview, counts: bytes) -> bytes:
    found = hashlib.blake2b(tokens, digest_size=_DIGEST)
    found.update(counts)
    return found.digest()


def _visible(model: Model, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that the last block's class token sees, packed, and their number in each view."""
    tokens, counts = model.vit.visible_tokens(images, model.vit.attention_mask(masks))
    largest = float(tokens.abs().max())
    if not math.isfinite(largest):
        raise InputError(
            "the frozen blocks give numbers that are not finite; check the backbone's weights"
        )
    if largest > torch.finfo(torch.float16).max:
        raise InputError(
            "train.features=cached: this backbone's tokens do not fit half precision; "
            "use train.features=online"
        )
    return tokens, counts


def _made_of(model: Model, fingerprint: str, views: int, seed: int) -> str:
    vit = model.vit
    masking = [vit.first_masked, vit.mask_on, vit.keep_pool, vit.keep_threshold]
    return digest(fingerprint, views, seed, GROUP, masking, str(vit.precision), versions())
