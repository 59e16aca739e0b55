"""Cached features: they hold the same tokens as new views."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomalyncd.config import TrainConfig
from anomalyncd.errors import InputError
from anomalyncd.inference.classify import classify
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.models.model import Model
from anomalyncd.runtime.distributed import ALONE
from anomalyncd.training import cached_features, train
from anomalyncd.training.augmentation import draw_parameters, training_views
from anomalyncd.training.cached_features import CachedFeatures, _Files, _mapped
from anomalyncd.training.online_features import OnlineFeatures
from anomalyncd.training.state import TrainingState
from anomalyncd.training.training_set import Pixels
from anomalyncd.types import MaskedQueries
from tests.helpers.training import CPU, small_model, training_set

VIEWS = 3


def fill(
    folder: Path,
    model: Model | None = None,
    *,
    views: int = VIEWS,
    seed: int = 5,
    fingerprint: str = "data",
    on_views: Callable[[int, int, int], None] = lambda done, total, kept: None,
) -> CachedFeatures:
    model = model or small_model()
    return CachedFeatures.fill(
        *(model, training_set(), views, seed, folder),
        fingerprint=fingerprint,
        on_views=on_views,
    )


def cached_views(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """The views that features of seed 5 are made of."""
    pixels, stream = Pixels(training_set(), CPU), torch.Generator().manual_seed(5)
    images, masks = pixels.rows(torch.arange(16).repeat_interleave(VIEWS))
    drawn = draw_parameters(len(images), images.shape[1] - model.image_size, stream)
    return training_views(images, masks, model.image_size, model.mean, model.std, drawn)


@pytest.mark.parametrize("mask_on", ["class_token", "all_tokens", "patch_tokens", "none"])
def test_a_cached_view_gives_the_class_token_of_that_view(
    mask_on: MaskedQueries, tmp_path: Path
) -> None:
    model = small_model()
    model.vit.mask_on = mask_on
    kept = fill(tmp_path / "features", model)
    x, masks = cached_views(model)
    every_view = model(x, masks).unflatten(0, (-1, VIEWS))  # (16, 3, width)
    order = torch.tensor([2, 2, 9, 15])
    features = kept.class_tokens(order, torch.Generator().manual_seed(0)).unflatten(0, (2, -1))
    distance = (features[:, :, None] - every_view[order]).abs().amax(-1)  # (2, 4, 3)
    found = distance.min(-1)
    assert (found.values < 0.01).all()  # half precision
    assert (found.indices[0] != found.indices[1]).all(), "never one view twice"


def test_only_what_the_class_token_sees_is_kept(tmp_path: Path) -> None:
    model = small_model()
    kept = fill(tmp_path / "features", model)
    _, masks = cached_views(model)
    assert kept.counts.tolist() == model.vit.attention_mask(masks).sum((1, 2, 3)).tolist()
    size = (tmp_path / "features" / "tokens.f16").stat().st_size
    assert size == int(kept.counts.sum()) * model.vit.width * 2


def test_broken_weights_are_reported(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.vit.vit.patch_embed.proj.bias.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite; check the backbone's weights"):
        fill(tmp_path / "features", model)


def test_tokens_beyond_half_precision_are_reported(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.vit.vit.patch_embed.proj.bias.fill_(1e6)
    with pytest.raises(InputError, match=r"use train\.features=online"):
        fill(tmp_path / "features", model)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two regions' views each, so that there are eight groups."""
    monkeypatch.setattr(cached_features, "GROUP", 2 * VIEWS)


def interrupt(done: int, total: int, kept: int) -> None:
    if done > total // 2:
        raise KeyboardInterrupt


@pytest.fixture
def half_filled(tmp_path: Path, small_groups: None) -> Path:
    """Features of 16 regions, 3 views each, filled by two regions at a time until the tenth."""
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "half", on_views=interrupt)
    return tmp_path / "half"


