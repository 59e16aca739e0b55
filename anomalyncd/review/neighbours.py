"""Which regions look alike: cosines of the class tokens, computed by brute force."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomalyncd.review.state import State


def nearest(
    tokens: NDArray[np.float32], query: NDArray[np.float32], top: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows most like a query, the most similar first, and their cosines.

    Args:
        tokens: (n, width), of length 1.
        query: (width,), of length 1.
        top: how many at most.
    """
    cosines = tokens @ query
    top = min(top, len(cosines))
    rows = np.argpartition(-cosines, top - 1)[:top] if top else np.zeros(0, np.int64)
    rows = rows[np.argsort(-cosines[rows], kind="stable")]
    return rows, cosines[rows]


def centres(
    tokens: NDArray[np.float32], state: State
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """The kinds of defects that have regions, the mean direction and the spread of each.

    Returns:
        Their ids; (kinds, width) of length 1; (kinds,) mean distance 1 − cosine to it.
    """
    kinds = [one for one in state.sizes() if not state.is_fixed(one)]
    means = np.zeros((len(kinds), tokens.shape[1]), np.float32)
    spreads = np.zeros(len(kinds), np.float32)
    for number, kind in enumerate(kinds):
        own = tokens[state.members(kind)]
        mean = own.mean(axis=0)
        means[number] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        spreads[number] = 1 - float((own @ means[number]).mean())
    return kinds, means, spreads
