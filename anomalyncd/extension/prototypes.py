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
    tokens = [torch.from_numpy(np.asarray(part, np.float64)) for part in (known, *groups)]
    k = old.shape[1] + len(groups)
    of_known = F.one_hot(torch.from_numpy(classes), k).double()
    shares = [of_known]
    for number, group in enumerate(groups):
        shares.append(F.one_hot(torch.full((len(group),), old.shape[1] + number), k).double())
    fixed = F.normalize(old.detach().cpu().double(), dim=-1)
    directions = [F.normalize(part, dim=-1) for part in tokens]
    away = torch.stack([part.mean(0) - directions[0].mean(0) for part in directions[1:]])
    new = away.expand(len(old), -1, -1).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([new], lr=_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            every = torch.cat([fixed, F.normalize(new, dim=-1)], dim=1)
            # h, k = head, class; n, d = region, width
            terms = [
                distillation(torch.einsum("nd,hkd->hnk", x, every), share, temperature)
                for x, share in zip(directions, shares, strict=True)
            ]
            optimizer.zero_grad()
            torch.stack(terms).mean().backward()
            optimizer.step()
    # As long as the old ones, so that all are of one kind; their lengths do not matter.
    length = old.detach().cpu().double().norm(dim=-1).mean()
    return (F.normalize(new.detach(), dim=-1) * length).to(old)


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
