"""A panel of images that scores others: mutual scoring at a cost that does not grow.

MuSc (arXiv 2401.16753) scores the patches of an image by all other images, and each patch by those
images that happen to fit it best. Here a panel of a bounded number of images scores, each thinned
to patches that lie far from each other, and only images that resemble the scored one as a whole
count, the same for all of its patches. So a defect that recurs is not hidden by the other images
that have it, unless a quarter of the similar ones do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

QUANTILE = 0.9  # of an image's patches: how far another image is as a whole
SIMILAR = 8  # images that count
SHARE = 0.25  # of them that may show a patch by chance, such as the same defect
_IMAGES_AT_ONCE = 4


@dataclass(frozen=True)
class Panel:
    """Patches of the images that score."""

    patches: Tensor  # (images, patches, d), of unit length

    def scores(self, patches: Tensor, left_out: Sequence[int] = ()) -> Tensor:
        """Score the patches of one image.

        Args:
            patches: (p, d) of unit length.
            left_out: images of the panel that do not count: the scored one itself.

        Returns:
            (p,) distance to the nearest patch in an image, 0 to 2: the lower quartile over the
            similar images.

        Raises:
            ValueError: no image is left.
        """
        distances = self._distances(patches)
        kept = [i for i in range(len(self.patches)) if i not in set(left_out)]
        if not kept:
            raise ValueError("no image of the panel is left")
        distances = distances[:, kept]
        rank = max(1, math.ceil(QUANTILE * len(patches)))
        whole = distances.kthvalue(rank, dim=0).values  # of each image
        similar = whole.argsort()[:SIMILAR]
        return distances[:, similar].quantile(SHARE, dim=1)

    def _distances(self, patches: Tensor) -> Tensor:
        """(p, images): from each patch to the nearest of an image."""
        found = []
        for part in self.patches.split(_IMAGES_AT_ONCE):
            closeness = patches @ part.flatten(0, 1).T
            found.append(closeness.view(len(patches), len(part), -1).amax(2))
        return (2 - 2 * torch.cat(found, 1)).clamp(min=0).sqrt()
