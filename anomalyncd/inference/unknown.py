"""Whether a region is unlike every learned class, and an image unlike the product.

Both are asked in the same way: how far is it from the nearest of those that the run has seen? How
far is far is read from the run itself, without labels: each of its own regions is measured against
those of its other images, as if it were new. The setting is the share of them that may be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyncd.config import FusionConfig
from anomalyncd.inference.assignment import Predictions, assign
from anomalyncd.inference.similarity import directions
from anomalyncd.types import OUT_OF_SCOPE, UNKNOWN, Regions

MOST = 2000  # features that are kept to compare with: a few MB
FEWEST = 10  # of different images, from which a limit can be read
# A third of new photographs lies a little beyond the limit of a run on 30 screws (up to 1.14 times
# as far), and other products at four times and more.
SCOPE_MARGIN = 2.0
_NEIGHBOURS = 3  # whose mean distance counts: one alone may itself be odd


@dataclass(frozen=True)
class Seen:
    """Features of what a run has seen, n of them."""

    features: NDArray[np.float32]  # (n, width)
    images: NDArray[np.int64]  # (n,) which image each is of


def evenly(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most MOST of them, from everywhere."""
    n = len(rows)
    return rows if n <= MOST else rows[np.arange(MOST) * n // MOST]


class Familiar:
    """How unlike what a run has seen something new is.

    Scores are distances in units of the limit: above 1 is unlike.
    """

    def __init__(self, seen: Seen, share: float, margin: float = 1.0) -> None:
        """
        Args:
            seen: by the run.
            share: of its own ones that may be above the limit, if they were new; 0: none may.
            margin: the limit is so many times as far.
        """
        self._seen = directions(seen.features.astype(float))
        self.limit = np.inf
        if len(np.unique(seen.images)) >= FEWEST:
            same = seen.images[:, None] == seen.images[None]
            own = self._distances(self._seen, same)
            # The smallest distance that at most this share exceeds.
            self.limit = margin * max(float(np.quantile(own, 1 - share, method="higher")), 1e-6)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, width) features → (n,) scores, all 0 if the run has seen too little to say."""
        if not np.isfinite(self.limit):
            return np.zeros(len(features))
        return self._distances(directions(features.astype(float))) / self.limit

    def _distances(
        self, units: NDArray[np.float64], left_out: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Mean distance to the nearest that the run has seen."""
        distances = np.sqrt(np.maximum(2 - 2 * units @ self._seen.T, 0))
        if left_out is not None:
            distances[left_out] = np.inf
        return np.sort(distances, axis=1)[:, :_NEIGHBOURS].mean(1)


def familiar(seen: tuple[Seen, Seen], share: float) -> tuple[Familiar, Familiar]:
    """What the regions, and the images, of a run are compared by.

    Args:
        seen: regions and images of the run.
        share: of its own ones that may be lost.
    """
    regions, images = seen
    return Familiar(regions, share), Familiar(images, share, SCOPE_MARGIN)


@dataclass(frozen=True)
class Judged(Predictions):
    """Predictions with the verdicts UNKNOWN and OUT_OF_SCOPE among the classes."""

    region_unknown: NDArray[np.float64]  # (n_regions,) how unlike the learned classes; above 1: is
    region_nearest: NDArray[np.int64]  # (n_regions,) the learned class that the network says
    image_unknown: NDArray[np.float64]  # (n_images,) the highest of its regions
    image_scope: NDArray[np.float64]  # (n_images,) how unlike the run's images; above 1: is
    image_nearest: NDArray[np.int64]  # (n_images,)


def judge(
    probabilities: NDArray[np.float64],
    regions: Regions,
    config: FusionConfig,
    region_scores: NDArray[np.float64],
    image_scores: NDArray[np.float64],
    *,
    verdicts: bool,
) -> Judged:
    """Assign classes to regions and images, `unknown` and `out of scope` among them.

    An unknown region votes for `unknown` as other regions vote for their classes: with its weight
    in the fusion. So an image is unknown if its unknown regions weigh more than those of any other
    class; among many known defects, a small unknown one is shown by its region only. A region
    without a main element, which is its whole image, is never unknown. If an image is out of
    scope, all of its regions are.

    The confidence of `unknown` is the weight of the regions that say so, and 1 for a region; that
    of `out of scope` is 1.

    Args:
        probabilities: (n_regions, K).
        regions: in the same order.
        config: how the regions of an image are weighted.
        region_scores: (n_regions,) see `Familiar`.
        image_scores: (n_images,)
        verdicts: False: scores only.
    """
    plain = assign(probabilities, regions, config)
    region_scores = np.where(regions.areas > 0, region_scores, 0.0)
    unknown = (region_scores > 1) & verdicts
    outside = (image_scores > 1) & verdicts
    voting = np.column_stack([probabilities * ~unknown[:, None], unknown])
    voted = assign(voting, regions, config)
    k = probabilities.shape[1]
    region_class = np.where(voted.region_class == k, UNKNOWN, voted.region_class)
    image_class = np.where(voted.image_class == k, UNKNOWN, voted.image_class)
    of_outside = outside[regions.image_index]
    highest = np.zeros(len(image_scores))
    np.maximum.at(highest, regions.image_index, region_scores)
    return Judged(
        region_class=np.where(of_outside, OUT_OF_SCOPE, region_class),
        region_confidence=np.where(of_outside, 1.0, voted.region_confidence),
        image_class=np.where(outside, OUT_OF_SCOPE, image_class),
        image_confidence=np.where(outside, 1.0, voted.image_confidence),
        region_unknown=region_scores,
        region_nearest=plain.region_class,
        image_unknown=highest,
        image_scope=image_scores,
        image_nearest=plain.image_class,
    )
