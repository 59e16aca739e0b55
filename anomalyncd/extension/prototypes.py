"""Prototypes of new classes, learned from class tokens alone, beside the old ones.

The network stays as it is, and so do the prototypes of its classes: which of two old classes a
region is more like cannot change. Photographs of earlier days are not needed; they may be gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.training.losses import distillation

_STEPS = 200
_RATE = 0.05


def learn(
    old: Tensor,
    known: NDArray[np.float32],
    classes: NDArray[np.int64],
    groups: Sequence[NDArray[np.float32]],
    temperature: float,
) -> Tensor:
    """Learn a prototype for each group, in every head.

    The known regions all together, and each group, weigh the same: a new kind begins with a few
    regions.

    Args:
        old: (heads, K, width) prototypes of the learned classes, which are not changed.
        known: (n, width) class tokens of regions of these classes.
        classes: (n,) ids.
        groups: class tokens (m, width) of the regions of each new class.
        temperature: of the softmax.

    Returns:
        (heads, len(groups), width), of the type of `old`.
    """
    tokens = [_double(part) for part in (known, *groups)]
    k = old.shape[1] + len(groups)
    of_known = F.one_hot(torch.from_numpy(classes), k).double()
    shares = [of_known]
    for number, group in enumerate(groups):
        shares.append(F.one_hot(torch.full((len(group),), old.shape[1] + number), k).double())
    fixed = F.normalize(old.detach().cpu().double(), dim=-1)
    directions = [F.normalize(part, dim=-1) for part in tokens]
    away = torch.stack([part.mean(0) - directions[0].mean(0) for part in directions[1:]])
    new = away.expand(len(old), -1, -1)
    found = _optimised(new, fixed, list(zip(directions, shares, strict=True)), temperature)
    return _as_long_as(old, found)


def relearn(
    old: Tensor, tokens: NDArray[np.float32], shares: NDArray[np.float64], temperature: float
) -> Tensor:
    """Learn the prototypes of all classes again, from what kind each region is.

    Args:
        old: (heads, K, width) prototypes, to start from.
        tokens: (n, width) class tokens.
        shares: (n, K') of the classes, the old ones first; rows sum to 1. A class without any
            share ends up far from all regions.
        temperature: of the softmax.

    Returns:
        (heads, K', width), of the type of `old`.
    """
    directions, wanted = F.normalize(_double(tokens), dim=-1), _double(shares)
    k = old.shape[1]
    added = F.normalize(wanted[:, k:].T @ directions, dim=-1)
    start = F.normalize(_double(old.detach().cpu().numpy()), dim=-1)
    start = torch.cat([start, added.expand(len(old), -1, -1)], dim=1)
    found = _optimised(start, start[:, :0], [(directions, wanted)], temperature)
    return _as_long_as(old, found)


def _optimised(
    start: Tensor, fixed: Tensor, terms: Sequence[tuple[Tensor, Tensor]], temperature: float
) -> Tensor:
    """(heads, m, width) prototypes beside fixed ones, by the mean distillation of all terms.

    A term is the directions (n, width) of some regions and their shares (n, fixed + m).
    """
    new = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([new], lr=_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            every = torch.cat([fixed, F.normalize(new, dim=-1)], dim=1)
            # h, k = head, class; n, d = region, width
            losses = [
                distillation(torch.einsum("nd,hkd->hnk", x, every), share, temperature)
                for x, share in terms
            ]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
    return new.detach()


def _as_long_as(old: Tensor, found: Tensor) -> Tensor:
    """As long as the old ones, so that all are of one kind; their lengths do not matter."""
    length = old.detach().cpu().double().norm(dim=-1).mean()
    return (F.normalize(found, dim=-1) * length).to(old)


def _double(values: NDArray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))


def nearest(old: Tensor, new: Tensor | None, tokens: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class whose prototype is nearest.

    Args:
        old: (K, width) prototypes of one head.
        new: (new classes, width), or None.
        tokens: (n, width) class tokens.

    Returns:
        (n,) ids.
    """
    every = (old if new is None else torch.cat([old, new])).detach().cpu().double()
    x = torch.from_numpy(np.asarray(tokens, np.float64))
    return (F.normalize(x, dim=-1) @ F.normalize(every, dim=-1).T).argmax(-1).numpy()
