"""MuSc as plain loops over images and patches: what `mutual_scoring` computes, readably."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def aggregate(tokens: Array, degree: int) -> Array:
    """(b, h, w, d) → (b, h · w, d): mean of each neighbourhood inside the image, of unit length."""
    b, h, w, d = tokens.shape
    reach = degree // 2
    out = np.empty_like(tokens)
    for image in range(b):
        centred = tokens[image] - tokens[image].mean()
        for y in range(h):
            for x in range(w):
                around = centred[
                    max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1
                ]
                mean = around.mean(axis=(0, 1))
                out[image, y, x] = mean / np.linalg.norm(mean)
    return out.reshape(b, h * w, d)


def mutual_scores(features: Array, topmin_max: float) -> Array:
    """(n, p, d) → (n, p): mean over the most favourable images of the distance to the nearest."""
    n, p, _ = features.shape
    kept = max(1, int(topmin_max * (n - 1)))
    scores = np.empty((n, p))
    for i in range(n):
        for patch in range(p):
            by_image = [
                np.linalg.norm(features[j] - features[i, patch], axis=1).min()
                for j in range(n)
                if j != i
            ]
            scores[i, patch] = np.mean(sorted(by_image)[:kept])
    return scores


def reweight(image_scores: Array, class_tokens: Array, windows: list[int]) -> Array:
    """The release's steps, its stretching of scores to [0, 1] undone at the end."""
    lo, hi = image_scores.min(), image_scores.max()
    stretched = (image_scores - lo) / (hi - lo)
    tokens = class_tokens / np.linalg.norm(class_tokens, axis=1, keepdims=True)
    similarity = tokens @ tokens.T
    results = []
    for window in windows:
        weights = similarity.copy()
        for row in weights:
            row[np.argsort(row)[: max(len(row) - window, 0)]] = 0
        results.append(weights / weights.sum(axis=1, keepdims=True) @ stretched)
    return np.mean(results, axis=0) * (hi - lo) + lo
