"""What the pretrained backbone says of each region, before anything is trained.

A region is seen in four turns, since a defect's kind does not depend on how it lies. Of every turn
the tokens under the mask are averaged at several depths: early ones tell texture, late ones shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anomalyncd.models.backbone import Backbone
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.models.model import Model
from anomalyncd.runtime.versions import versions
from anomalyncd.storage.cache import Cache
from anomalyncd.training.augmentation import evaluation_view
from anomalyncd.types import Regions

TURNS = 4
PART = 512  # regions of one cache entry: what a killed process has described is kept
_DEPTHS = (1 / 2, 3 / 4, 11 / 12)  # of the network, whose patch tokens are averaged
_VERSION = 1
_FILE = "descriptors.npy"


@dataclass(frozen=True)
class Described:
    descriptors: NDArray[np.float32]  # (n, TURNS, kinds, width), each kind at one depth
    made_of: list[Any]  # all that they depend on, for the cache


def describe(
    backbone: Backbone | Model,
    vit: MaskGuidedViT,
    regions: Regions,
    cache: Cache,
    *,
    frozen_hash: str,
    forward_batch: int,
    on_views: Callable[[int, int], None] = lambda done, total: None,
) -> Described:
    """Describe all regions, or read what an earlier run with the same regions has computed.

    Args:
        backbone: the pretrained network, or that of a run.
        vit: the same with masked attention, on the device to compute on.
        regions: to describe.
        cache: keeps the result, in parts.
        frozen_hash: of the backbone's weights.
        forward_batch: views per forward pass.
        on_views: called with the number of views done and of all.
    """
    device = next(vit.parameters()).device
    masking = [vit.first_masked, vit.mask_on, vit.keep_pool, vit.keep_threshold]
    made_of = [_VERSION, regions.name, frozen_hash, masking, versions()]
    parts = []
    for start in range(0, len(regions), PART):
        rows = slice(start, min(start + PART, len(regions)))

        def build(folder: Path, rows: slice = rows) -> None:
            found = []
            for first in range(rows.start, rows.stop, forward_batch):
                few = slice(first, min(first + forward_batch, rows.stop))
                found.append(_described(backbone, vit, regions, few, device))
                on_views(TURNS * few.stop, TURNS * len(regions))
            np.save(folder / _FILE, np.concatenate(found))

        folder = cache.entry("descriptors", [*made_of, rows.start], build)
        parts.append(np.load(folder / _FILE, mmap_mode="r", allow_pickle=False))
    return Described(parts[0] if len(parts) == 1 else np.concatenate(parts), made_of)


def _described(
    backbone: Backbone | Model,
    vit: MaskGuidedViT,
    regions: Regions,
    rows: slice,
    device: torch.device,
) -> NDArray[np.float32]:
    size = vit.vit.patch_embed.img_size[0]
    images = torch.from_numpy(np.array(regions.images[rows])).to(device)
    masks = torch.from_numpy(np.array(regions.masks[rows])).to(device)
    view, mask = evaluation_view(images, masks, size, backbone.mean, backbone.std)
    depth = len(vit.blocks)
    after = sorted({max(round(share * depth) - 1, 0) for share in _DEPTHS})
    turned = [
        vit.mask_means(view.rot90(turn, (-2, -1)), mask.rot90(turn, (-2, -1)), after)
        for turn in range(TURNS)
    ]
    return torch.stack(turned, dim=1).float().cpu().numpy()