@pytest.mark.parametrize("torn", ["nothing", "counts", "tokens", "digests"])
def test_filling_resumes_where_it_was_killed(half_filled: Path, torn: str) -> None:
    whole = fill(half_filled.with_name("whole"))
    for name in ("counts.i64", "tokens.f16", "digests"):
        with (half_filled / name).open("rb+") as file:
            if name.startswith(torn):
                file.truncate((half_filled / name).stat().st_size - 3)
    calls = []
    resumed = fill(half_filled, on_views=lambda *figures: calls.append(figures))
    assert torch.equal(resumed.tokens, whole.tokens)
    assert torch.equal(resumed.counts, whole.counts)
    kept = 30 if torn == "nothing" else 24  # nothing of an incomplete group is kept
    assert calls == [(done, 48, kept) for done in range(kept + 6, 49, 6)]


@pytest.mark.parametrize("name", ["counts.i64", "tokens.f16", "digests"])
@pytest.mark.parametrize("lost", [b"\0", b"\xff"])
def test_files_damaged_by_a_power_cut_are_not_used_as_tokens(
    half_filled: Path, name: str, lost: bytes
) -> None:
    """Such a file may have its full length, but not its content."""
    whole = fill(half_filled.with_name("whole"))
    path = half_filled / name
    kept = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:kept] + lost * (path.stat().st_size - kept))
    calls = []
    resumed = fill(half_filled, on_views=lambda *figures: calls.append(figures))
    assert torch.equal(resumed.tokens, whole.tokens)
    assert torch.equal(resumed.counts, whole.counts)
    assert calls[0][2] == 12, "two of five groups lie before the loss"


def test_any_number_of_views_at_once_gives_the_same_features(half_filled: Path) -> None:
    whole = fill(half_filled.with_name("whole"))
    fewer = small_model()
    fewer.forward_batch = 4
    calls = []
    resumed = fill(half_filled, fewer, on_views=lambda *figures: calls.append(figures))
    assert calls[0] == (36, 48, 30), "kept views are not computed again"
    assert torch.equal(resumed.counts, whole.counts)
    torch.testing.assert_close(resumed.tokens, whole.tokens, rtol=0.01, atol=0.01)


def test_no_more_views_at_once_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    visible_tokens = MaskGuidedViT.visible_tokens

    def note(vit: MaskGuidedViT, images: torch.Tensor, visible: torch.Tensor) -> Any:
        sizes.append(len(images))
        return visible_tokens(vit, images, visible)

    monkeypatch.setattr(MaskGuidedViT, "visible_tokens", note)
    model = small_model()
    fill(tmp_path / "default", model)
    assert sizes == [48]
    sizes.clear()
    model.forward_batch = 5
    fill(tmp_path / "features", model)
    views = OnlineFeatures(model, Pixels(training_set(), CPU), ALONE)
    views.class_tokens(torch.arange(6), torch.Generator().manual_seed(0))
    classify(model, training_set().novel)
    assert sizes == [*([5] * 9), 3, 5, 5, 2, *([1] * 9)], "one after the other when classified"


def test_data_after_the_last_complete_group_is_removed(half_filled: Path) -> None:
    whole = fill(half_filled.with_name("whole"))
    with (half_filled / "tokens.f16").open("ab") as file:
        file.write(b"killed in mid-write")
    assert torch.equal(fill(half_filled).tokens, whole.tokens)


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"fingerprint": "other data"}, {"views": 6, "seed": 5}]
)
def test_features_of_something_else_are_not_resumed(
    half_filled: Path, other: dict[str, Any]
) -> None:
    calls = []
    resumed = fill(half_filled, on_views=lambda *figures: calls.append(figures), **other)
    assert calls[0][2] == 0
    assert torch.equal(resumed.tokens, fill(half_filled.with_name("whole"), **other).tokens)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("keep_threshold", 0.1), ("keep_pool", "max"), ("mask_on", "all_tokens")),
        *(("first_masked", 0), ("precision", torch.bfloat16)),
    ],
)
def test_features_of_other_frozen_blocks_are_not_resumed(
    half_filled: Path, setting: str, value: Any
) -> None:
    model = small_model()
    setattr(model.vit, setting, value)
    calls = []
    fill(half_filled, model, on_views=lambda *figures: calls.append(figures))
    assert calls[0] == (6, 48, 0)


def test_features_made_with_other_versions_are_not_resumed(
    half_filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_features, "versions", lambda: {"torch": "another"})
    reported = []
    fill(half_filled, on_views=lambda *figures: reported.append(figures))
    assert reported[0] == (6, 48, 0)


