"""Training: five optimisation steps of the release, sampling, schedules, resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

from anomalyncd.config import TrainConfig
from anomalyncd.errors import InputError
from anomalyncd.inference.classify import classify
from anomalyncd.models.heads import Heads
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.models.model import Model
from anomalyncd.runtime import devices
from anomalyncd.runtime.distributed import ALONE, World
from anomalyncd.training import objective, sampling, schedule, train
from anomalyncd.training.online_features import OnlineFeatures
from anomalyncd.training.state import TrainingState
from anomalyncd.training.training_set import Batch, Pixels, Targets, TrainingSet
from tests.helpers import loss_curve
from tests.helpers.training import CPU, drawn_regions, small_model, training_set

LOSS_CURVES = json.loads(loss_curve.PLACE.read_text())
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "train.npz")
PROJECTOR = {"mlp.0": "projector.0", "mlp.2": "projector.2", "mlp.4": "projector.4"}


def golden_weights(prefix: str) -> dict[str, torch.Tensor]:
    """The recorded weights under our names; the classifiers' directions become one tensor."""
    weights, directions = {}, {}
    for key in GOLDEN:
        if not key.startswith(prefix):
            continue
        part, name = key.removeprefix(prefix)[0], key.removeprefix(prefix)[2:]
        tensor = torch.from_numpy(GOLDEN[key])
        if part == "0":
            weights[f"vit.vit.{name}"] = tensor
        elif name.endswith("weight_v"):
            directions[int(name.split(".")[1])] = tensor
        elif name.startswith("mlp"):
            layer, kind = name.rsplit(".", 1)
            weights[f"heads.{PROJECTOR[layer]}.{kind}"] = tensor
    weights["heads.prototypes"] = torch.stack([directions[i] for i in sorted(directions)])
    return weights


def features_and_batch(model: Model, data: TrainingSet) -> tuple[torch.Tensor, Batch]:
    """Of all regions at once."""
    order = torch.arange(len(data))
    views = OnlineFeatures(model, Pixels(data, CPU), ALONE)
    features = views.class_tokens(order, torch.Generator().manual_seed(0))
    return features, Targets(data, CPU).batch(order)


