"""The two-dimensional map of all regions: t-SNE of their class tokens, computed once per run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anomalyncd.errors import InputError
from anomalyncd.storage.tensors import load_tensors, save_tensors

log = logging.getLogger(__name__)

FILE = "review_map.safetensors"
_PLACES = "places"
_LAID_OUT = 3000  # regions that t-SNE arranges; others are placed beside the most similar of them
_LIKE, _BATCH = 3, 1024
_COMPONENTS = 50
_SEED = 0


def places(run: Path, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where each region lies on the map, from the run's folder if it was computed before.

    Args:
        run: its folder; if it cannot be written, the map is computed each time.
        tokens: (n, width), of length 1.

    Returns:
        (n, 2) in 0..1.
    """
    path = run / FILE
    if path.is_file():
        try:
            found = load_tensors(path)[0].get(_PLACES)
            if found is not None and tuple(found.shape) == (len(tokens), 2):
                return np.nan_to_num(found.float().numpy()).clip(0, 1)
            log.warning("%s: not of this run's regions; it is made again", path)
        except InputError as error:
            log.warning("%s; it is made again", error)
    made = arranged(tokens)
    try:
        save_tensors(path, {_PLACES: torch.from_numpy(made)}, {})
    except (InputError, OSError) as error:
        log.warning("%s", error)
    return made


def arranged(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Similar regions beside each other: (n, 2) in 0..1."""
    n = len(tokens)
    if n < 5:
        return np.linspace(0.2, 0.8, 2 * max(n, 1), dtype=np.float32).reshape(-1, 2)[:n]
    from sklearn.decomposition import PCA  # takes seconds to load
    from sklearn.manifold import TSNE

    generator = np.random.default_rng(_SEED)
    sample = np.arange(n)
    if n > _LAID_OUT:
        sample = np.sort(generator.choice(n, _LAID_OUT, replace=False))
    components = min(_COMPONENTS, len(sample), tokens.shape[1])
    reduced = PCA(components, random_state=_SEED).fit_transform(tokens[sample])
    perplexity = min(30.0, (len(sample) - 1) / 3)
    # On equal regions PCA's start has no width; t-SNE then draws its own.
    start = "pca" if components > 1 and reduced[:, 0].std() > 1e-6 else "random"
    made = TSNE(
        perplexity=perplexity, init=start, learning_rate="auto", random_state=_SEED
    ).fit_transform(reduced)
    laid_out = np.empty((n, 2), np.float32)
    laid_out[sample] = made
    others = np.setdiff1d(np.arange(n), sample)
    if len(others):
        scatter = generator.normal(0, float(made.std()) / 60, (len(others), 2))
        for begin in range(0, len(others), _BATCH):
            rows = others[begin : begin + _BATCH]
            cosines = tokens[rows] @ tokens[sample].T
            like = np.argpartition(-cosines, _LIKE, axis=1)[:, :_LIKE]
            laid_out[rows] = made[like].mean(axis=1) + scatter[begin : begin + _BATCH]
    low, high = laid_out.min(axis=0), laid_out.max(axis=0)
    return (laid_out - low) / np.maximum(high - low, 1e-12)
