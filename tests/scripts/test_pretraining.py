"""Pretraining: the stem imitates, the class token learns what is under the mask."""

from __future__ import annotations

import torch

from scripts.pretraining import distillation, stream
from scripts.pretraining.distillation import Student, Targets
from scripts.pretraining.teacher import MobileNetV2


def drawn(number: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images, masks = stream.batch(number, 4, 0, (96,))
    return images / 255, masks.float()


def random_teacher() -> MobileNetV2:
    torch.manual_seed(0)
    teacher = MobileNetV2().eval().requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return teacher


def test_a_batch_follows_from_its_number() -> None:
    (images, masks), (again, _) = drawn(3), drawn(3)
    assert torch.equal(images, again) and not torch.equal(images, drawn(4)[0])
    assert images.shape == (4, 3, 96, 96) and masks.shape == (4, 1, 96, 96)
    assert (masks.sum((1, 2, 3)) >= 512).all()


def test_the_stem_learns_to_imitate() -> None:
    teacher, student = random_teacher(), Student()
    images, _ = drawn()
    optimizer = torch.optim.Adam(student.stem.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = distillation.imitation(student.stem, teacher, images, chained=False)[1:].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_targets_are_the_standardised_features_turned() -> None:
    teacher, (images, _) = random_teacher(), drawn()
    targets = Targets(96, 192)
    targets.fit(teacher, [images])
    result = targets(teacher, images)
    features = teacher.stride16(images)[0].permute(0, 2, 3, 1)
    standardised = (features - features.mean((0, 1, 2))) / features.flatten(0, 2).std(0)
    a, b = (x.flatten(0, 2) for x in (result, standardised / 96**0.5))
    torch.testing.assert_close(torch.cdist(a, a), torch.cdist(b, b), atol=5e-3, rtol=5e-3)


def test_the_student_starts_as_the_stem_and_learns() -> None:
    teacher, student, (images, masks) = random_teacher(), Student(), drawn()
    targets = Targets(96, student.vit.width)
    targets.fit(teacher, [images])
    student.settle(targets)
    student.train()
    assert not student.stem.training and not student.stem.first.conv.weight.requires_grad
    dense = targets(teacher, images)
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(6):
        loss = student(distillation.normalised(images), masks, dense).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_eight_turns_are_eight_different_views() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert len({tuple(distillation.turned(x, turn).flatten().tolist()) for turn in range(8)}) == 8
