"""MuSc: the patches of unlabelled images are scored by the other images (arXiv 2401.16753).

A normal patch is similar to a patch in most other images, an anomalous one only in few. So the
anomaly score is the distance to the nearest patch, averaged over those images where it is lowest:
not over all, since some of them may show the product in another way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Features(Protocol):
    """An array or a memory-map: what has a shape and gives images by slice."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, part: slice, /) -> Any: ...


def aggregate(tokens: Tensor, degree: int) -> Tensor:
    """Average each token with its neighbours, so that defects of other sizes are found too.

    As in the release, the mean of all values of an image is subtracted first, and pixels outside
    the image count as zero: at a border this only makes the average shorter, which normalisation
    removes.

    Args:
        tokens: (b, h, w, d) of one stage.
        degree: side of the neighbourhood in tokens, odd; 1 leaves tokens alone.

    Returns:
        (b, h · w, d) float32 of unit length, the paper's local neighbourhood aggregation.
    """
    centred = tokens.float() - tokens.float().mean(dim=(1, 2, 3), keepdim=True)
    channels_first = centred.permute(0, 3, 1, 2)
    pooled = F.avg_pool2d(channels_first, degree, stride=1, padding=degree // 2)
    return F.normalize(pooled.flatten(2).transpose(1, 2), dim=-1)


@torch.inference_mode()
def mutual_scores(
    features: Features,
    *,
    topmin_max: float = 0.3,
    device: torch.device | None = None,
    memory: int = 4 << 30,
    on_share: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """Score every patch by the other images: the paper's mutual scoring.

    Each other image gives a patch the distance to its nearest patch there; the score is the mean of
    the lowest such distances, over a share of the images. The cost is n² / 2 matrix products of
    (p, d) by (d, p) if memory allows, else up to twice as many.

    Args:
        features: (n, p, d) of unit length, read block by block; n ≥ 2.
        topmin_max: share of the other images, those with the lowest distances, that are averaged;
            rounded down to at least one image.
        device: where to compute, in half precision on any but the CPU (where it would be slower).
        memory: bytes that may be used on the device, besides the features and the result.
        on_share: called now and then with the share of the comparisons that is done.

    Returns:
        (n, p) float32 on the CPU.

    Raises:
        ValueError: fewer than two images, or too little memory for one image at a time.
    """
    n, p, d = features.shape
    if n < 2:
        raise ValueError(f"{n} image: expected at least 2, which score each other")
    device = device or torch.device("cpu")
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    plan = plan_blocks(n, p, d, dtype, memory, _ROWS_CPU if device.type == "cpu" else _ROWS_GPU)
    kept = max(1, int(topmin_max * (n - 1)))

    def load(start: int) -> Tensor:
        part = torch.from_numpy(np.array(features[start : start + plan.block]))
        return part.to(device).to(dtype)

    @lru_cache(maxsize=plan.cached)
    def load_lifted(start: int) -> Tensor:
        return lift(load(start), right=True)

    scores = torch.empty(n, p)
    panel = torch.empty(plan.panel, n, p, device=device, dtype=dtype)
    blocks = math.ceil(n / plan.block)
    rows_of_panel = [min(plan.panel, n - top) for top in range(0, n, plan.panel)]
    rows_of_panel = [math.ceil(rows / plan.block) for rows in rows_of_panel]
    todo = sum(rows * blocks - rows * (rows - 1) // 2 for rows in rows_of_panel)
    done = 0
    for top in range(0, n, plan.panel):
        bottom = min(top + plan.panel, n)
        for i in range(top, bottom, plan.block):
            left = lift(load(i), right=False)
            for j in range(0, n, plan.block):
                if top <= j < i:
                    continue  # filled from (j, i), whose distances are the same
                right = load_lifted(j)
                closeness = left.flatten(0, 1) @ right.flatten(0, 1).T
                closeness = closeness.view(len(left), p, len(right), p)
                rows, columns = slice(i, i + len(left)), slice(j, j + len(right))
                panel[i - top : rows.stop - top, columns] = closeness.amax(3).transpose(1, 2)
                if i < j < bottom:
                    panel[j - top : columns.stop - top, rows] = closeness.amax(1).transpose(0, 1)
                done += 1
            on_share(done / todo)
        for i in range(top, bottom):
            by_image = panel[i - top]
            by_image[i] = -torch.inf
            nearest = by_image.T.topk(kept, dim=1, sorted=False).values.float()
            scores[i] = nearest.clamp(max=0).mul(-2).sqrt().mean(dim=1)
    return scores


def reweight(
    image_scores: Tensor, class_tokens: Tensor, windows: Sequence[int] = (1, 2, 3)
) -> Tensor:
    """Average each image's score with those of the images that look like it: the paper's RsCIN.

    The release first stretches the scores to [0, 1]; since the weights of an image sum to 1, that
    only stretches what is returned, and is left out so that scores keep their unit.

    Args:
        image_scores: (n,).
        class_tokens: (n, d), of any length.
        windows: how many images are averaged, each itself included; the results for several windows
            are averaged. The release takes 1, 2, 3 for MVTec AD and 1, 8, 9 for VisA.

    Returns:
        (n,), between the lowest and the highest of the given scores.
    """
    tokens = F.normalize(class_tokens.float(), dim=-1)
    similarity = (tokens @ tokens.T).clamp(min=0).fill_diagonal_(2)  # none is more like an image …
    averages = []
    for window in windows:
        top = similarity.topk(min(window, len(tokens)), dim=1)
        weights = top.values.clamp(max=1)  # … than itself, which counts as similarity 1
        averages.append((weights * image_scores[top.indices]).sum(1) / weights.sum(1))
    return torch.stack(averages).mean(0)


# Rows of a block's matrix: the product should stay in a CPU's cache, and fill a GPU.
_ROWS_CPU, _ROWS_GPU = 1024, 16384
_LIFT = 8  # numbers that lifting appends to a vector


class BlockPlan(NamedTuple):
    block: int  # images that are multiplied at once
    panel: int  # images whose scores are kept at once, a multiple of `block`
    cached: int  # blocks of features that are kept


def plan_blocks(
    n: int, p: int, d: int, dtype: torch.dtype, memory: int, rows: int = _ROWS_CPU
) -> BlockPlan:
    """Sizes with which `mutual_scores` stays within so many bytes.

    Scores by all other images come first: a panel of all images halves the work. What is left keeps
    features, which saves reading them again.

    Raises:
        ValueError: not even one image at a time fits.
    """
    number = dtype.itemsize
    block = max(1, min(n, rows // p))
    while True:
        features = block * p * (d + _LIFT) * number
        # Being read, converted, lifted: one block each; the left one; the product and its maxima.
        passing = 4 * features + (block * p) ** 2 * number + 2 * block**2 * p * number
        panel_row = n * p * number
        fixed = passing + 6 * n * p * 4  # the latter while one image's scores are averaged
        affordable = int(memory - fixed) // panel_row // block * block
        if affordable >= block:
            break
        if block == 1:
            raise ValueError(
                f"memory={memory}: expected at least {fixed + panel_row} bytes for {n} images of "
                f"{p} patches"
            )
        block //= 2
    blocks = -(-n // block)
    panel = min(affordable, blocks * block)
    left_over = memory - fixed - panel * panel_row
    return BlockPlan(block, panel, cached=min(1 + left_over // features, blocks))


def lift(vectors: Tensor, *, right: bool) -> Tensor:
    """Append numbers to vectors so that left · right = -‖a - b‖² / 2.

    The same from a · b of unit vectors would lose the small distances, in which neighbours differ,
    to half precision: around 1 its numbers are 0.0005 apart, around 0 close together. The halved
    squared lengths are split in two numbers because one is too coarse.

    Args:
        vectors: (..., d), about unit length.
        right: lift as a right factor; both sides of a product are lifted, each as its own.

    Returns:
        (..., d + 8) of the same type.
    """
    halved = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=torch.float32) ** 2 / -2
    high = halved.to(vectors.dtype)
    low = (halved - high).to(vectors.dtype)
    one, zero = torch.ones_like(high), torch.zeros_like(high)
    ends = (one, one, high, low) if right else (high, low, one, one)
    return torch.cat((vectors, *ends, *(zero,) * 4), dim=-1)  # a multiple of 8 suits tensor cores
