"""Settings of all tests, and the fixtures that several files share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from anomalyncd.cli.settings import entry
from tests.helpers.settings import PHOTOGRAPHS, SMALL

# A shared machine is no clock; and a test that must find its case finds it within 40.
settings.register_profile("default", deadline=None, max_examples=40)
settings.load_profile("default")
os.environ["WANDB_MODE"] = "offline"


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> None:
    """A command's status counts the failures and sweeps of its whole process."""
    entry.failures.clear()
    entry.sweeps.clear()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def overrides(tmp_path: Path, shared_cache: Path) -> list[str]:
    return [*SMALL, f"output_root={tmp_path / 'out'}", f"cache_root={shared_cache}"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A plain folder of images, no labels, with odd names, and maps beside it."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(PHOTOGRAPHS):
        image = rng.integers(80, 100, (48, 64, 3)).astype(np.uint8)
        scores = np.full((48, 64), 10, np.uint8)
        if i:
            image[10:30, 8 * i : 8 * i + 18] = 250 - 40 * (i % 3)
            scores[10:30, 8 * i : 8 * i + 18] = 200 + i
        for kind, pixels in (("photos", image), ("maps", scores)):
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path
