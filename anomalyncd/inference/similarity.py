"""How alike features are: directions, and the rows whose cosine with another is highest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def directions(features: NDArray) -> NDArray:
    """(n, width) → the same of length 1; what has no length stays 0."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def nearest(known: NDArray, query: NDArray, top: int) -> tuple[NDArray[np.int64], NDArray]:
    """The rows most like a query, the most similar first, and their cosines.

    Args:
        known: (n, width), of length 1.
        query: (width,), of length 1.
        top: how many at most.
    """
    cosines = known @ query
    rows = np.argsort(-cosines, kind="stable")[:top]
    return rows, cosines[rows]
