"""Several processes train to the same result as one."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.config import TrainConfig
from anomalyncd.runtime.distributed import ALONE, World, started, together
from anomalyncd.training import train
from anomalyncd.training.state import TrainingState
from tests.helpers.training import CPU, small_model, training_set

PROCESSES = 2


@given(st.integers(1, 40), st.integers(1, 6))
def test_shares_cover_every_row_in_order(n: int, size: int) -> None:
    rows = torch.cat([World(rank, size).share(n) for rank in range(size)])
    assert rows[:n].tolist() == list(range(n)) and (rows[n:] == n - 1).all()


def train_small(folder: Path, world: World = ALONE) -> None:
    """Train small models and keep their histories and weights."""
    for features in ("online", "cached"):
        config = TrainConfig(
            features=features, cached_views=5, epochs=2, batch_size=5, learning_rate=0.05
        )
        model = small_model()
        history = train.train(
            model,
            training_set(),
            config,
            seed=1,
            state=TrainingState(folder / f"state-{features}-{world.size}", "data"),
            on_epoch=lambda *_: None,
            world=world,
        )
        weights = torch.cat([p.detach().flatten() for _, p in model.trainable()])
        name = f"{features}-{world.size}-{world.rank}.npz"
        np.savez(folder / name, history=history, weights=weights)


def one_of_several(rank: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        for key, value in {"RANK": rank, "WORLD_SIZE": PROCESSES, "MASTER_PORT": port}.items():
            environment.setenv(key, str(value))
        environment.setenv("MASTER_ADDR", "127.0.0.1")
        world = started()
        with together(world, CPU):
            train_small(folder, world)


def test_several_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    train_small(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_several, (tmp_path, port), nprocs=PROCESSES)
    for features in ("online", "cached"):
        alone = np.load(tmp_path / f"{features}-1-0.npz")
        for rank in range(PROCESSES):
            found = np.load(tmp_path / f"{features}-{PROCESSES}-{rank}.npz")
            np.testing.assert_allclose(found["history"], alone["history"], rtol=1e-5)
            np.testing.assert_allclose(found["weights"], alone["weights"], rtol=1e-4, atol=1e-6)
    assert not list(tmp_path.glob("*.features")), "removed by the first process"
