"""Compare each patch of an image with a panel of the pile's own images, when none is known good.

The patch tokens of the backbone's last block describe the patches. The panel is kept, so that one
new image is scored as those of the pile were: `save` keeps it, `restore` brings it back.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.config import FEWEST_COMPARED, MAX_SIDE, ReferenceDetectorConfig
from anomalyncd.data.images import digest_of
from anomalyncd.detectors.reference.memory_bank import coreset
from anomalyncd.detectors.reference.panel import Panel
from anomalyncd.detectors.reference.photographs import (
    KEY,
    decoded,
    evenly,
    require_weights,
    squeezed,
)
from anomalyncd.detectors.reference.smoothing import smooth_map
from anomalyncd.errors import InputError
from anomalyncd.models import patch_features
from anomalyncd.models.backbone import with_absolute_path
from anomalyncd.models.patch_features import PatchFeatures
from anomalyncd.runtime import console
from anomalyncd.storage import foreign
from anomalyncd.storage.tensors import save_tensors

log = logging.getLogger(__name__)

HEADER = "pile"  # under which the file has what is not a tensor
_SHARE = 0.25  # of an image's patches that the panel has


class Pile:
    """A panel of images of the pile, and how it scores an image."""

    def __init__(
        self,
        config: ReferenceDetectorConfig,
        image_size: int,
        features: PatchFeatures,
        patches: Tensor,
        members: Sequence[str],
    ) -> None:
        """
        Args:
            config: backbone and sizes.
            image_size: that images are compared at, in pixels.
            features: of that size.
            patches: (images, patches, d) of the panel, in half precision.
            members: the digests of the panel's images, in order.
        """
        self.config = config
        self.image_size, self.features = image_size, features
        self._patches, self.members = patches, list(members)
        # Rounding changes lengths by more than similar patches differ.
        self.panel = Panel(F.normalize(patches.float(), dim=-1))

    @classmethod
    @torch.inference_mode()
    def learn(
        cls, config: ReferenceDetectorConfig, images: Sequence[Path], device: torch.device
    ) -> Pile:
        """Choose a panel, evenly from all images.

        Raises:
            InputError: fewer than five images, an unreadable one, or an unusable backbone.
        """
        if len(images) < FEWEST_COMPARED:
            raise InputError(
                f"images are compared with each other: found {len(images)}, expected at least "
                f"{FEWEST_COMPARED}; add images, or known-good photographs with dataset.good=FOLDER"
            )
        size = config.backbone.image_size  # enlarging small photographs makes maps finer
        features = patch_features.create_tokens(config.backbone, size, KEY, device)
        chosen = evenly(images, config.panel)
        patches, members = [], []
        with console.steps("Maps: photographs to compare with") as step:
            for done, image in enumerate(decoded(chosen), start=1):
                described, _ = _described(features, image, size)
                count = max(1, round(_SHARE * len(described)))
                patches.append(described[coreset(described, count)].half())
                members.append(digest_of(image))
                step(done, len(chosen))
        log.info("maps: compared with %d images of the pile at %d pixels", len(chosen), size)
        return cls(config, size, features, torch.stack(patches), members)

    @torch.inference_mode()
    def anomaly_map(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w, 3) RGB → (map_size, map_size), smoothed, ≥ 0.

        Raises:
            InputError: all images of the panel are equal to this one.
        """
        patches, grid = _described(self.features, image, self.image_size)
        digest = digest_of(image)
        itself = [i for i, member in enumerate(self.members) if member == digest]
        if len(itself) == len(self.members):
            raise InputError("all images are equal: nothing to compare; add different photographs")
        return smooth_map(self.panel.scores(patches, itself), grid, self.config.map_size)

    def save(self, path: Path) -> None:
        """Write everything but the backbone's weights.

        Raises:
            InputError: the file cannot be written.
        """
        header = {
            "config": asdict(
                replace(self.config, backbone=with_absolute_path(self.config.backbone))
            ),
            "weights_hash": self.features.weights_hash,
            "image_size": self.image_size,
            "members": self.members,
        }
        save_tensors(path, {"patches": self._patches}, {HEADER: header})

    @classmethod
    def restore(
        cls, path: Path, tensors: dict[str, Tensor], header: Any, device: torch.device
    ) -> Pile:
        """Restore what `save` wrote.

        Args:
            path: the file, for messages.
            tensors: its tensors.
            header: what it has under HEADER.
            device: where to compute.

        Raises:
            InputError: the file is damaged or of another kind, or the backbone cannot be used.
        """
        stored = foreign.build(_Header, header, f"{path}: its header", complete=True)
        backbone = stored.config.backbone
        features = patch_features.create_tokens(backbone, stored.image_size, KEY, device)
        require_weights(features, stored.weights_hash, backbone, path)
        patches = tensors.get("patches")
        if (
            tensors.keys() != {"patches"}
            or patches is None
            or patches.dtype != torch.float16
            or patches.ndim != 3
            or patches.shape[0] != len(stored.members)
            or patches.shape[1] == 0
            or patches.shape[2] != features.channels[0]
            or not patches.isfinite().all()
        ):
            raise InputError(
                f"{path}: its tensors do not fit its header or its backbone; compute the run again"
            )
        return cls(stored.config, stored.image_size, features, patches.to(device), stored.members)


@dataclass
class _Header:
    config: ReferenceDetectorConfig
    weights_hash: str
    image_size: int
    members: list[str]

    def __post_init__(self) -> None:
        if not 0 < self.image_size <= MAX_SIDE:
            raise InputError(f"image_size={self.image_size}: out of range")
        named = all(re.fullmatch("[0-9a-f]{32}", member) for member in self.members)
        if not self.members or not named:
            raise InputError("members: expected the digests of the panel's images")


def _described(
    features: PatchFeatures, image: NDArray[np.uint8], size: int
) -> tuple[Tensor, tuple[int, int]]:
    """(h · w, d) patches of an image, of unit length, and (h, w)."""
    return unit_length(features(squeezed(image, size))[0])


def unit_length(tokens: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """(1, d, h, w) tokens of an image → its (h · w, d) patches, of unit length, and (h, w)."""
    h, w = tokens.shape[-2:]
    centred = tokens[0].float() - tokens.float().mean()  # over all values, as MuSc
    return F.normalize(centred.flatten(1).T, dim=-1), (h, w)