@pytest.mark.parametrize("left", ["file", "no counts", "no label"])
def test_other_files_in_the_place_of_cached_features_are_replaced(
    half_filled: Path, left: str
) -> None:
    if left == "file":
        CachedFeatures.remove(half_filled)
        half_filled.write_bytes(b"of an earlier version")
    else:
        (half_filled / {"no counts": "counts.i64", "no label": "made_of"}[left]).unlink()
    assert torch.equal(fill(half_filled).tokens, fill(half_filled.with_name("whole")).tokens)


def test_cached_features_may_be_larger_than_memory(tmp_path: Path) -> None:
    files = _Files(tmp_path / "features", "data", width=192)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    tokens = 2 * memory // (2 * files.width)
    try:
        os.truncate(files.tokens, 2 * files.width * tokens)  # takes no room until it is written
    except OSError:
        pytest.skip("this file system has no sparse files of that size")
    files.counts.write_bytes(np.int64(tokens).tobytes())
    assert _mapped(tmp_path / "features", files.width)[0].shape == (tokens, files.width)


def train_small(
    state: Path, calls: list, forward_batch: int = 64, fingerprint: str = "data"
) -> None:
    model = small_model()
    model.forward_batch = forward_batch
    train.train(
        model,
        training_set(),
        TrainConfig(features="cached", cached_views=3, epochs=1, batch_size=4),
        seed=5,
        state=TrainingState(state, fingerprint),
        on_epoch=lambda *_: None,
        on_views=lambda *figures: calls.append(figures),
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), (InputError, "No space left on device")),
        (torch.OutOfMemoryError("CUDA out of memory"), (torch.OutOfMemoryError, "CUDA")),
        (KeyboardInterrupt("now"), (KeyboardInterrupt, "now")),
        (RuntimeError("a broken GPU"), (RuntimeError, "broken")),
    ],
)
def test_any_interruption_keeps_the_features_made_so_far(
    error: BaseException,
    expected: tuple[type[BaseException], str],
    small_groups: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append = _Files.append

    def stops(files: _Files, tokens: torch.Tensor, counts: torch.Tensor) -> None:
        if np.fromfile(files.counts, np.int64).size == 24:
            raise error
        append(files, tokens, counts)

    monkeypatch.setattr(_Files, "append", stops)
    with pytest.raises(expected[0], match=expected[1]):
        train_small(tmp_path / "state", [])
    monkeypatch.undo()
    monkeypatch.setattr(cached_features, "GROUP", 2 * VIEWS)
    figures: list = []
    train_small(tmp_path / "state", figures, forward_batch=2)
    assert figures[0] == (30, 48, 24)
    assert not train.features_beside(tmp_path / "state").exists()


@pytest.mark.parametrize(("fingerprint", "made"), [("data", False), ("other data", True)])
def test_running_out_of_memory_in_training_keeps_the_cached_features(
    fingerprint: str, made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the same data, that is."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(train, "step", full)
    with pytest.raises(torch.OutOfMemoryError):
        train_small(tmp_path / "state", [])
    monkeypatch.undo()
    figures: list = []
    train_small(tmp_path / "state", figures, fingerprint=fingerprint)
    assert figures == ([(48, 48, 0)] if made else [])


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_the_file_is_released_before_it_is_removed(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some systems remove no file that is mapped."""
    left: list[int] = []
    made: list[CachedFeatures] = []
    class_tokens, remove = CachedFeatures.class_tokens, CachedFeatures.remove

    def watched(features: CachedFeatures, *given: Any) -> torch.Tensor:
        made.append(features)
        if ends == "badly":
            raise InputError("enough")
        return class_tokens(features, *given)

    def watched_remove(folder: Path) -> None:
        left.extend(features.tokens.numel() for features in made[-1:])
        remove(folder)

    monkeypatch.setattr(CachedFeatures, "class_tokens", watched)
    monkeypatch.setattr(CachedFeatures, "remove", staticmethod(watched_remove))
    with nullcontext() if ends == "well" else pytest.raises(InputError, match="enough"):
        train_small(tmp_path / "state", [])
    assert left == [0]