def test_five_steps_match_the_release() -> None:
    n_base, n_novel = int(GOLDEN["n_base"]), int(GOLDEN["n_novel"])
    vit = VisionTransformer(
        img_size=64, patch_size=8, embed_dim=48, depth=12, num_heads=3, num_classes=0
    )
    half = (0.5, 0.5, 0.5)
    heads = Heads(48, n_base + n_novel, hidden=96, bottleneck=32)
    model = Model(MaskGuidedViT(vit), heads, n_base=n_base, mean=half, std=half)
    model.load_state_dict(golden_weights("w0:"))
    config = TrainConfig()
    optimizer = schedule.make_optimizer(model, config)
    for step in range(5):
        labels = torch.from_numpy(GOLDEN[f"label_{step}"])
        order = torch.cat([(labels >= 0).nonzero(), (labels < 0).nonzero()]).squeeze(1)
        both = torch.cat([order, order + len(labels)])
        x = torch.from_numpy(GOLDEN[f"x_{step}"]).float()[both] / 32
        masks = np.unpackbits(GOLDEN[f"mask_{step}"]).reshape(len(both), 1, 64, 64)
        weight = torch.from_numpy(GOLDEN[f"normal_weight_{step}"])
        batch = Batch(
            labels=labels[order],
            scores=0.5 - weight[: len(weight) // 2],
            n_base=int((labels >= 0).sum()),
        )
        features = model(x, torch.from_numpy(masks).float()[both])
        terms = objective.objective(model, features, batch, config, epoch=0)
        np.testing.assert_allclose(terms.detach(), GOLDEN["history"][step], rtol=1e-5)
        optimizer.zero_grad()
        terms[0].backward()
        optimizer.step()
    trained = dict(model.trainable())
    golden = golden_weights("w5:")
    assert golden.keys() == trained.keys()
    for name, weights in golden.items():
        np.testing.assert_allclose(trained[name].detach(), weights, rtol=1e-5, atol=1e-6)


def test_without_base_the_loss_is_that_of_the_novel_regions() -> None:
    model, data = small_model(n_base=0), TrainingSet(drawn_regions(6, 0))
    features, batch = features_and_batch(model, data)
    terms = objective.objective(model, features, batch, TrainConfig(), 0)
    figures = dict(zip(objective.TERMS, terms.tolist(), strict=False))
    assert figures["total"] == pytest.approx(figures["contrast"] + figures["novel_class"])
    assert figures["base_class"] == figures["base_contrast"] == 0


def test_correction_can_be_left_out() -> None:
    model, data = small_model(), training_set()
    features, batch = features_and_batch(model, data)
    with_it = objective.objective(model, features, batch, TrainConfig(), 0)
    without = objective.objective(
        model, features, batch, TrainConfig(pseudo_label_correction=False), 0
    )
    assert with_it[2] != without[2] and with_it[4] == without[4]


@given(st.integers(1, 50), st.integers(1, 50), st.integers(2, 40), st.integers(0, 2**31))
def test_batches_hold_both_kinds(n_base: int, n_novel: int, size: int, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    batches = list(sampling.draw_batches(n_base, n_novel, size, stream))
    assert sum(map(len, batches)) <= n_base + n_novel
    for batch in batches:
        assert (batch < n_base).any() and (batch >= n_base).any() and len(batch) <= size


@given(st.integers(1, 90), st.integers(2, 40), st.integers(0, 2**31))
def test_without_base_regions_an_epoch_draws_as_many_as_there_are(
    n_novel: int, size: int, seed: int
) -> None:
    stream = torch.Generator().manual_seed(seed)
    batches = [len(batch) for batch in sampling.draw_batches(0, n_novel, size, stream)]
    assert sum(batches) == n_novel
    assert all(length == size for length in batches[:-1]) and batches[-1] <= size


def test_base_and_novel_have_equal_mass() -> None:
    stream = torch.Generator().manual_seed(0)
    drawn = torch.cat(list(sampling.draw_batches(9000, 1000, 10_000, stream)))
    assert len(drawn) == 10_000
    assert (drawn < 9000).float().mean() == pytest.approx(0.5, abs=0.02)


def test_a_batch_pairs_regions_with_their_labels_and_scores() -> None:
    data = training_set()
    assert data.base is not None and data.base_targets is not None
    order = torch.tensor([3, 3, 8, 15])
    batch, (images, masks) = Targets(data, CPU).batch(order), Pixels(data, CPU).rows(order)
    assert batch.n_base == 2 and batch.labels.tolist() == [1, 1, -1, -1]
    np.testing.assert_array_equal(images[:2], data.base.images[[3, 3]])
    np.testing.assert_array_equal(masks[2:], data.novel.masks[[1, 8]])
    np.testing.assert_allclose(batch.scores, data.novel.scores[[1, 8]])


def test_learning_rate_falls_along_a_cosine() -> None:
    rates = [schedule.learning_rate(TrainConfig(), epoch) for epoch in range(51)]
    assert rates[0] == pytest.approx(0.003) and rates[50] == pytest.approx(3e-6)
    assert rates[25] == pytest.approx((0.003 + 3e-6) / 2)
    assert all(a > b for a, b in pairwise(rates))


def test_weight_decay_leaves_vectors_alone() -> None:
    model = small_model()
    matrices, vectors = schedule.make_optimizer(model, TrainConfig()).param_groups
    assert all(p.ndim > 1 for p in matrices["params"]) and matrices["weight_decay"] == 5e-5
    assert all(p.ndim == 1 for p in vectors["params"]) and vectors["weight_decay"] == 0
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.trainable()))


@pytest.mark.parametrize("features", loss_curve.SOURCES)
def test_the_losses_of_a_whole_training_are_those_recorded(features: str, tmp_path: Path) -> None:
    """Other kernels move views by a grey level here and there, and losses by 3e-5 at most."""
    found = loss_curve.loss_curve(features, tmp_path)
    np.testing.assert_allclose(found, LOSS_CURVES[features], rtol=1e-3)


def train_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> list[dict]:
    """What each step of a training of three epochs is given."""
    given: list[dict] = []
    step, class_tokens = train.step, OnlineFeatures.class_tokens

    def watched_views(views: OnlineFeatures, order: torch.Tensor, stream: torch.Generator) -> Any:
        given.append({"order": order.tolist(), "stream": stream.get_state().tolist()})
        return class_tokens(views, order, stream)

    def watched_step(*arguments: Any) -> torch.Tensor:
        _, optimizer, _, _, _, epoch, _ = arguments
        rates = {group["lr"] for group in optimizer.param_groups}
        given[-1] |= {"epoch": epoch, "rates": rates}
        terms = step(*arguments)
        assert not terms.requires_grad, "or an epoch's graphs would be kept"
        return terms

    monkeypatch.setattr(OnlineFeatures, "class_tokens", watched_views)
    monkeypatch.setattr(train, "step", watched_step)
    train.train(
        *(small_model(), training_set(), TrainConfig(epochs=3, batch_size=8)),
        seed=seed,
        state=TrainingState(tmp_path / f"state-{seed}", "data"),
        on_epoch=lambda *_: None,
    )
    monkeypatch.undo()
    return given


