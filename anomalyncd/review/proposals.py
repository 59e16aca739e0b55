"""How a class might be split: its regions clustered by their class tokens, at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomalyncd.storage.cache import digest

MAX_PARTS = 6
_COMPARED = 1500  # regions of which all pairs are compared; others follow the nearest part
_SEED = 0


def split(tokens: NDArray[np.float32], parts: int) -> NDArray[np.int64]:
    """The part of each region: Ward's hierarchy, the largest part first.

    Args:
        tokens: (n, width) of the regions of one class, of length 1.
        parts: how many; at most n are made.

    Returns:
        (n,) numbers from 0.
    """
    n, parts = len(tokens), min(parts, len(tokens))
    if parts < 2:
        return np.zeros(n, np.int64)
    sample = np.arange(n)
    if n > _COMPARED:
        sample = np.sort(np.random.default_rng(_SEED).choice(n, _COMPARED, replace=False))
    from sklearn.cluster import AgglomerativeClustering  # takes seconds to load

    found = AgglomerativeClustering(parts, linkage="ward").fit_predict(tokens[sample])
    if n > _COMPARED:
        means = np.stack([tokens[sample[found == part]].mean(axis=0) for part in range(parts)])
        # The nearest mean: |t − m|² without |t|², which is the same for all parts.
        found = (tokens @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1)
    order = np.argsort(-np.bincount(found, minlength=parts), kind="stable")
    rank = np.empty(parts, np.int64)
    rank[order] = np.arange(parts)
    return rank[found]


def fingerprint(rows: NDArray[np.int64]) -> str:
    """Of the regions of a class: a proposal holds only as long as they are the same."""
    return digest(rows.tolist())
