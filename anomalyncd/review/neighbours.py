"""Where each kind of defects lies among the class tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomalyncd.decisions.state import State


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
