"""Every term of the objective: the release's values, and properties that hold for any input."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anomalyncd.config import TrainConfig
from anomalyncd.training import losses
from anomalyncd.training.schedule import teacher_temperature

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "losses.npz")
PROJECTIONS = torch.from_numpy(GOLDEN["proj"])
LABELS = torch.from_numpy(GOLDEN["labels"])
NOVEL = torch.from_numpy(GOLDEN["logits"])[(LABELS < 0).repeat(2)]
NORMAL_WEIGHT = torch.from_numpy(GOLDEN["normal_weight"])
N_BASE = int(GOLDEN["n_base"])

seeds = st.integers(0, 2**31)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distil(logits: Tensor, **options: object) -> Tensor:
    defaults = {
        "n_base": N_BASE,
        "normal_weight": torch.zeros(logits.shape[-2], dtype=logits.dtype),
        "teacher_temperature": 0.05,
    }
    return losses.self_distillation(logits, **(defaults | options))


def test_contrastive_terms_match_the_release() -> None:
    found = losses.info_nce(PROJECTIONS), losses.supervised_contrastive(PROJECTIONS, LABELS)
    np.testing.assert_allclose(found, [GOLDEN["info_nce"], GOLDEN["supcon"]], rtol=1e-9)


def test_mean_entropy_matches_the_release() -> None:
    np.testing.assert_allclose(losses.mean_entropy_gap(NOVEL), GOLDEN["mean_entropy"], rtol=1e-9)


@pytest.mark.parametrize("epoch", [0, 5, 17, 39, 40, 49])
def test_self_distillation_matches_the_release(epoch: int) -> None:
    found = distil(
        NOVEL,
        normal_weight=NORMAL_WEIGHT,
        teacher_temperature=teacher_temperature(TrainConfig(), epoch),
    )
    np.testing.assert_allclose(found, GOLDEN[f"distill_epoch_{epoch}"], rtol=1e-9)


def test_teacher_temperature_matches_the_release() -> None:
    found = [teacher_temperature(TrainConfig(), epoch) for epoch in range(50)]
    np.testing.assert_allclose(found, GOLDEN["teacher_temperature"], rtol=1e-9)


@pytest.mark.parametrize("epoch", [0, 7, 49])
def test_a_temperature_of_one_step_stays_what_it_is(epoch: int) -> None:
    config = TrainConfig(temperature_steps=1)
    assert teacher_temperature(config, epoch) == config.teacher_temperature


def test_rows_without_a_label_have_a_finite_gradient() -> None:
    """Nothing attracts them, and nothing is repelled by them."""
    projections = random(0, 6, 5).requires_grad_()
    loss = losses.supervised_contrastive(projections, torch.tensor([0, 1, -1]))
    (gradient,) = torch.autograd.grad(loss, projections)
    assert gradient.isfinite().all()
    assert (gradient[[2, 5]] == 0).all(), "and it is none"


@given(seeds, st.integers(2, 9), st.floats(0.1, 10))
def test_contrastive_terms_ignore_length_order_and_leave_out_novel(
    seed: int, b: int, scale: float
) -> None:
    z, labels = random(seed, 2 * b, 5), torch.arange(b) % 3
    order = torch.randperm(b, generator=torch.Generator().manual_seed(seed))
    both = torch.cat([order, order + b])
    torch.testing.assert_close(losses.info_nce(z), losses.info_nce(scale * z[both]))
    supcon = losses.supervised_contrastive(z, labels)
    torch.testing.assert_close(
        supcon, losses.supervised_contrastive(scale * z[both], labels[order])
    )
    with_novel = torch.cat([z[:b], random(seed + 1, 1, 5), z[b:], random(seed + 2, 1, 5)])
    padded = torch.cat([labels, torch.tensor([-1])])
    torch.testing.assert_close(supcon, losses.supervised_contrastive(with_novel, padded))


@given(seeds, st.integers(2, 9))
def test_info_nce_is_lowest_for_equal_views(seed: int, b: int) -> None:
    view, other = random(seed, b, 6), random(seed + 1, b, 6)
    equal = losses.info_nce(torch.cat([view, view]), 0.1)
    assert equal <= losses.info_nce(torch.cat([view, other]), 0.1) + 1e-9


@given(seeds, st.integers(1, 12), st.integers(2, 8))
def test_mean_entropy_gap_is_zero_only_when_all_classes_are_used_equally(
    seed: int, n: int, k: int
) -> None:
    logits = random(seed, n, k)
    assert -1e-9 <= losses.mean_entropy_gap(logits) <= math.log(k) + 1e-9
    assert losses.mean_entropy_gap(torch.eye(k) * 100).abs() < 1e-6
    one_class = torch.zeros(n, k)
    one_class[:, 0] = 100
    assert abs(losses.mean_entropy_gap(one_class) - math.log(k)) < 1e-6


@given(seeds, st.integers(1, 6), st.integers(0, 4), st.integers(2, 5))
def test_self_distillation_of_several_heads_is_that_of_each(
    seed: int, n: int, n_base: int, n_novel: int
) -> None:
    logits = random(seed, 3, 2 * n, n_base + n_novel)
    weight = torch.rand(2 * n, dtype=torch.float64) / 2
    together = distil(logits, n_base=n_base, normal_weight=weight)
    each = [distil(one, n_base=n_base, normal_weight=weight) for one in logits]
    torch.testing.assert_close(together, torch.stack(each))


@given(seeds, st.integers(1, 6))
def test_teacher_gives_no_gradient_and_no_base_class(seed: int, n: int) -> None:
    """Cross-entropy is flat along a uniform shift of a student's logits only if the teacher is a
    distribution; and raising base logits can only hurt, as no teacher believes in them."""
    logits = random(seed, 2 * n, N_BASE + 3).requires_grad_()
    (gradient,) = torch.autograd.grad(distil(logits), logits)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(2 * n, dtype=torch.float64))
    assert (gradient[:, :N_BASE] > 0).all()


@given(seeds, st.integers(1, 6))
def test_the_student_learns_and_the_teacher_does_not(seed: int, n: int) -> None:
    """The gradient is that of a cross-entropy with targets that are given."""
    logits = random(seed, 2 * n, N_BASE + 3).requires_grad_()
    (gradient,) = torch.autograd.grad(distil(logits), logits)
    teacher = torch.zeros_like(logits)
    teacher[:, N_BASE:] = (logits.detach()[:, N_BASE:] / 0.05).softmax(-1)
    student = (logits.detach() / 0.1).softmax(-1)
    torch.testing.assert_close(gradient, (student - teacher.roll(n, 0)) / 0.1 / (2 * n))


def test_pseudo_label_correction_pulls_normal_regions_to_the_first_novel_class() -> None:
    logits = torch.zeros(2, N_BASE + 3, dtype=torch.float64, requires_grad=True)
    full = torch.full((2,), 0.5, dtype=torch.float64)
    (plain,) = torch.autograd.grad(distil(logits), logits)
    (corrected,) = torch.autograd.grad(distil(logits, normal_weight=full), logits)
    assert (corrected[:, N_BASE] < plain[:, N_BASE]).all()
    assert (corrected[:, N_BASE + 1 :] > plain[:, N_BASE + 1 :]).all()


@given(seeds, st.integers(2, 6), st.floats(0.05, 3))
def test_every_temperature_divides_what_it_is_of(seed: int, b: int, temperature: float) -> None:
    """Of unit vectors, dividing similarities is multiplying both sides by the root."""
    z = random(seed, 2 * b, 5)
    unit = z / z.norm(dim=1, keepdim=True)
    similarity = (unit @ unit.T) / temperature
    similarity.fill_diagonal_(-torch.inf)
    log_p = similarity.log_softmax(1)
    expected = -(log_p[range(b), range(b, 2 * b)] + log_p[range(b, 2 * b), range(b)]).mean() / 2
    torch.testing.assert_close(losses.info_nce(z, temperature), expected)
    each_its_class = torch.arange(b)
    torch.testing.assert_close(
        losses.supervised_contrastive(z, each_its_class, temperature), expected
    )
    torch.testing.assert_close(
        losses.mean_entropy_gap(z, temperature), losses.mean_entropy_gap(z / temperature, 1)
    )
    logits = random(seed + 1, 2 * b, N_BASE + 3)
    torch.testing.assert_close(
        distil(logits, teacher_temperature=0.2 * temperature, student_temperature=temperature),
        distil(logits / temperature, teacher_temperature=0.2, student_temperature=1.0),
    )


def test_the_defaults_of_the_losses_are_those_of_the_settings() -> None:
    config, logits = TrainConfig(), random(0, 8, N_BASE + 3)
    assert losses.mean_entropy_gap(logits) == losses.mean_entropy_gap(
        logits, config.student_temperature
    )
    assert distil(logits) == distil(logits, student_temperature=config.student_temperature)
