"""The terms of the objective, one pure function each (paper section 3.4).

Rows of two-view tensors are view 1 of the whole batch, then view 2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(projections: Tensor, temperature: float = 1.0) -> Tensor:
    """L_rep: each view must find its other view among all views of the batch.

    Args:
        projections: (2b, d), of any length; made unit length here.
        temperature: of the cosine similarities.

    Example:
        >>> round(float(info_nce(torch.eye(4)[[0, 1, 0, 1]])), 3)  # two regions, equal views
        0.551
    """
    z = F.normalize(projections, dim=-1)
    n = len(z)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    other_view = torch.arange(n, device=z.device).roll(n // 2)
    return F.cross_entropy(similarity, other_view)


def supervised_contrastive(
    projections: Tensor, labels: Tensor, temperature: float = 0.07
) -> Tensor:
    """L_rep^l: views of one class attract each other (Khosla et al., 2020).

    Args:
        projections: (2b, d), of any length; made unit length here.
        labels: (b,) classes; rows with a negative label are left out. At least one row counts.
        temperature: of the cosine similarities.

    Example:
        >>> projections = torch.eye(4)[[0, 1, 0, 1]]
        >>> round(float(supervised_contrastive(projections, torch.tensor([0, 1]), 1.0)), 3)
        0.551
    """
    z = F.normalize(projections, dim=-1)
    labels = labels.repeat(2)
    counts = labels >= 0
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    seen = counts & ~itself  # (2b, 2b): columns that a row is compared with
    positive = (labels[:, None] == labels) & seen
    similarity = (z @ z.T / temperature).masked_fill(~seen, -torch.inf)
    log_probability = similarity - similarity.logsumexp(dim=1, keepdim=True)
    # A counting row always has its other view as a positive, so the division is safe.
    mean_positive = log_probability.where(positive, 0).sum(1) / positive.sum(1).clamp(min=1)
    return -mean_positive.where(counts, 0).sum() / counts.sum()


def mean_entropy_gap(logits: Tensor, temperature: float = 0.1) -> Tensor:
    """log K − H(mean prediction), the regulariser; 0 when all classes are used equally.

    Args:
        logits: (..., n, k), averaged over n.
        temperature: of the student.

    Example:
        >>> abs(round(float(mean_entropy_gap(torch.eye(3))), 3))  # all classes are used equally
        0.0
    """
    mean = (logits / temperature).softmax(-1).mean(-2)
    return math.log(logits.shape[-1]) + torch.special.xlogy(mean, mean).sum(-1)


def self_distillation(
    logits: Tensor,
    *,
    n_base: int,
    normal_weight: Tensor,
    teacher_temperature: float,
    student_temperature: float = 0.1,
) -> Tensor:
    """L_cls^u without its regulariser: each view learns the corrected prediction of the other.

    Args:
        logits: (..., 2n, k) of novel regions, both views stacked.
        n_base: the first n_base classes are the base set's, which no novel region can belong to.
        normal_weight: (2n,) in [0, 0.5]: how far a pseudo label is moved to the first novel class,
            "good" (the paper's pseudo-label correction; max(0.5 − anomaly score, 0)).
        teacher_temperature: of the softmax that gives pseudo labels.
        student_temperature: of the softmax that learns them.

    Example:
        >>> views = torch.eye(2).repeat(2, 1)
        >>> loss = self_distillation(
        ...     views, n_base=0, normal_weight=torch.zeros(4), teacher_temperature=0.07
        ... )
        >>> bool(loss < 0.01)  # both views agree, and are sure
        True
    """
    teacher = (logits.detach() / teacher_temperature)[..., n_base:].softmax(-1)
    teacher = F.pad(teacher, (n_base, 0))
    teacher = teacher * (1 - normal_weight)[:, None]
    teacher[..., n_base] += normal_weight
    student = (logits / student_temperature).log_softmax(-1)
    other_view = student.roll(student.shape[-2] // 2, dims=-2)
    return -(teacher * other_view).sum(-1).mean(-1)


def distillation(logits: Tensor, shares: Tensor, temperature: float = 0.1) -> Tensor:
    """How far predictions are from a consensus; 0 only where both are sure of the same class.

    Args:
        logits: (..., n, k).
        shares: (n, k), rows sum to 1: of the members of a consensus, see `discovery`.
        temperature: of the student.

    Example:
        >>> bool(distillation(torch.eye(2), torch.eye(2)) < 0.01)
        True
    """
    return -(shares * (logits / temperature).log_softmax(-1)).sum(-1).mean(-1)
