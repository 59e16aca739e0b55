"""Saved epochs: they are restored completely, cost little, and damaged ones are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from anomalyncd.errors import InputError
from anomalyncd.models.model import Model
from anomalyncd.training import state
from anomalyncd.training.state import TrainingState
from tests.helpers.tampering import tampered
from tests.helpers.training import small_model


def state_of(path: Path) -> tuple[Model, torch.optim.SGD, TrainingState]:
    network = small_model()
    optimizer = torch.optim.SGD([p for _, p in network.trainable()], lr=0.1, momentum=0.9)
    return network, optimizer, TrainingState(path, "of the same data")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("history", value) for value in (..., 5, [[]] * 9, [["a"]], [[1.0], [1.0, 2.0]], {})),
        *(("history", value) for value in ([[float("nan")] * 7], [1.0])),
        *(("history", [[1.0] * length]) for length in (1, 5, 6, 8)),  # 5 terms and 2 heads
        *(("epochs_done", value) for value in (..., "1", -1, 0, 1.5, True)),
        *(("fingerprint", value) for value in (..., 5)),
        *(("precision", value) for value in (5, "float8")),
        *(("from_the_future", 1), ("nothing done", 0)),
        *(("weights", v) for v in (torch.int32, torch.float16, torch.float64, "nan", "momentum")),
        *(("weights", v) for v in ("missing", "momentum missing", "left over")),
    ],
)
def test_a_tampered_training_state_is_one_line(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "training.safetensors"
    network, optimizer, kept = state_of(path)
    kept.save(network, optimizer, 1, [[1.0] * 7])
    with safe_open(path, "pt") as file:
        header, tensors = json.loads(file.metadata()["anomalyncd"]), load_file(path)
    if value == "left over":
        tensors["heads.of_another_network"] = torch.zeros(1)
    elif key == "nothing done":
        header |= {"epochs_done": 0, "history": []}
    elif key == "weights" and "missing" in str(value):
        del tensors["momentum:" * ("momentum" in value) + "heads.prototypes"]
    elif key == "weights":
        name = "momentum:heads.prototypes" if value == "momentum" else "heads.prototypes"
        odd = tensors[name] * torch.nan if isinstance(value, str) else tensors[name].to(value)
        tensors[name] = odd
    else:
        header = tampered(header, key, value)
    save_file(tensors, path, metadata={"anomalyncd": json.dumps(header)})
    with pytest.raises(InputError, match=r"training\.safetensors: .*; rerun=true archives"):
        kept.load(network, optimizer)


class Clock:
    """A clock that only the test advances."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_keeping_epochs_costs_a_twentieth_of_training_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(state, "time", clock)
    network = small_model()
    optimizer = torch.optim.SGD([p for _, p in network.trainable()], lr=0.1, momentum=0.9)
    kept = TrainingState(tmp_path / "state.safetensors", "data")
    assert kept.is_due, "the first epoch is kept at once"
    save = state.save_tensors

    def slow_save(*arguments: Any) -> None:
        save(*arguments)
        clock.now += 2

    monkeypatch.setattr(state, "save_tensors", slow_save)
    kept.save(network, optimizer, 1, [[1.0]])
    for seconds, due in ((0, False), (37, False), (1, True)):
        clock.now += seconds
        assert kept.is_due == due


def test_a_training_state_is_restored_with_its_momenta(tmp_path: Path) -> None:
    network = small_model()
    optimizer = torch.optim.SGD([p for _, p in network.trainable()], lr=0.1, momentum=0.9)
    for name, p in network.trainable():
        p.grad = torch.full_like(p, float(len(name)))
    optimizer.step()
    path, history = tmp_path / "state.safetensors", [[1.0] * 7, [], [0.5] * 7]
    saved = TrainingState(path, "data")
    saved.save(network, optimizer, 3, history)
    assert (saved.epochs_done, saved.resumed_after) == (3, 0)

    fresh = small_model()
    resumed = torch.optim.SGD([p for _, p in fresh.trainable()], lr=0.1, momentum=0.9)
    kept = TrainingState(path, "data")
    assert kept.load(fresh, resumed) == history
    assert (kept.epochs_done, kept.resumed_after) == (3, 3)
    for (name, a), (_, b) in zip(network.trainable(), fresh.trainable(), strict=True):
        assert torch.equal(a, b), name
        momentum = resumed.state[b]["momentum_buffer"]
        assert torch.equal(momentum, torch.full_like(b, float(len(name)))), name


def test_without_a_step_the_momenta_are_those_of_a_first_one(tmp_path: Path) -> None:
    network, optimizer, kept = state_of(tmp_path / "state.safetensors")
    kept.save(network, optimizer, 1, [[]])
    assert kept.load(network, optimizer) == [[]]
    momenta = [optimizer.state[p]["momentum_buffer"] for _, p in network.trainable()]
    assert momenta and not any(momentum.any() for momentum in momenta)


def test_a_training_state_of_other_data_is_not_used(tmp_path: Path) -> None:
    network = small_model()
    optimizer = torch.optim.SGD([p for _, p in network.trainable()], lr=0.1, momentum=0.9)
    path = tmp_path / "state.safetensors"
    TrainingState(path, "data").save(network, optimizer, 2, [[1.0], [0.5]])
    before = {name: p.detach().clone() for name, p in network.trainable()}
    with torch.no_grad():
        for _, p in network.trainable():
            p.add_(1)
    other = TrainingState(path, "other data")
    assert other.load(network, optimizer) == []
    assert (other.epochs_done, other.resumed_after) == (0, 0)
    assert all(not torch.equal(before[name], p) for name, p in network.trainable())
    other.discard()
    assert not path.exists()
    other.discard()  # twice is no error