def test_every_epoch_has_its_own_rate_batches_and_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = train_watched(tmp_path, monkeypatch, seed=1)
    assert {step["epoch"] for step in given} == {0, 1, 2}
    for step in given:
        assert step["rates"] == {schedule.learning_rate(TrainConfig(epochs=3), step["epoch"])}
        assert step["order"] == sorted(step["order"])
    first = [next(step for step in given if step["epoch"] == epoch) for epoch in range(3)]
    other = train_watched(tmp_path, monkeypatch, seed=2)[0]
    for a, b in combinations([*first, other], 2):
        assert a["order"] != b["order"]
        assert a["stream"] != b["stream"]
    for name in ("state-1", "state-2"):
        (tmp_path / name).unlink()
    assert train_watched(tmp_path, monkeypatch, seed=1) == given


@pytest.mark.parametrize("features", ["online", "cached"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(features: str, tmp_path: Path) -> None:
    config = TrainConfig(features=features, cached_views=3, epochs=4, batch_size=8)
    made: list = []

    def trained(name: str, stop_after: int | None = None) -> tuple[Model, list]:
        model = small_model()
        state = TrainingState(tmp_path / name, "data")

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            if epoch + 1 == stop_after:
                raise KeyboardInterrupt

        return model, train.train(
            *(model, training_set(), config),
            seed=1,
            state=state,
            on_epoch=on_epoch,
            on_views=lambda *figures: made.append(figures),
        )

    whole, history = trained("whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        trained("broken.safetensors", stop_after=2)
    assert bool(made) == (features == "cached"), "and the caller hears how far the views are"
    made.clear()
    assert (tmp_path / "broken.safetensors").exists(), "an epoch before the last is kept"
    resumed, resumed_history = trained("broken.safetensors")
    assert resumed_history == history
    assert not made, "views are not made twice"
    for (name, a), (_, b) in zip(whole.trainable(), resumed.trainable(), strict=True):
        assert torch.equal(a, b), name
    left = {path.suffix for path in tmp_path.iterdir()}
    assert left == {".safetensors"}, "cached features go when training ends"


def test_a_resumed_run_keeps_its_precision_on_another_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(features="cached", cached_views=2, epochs=2, batch_size=8)

    def trained(native: torch.dtype, stop: bool) -> Model:
        monkeypatch.setattr(devices, "precision", lambda name, device: native)
        model, state = small_model(), TrainingState(tmp_path / "state.safetensors", "data")

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            if stop:
                raise KeyboardInterrupt

        train.train(model, training_set(), config, seed=1, state=state, on_epoch=on_epoch)
        return model

    with pytest.raises(KeyboardInterrupt):
        trained(torch.bfloat16, stop=True)
    assert trained(torch.float32, stop=False).vit.precision == torch.bfloat16


def test_a_run_killed_after_its_last_epoch_needs_no_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> list:
        state = TrainingState(tmp_path / "state", "data")
        config = TrainConfig(epochs=2, batch_size=8)
        return train.train(
            small_model(), training_set(), config, seed=1, state=state, on_epoch=lambda *_: None
        )

    history = trained()
    monkeypatch.delattr(train, "OnlineFeatures")
    left = train.features_beside(tmp_path / "state")
    left.mkdir()
    assert trained() == history
    assert not left.exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("features", ["online", "cached"])
def test_training_learns_the_base_classes(features: str, precision: str, tmp_path: Path) -> None:
    data = training_set()
    assert data.base is not None
    data.base.images[1::2] //= 4  # one class is darker than the other
    model = small_model()
    history = train.train(
        model,
        data,
        TrainConfig(
            features=features, precision=precision, epochs=12, batch_size=8, learning_rate=0.01
        ),
        seed=0,
        state=TrainingState(tmp_path / "state", "data"),
        on_epoch=lambda *_: None,
    )
    first, last = (
        dict(zip(objective.TERMS, epoch, strict=False)) for epoch in (history[0], history[-1])
    )
    assert last["base_class"] < 0.8 * first["base_class"]
    assert model.vit.precision == getattr(torch, precision)


class WithoutGradients(World):
    """Stands for other processes whose gradients cancel this one's."""

    def average_gradients(self, model: torch.nn.Module) -> None:
        for p in model.parameters():
            p.grad = None if p.grad is None else torch.zeros_like(p)


def test_a_step_takes_the_gradients_that_all_processes_agree_on() -> None:
    model, data = small_model(), training_set()
    features, batch = features_and_batch(model, data)
    config = TrainConfig(weight_decay=0.0)
    optimizer = schedule.make_optimizer(model, config)
    before = {name: p.detach().clone() for name, p in model.trainable()}
    terms = train.step(model, optimizer, features, batch, config, 0, WithoutGradients())
    assert terms.isfinite().all() and not terms.requires_grad
    assert all(torch.equal(before[name], p) for name, p in model.trainable())


@pytest.mark.parametrize("features", ["online", "cached"])
def test_a_broken_loss_names_its_step(features: str, tmp_path: Path) -> None:
    """Another try would begin with the same: features are not kept for it."""
    model = small_model()
    with torch.no_grad():
        model.heads.prototypes[0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="epoch 1, step 1"):
        train.train(
            model,
            training_set(),
            TrainConfig(epochs=1, batch_size=8, features=features, cached_views=2),
            seed=0,
            state=TrainingState(tmp_path / "state", "data"),
            on_epoch=lambda *_: None,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("features", ["online", "cached"])
def test_regions_without_a_batch_of_both_kinds_are_reported_each_time(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the second call, which finds all epochs done."""
    monkeypatch.setattr(train, "draw_batches", lambda *_: iter(()))
    config = TrainConfig(epochs=2, features=features, cached_views=2)
    for _ in range(2):
        with pytest.raises(InputError, match="7 base and 9 novel regions gave no batch of both"):
            train.train(
                *(small_model(), training_set(), config),
                seed=0,
                state=TrainingState(tmp_path / "state", "data"),
                on_epoch=lambda *_: None,
            )


def test_the_head_with_the_lowest_last_novel_loss_is_used() -> None:
    first, last = [0.0] * 5 + [1.0, 2.0, 3.0], [0.0] * 5 + [3.0, 1.5, 2.0]
    assert train.best_head([first, last]) == 1


def test_an_epoch_without_a_batch_of_both_kinds_has_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(n_base: int, *_: object) -> Iterator[torch.Tensor]:
        if (number := next(epochs)) != 1:
            yield torch.tensor([0, 1, n_base, n_base + number])

    epochs = iter(range(3))
    monkeypatch.setattr(train, "draw_batches", batches)
    data, seen = training_set(), []
    history = train.train(
        small_model(),
        data,
        TrainConfig(epochs=3, batch_size=4),
        seed=1,
        state=TrainingState(tmp_path / "state", "data"),
        on_epoch=lambda epoch, figures: seen.append((epoch, len(figures))),
    )
    assert [len(row) for row in history] == [7, 0, 7]
    assert seen == [(0, 5), (1, 0), (2, 5)]
    assert train.last_means([*history, []]) == history[-1]
    assert train.best_head([*history, []]) == train.best_head(history)


@pytest.mark.parametrize("learning_rate", [1e20, 1e30, 1e38])
def test_a_last_step_that_breaks_the_weights_is_reported(
    tmp_path: Path, learning_rate: float
) -> None:
    """The loss of every step is finite: it was computed before the weights broke."""
    model, data = small_model(), training_set()
    config = TrainConfig(epochs=1, batch_size=64, heads=2)
    config.learning_rate = learning_rate  # the largest is beyond what the setting takes
    state = TrainingState(tmp_path / "state.safetensors", "of these data")

    def train_and_classify() -> None:
        train.train(model, data, config, seed=0, state=state, on_epoch=lambda *_: None)
        classify(model, data.novel)

    with pytest.raises(InputError, match=r"lower train\.learning_rate"):
        train_and_classify()


@pytest.mark.parametrize("part", ["weight", "momentum"])
def test_weights_that_are_not_finite_are_never_kept(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = small_model(), training_set()
    state = TrainingState(tmp_path / "state.safetensors", "of these data")
    step = torch.optim.SGD.step

    def broken(optimizer: torch.optim.SGD) -> None:
        step(optimizer)
        p = model.heads.prototypes
        tensor = p.data if part == "weight" else optimizer.state[p]["momentum_buffer"]
        tensor[0, 0, 0] = torch.inf

    monkeypatch.setattr(torch.optim.SGD, "step", broken)
    config = TrainConfig(epochs=1, batch_size=64, heads=2)
    with pytest.raises(InputError, match=r"heads\.prototypes is not finite after epoch 1; lower"):
        train.train(model, data, config, seed=0, state=state, on_epoch=lambda *_: None)
    assert not state.path.exists()


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_probabilities_that_are_not_finite_are_reported(broken: float) -> None:
    model, regions = small_model(), drawn_regions(3, 0)
    assert np.isfinite(classify(model, regions).probabilities).all()
    with torch.no_grad():
        model.heads.prototypes[1, -1] = broken
    with pytest.raises(InputError, match="3 of 3 regions have no finite probabilities"):
        classify(model, regions)
