"""The settings of a run reach the places that look at its inputs, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from anomalyncd import anomaly_maps, prediction, run
from anomalyncd.cli import entry
from anomalyncd.config import TrainConfig
from anomalyncd.errors import InputError
from anomalyncd.inputs import find_inputs
from anomalyncd.models import checkpoint

CONFIGS = Path(__file__).parent.parent / "configs"
entry.register_schemas()


def composed(*overrides: str, name: str = "train") -> Any:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return entry.validated(compose(name, list(overrides)))


def draw(path: Path, height: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, 1001), np.uint8)).save(path)


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """A folder of images with maps and a base set, all below a megapixel."""
    for name in ("images/good/0.png", "images/good/1.png", "images/dent/0.png"):
        draw(tmp_path / name)
        draw(tmp_path / name.replace("images", "maps"))
    for name in ("base/images/cut/0.png", "base/masks/cut/0.png"):
        draw(tmp_path / name)
    return [
        *("dataset=folder", f"dataset.path={tmp_path}/images", "novel_classes=2"),
        *("detector=files", f"detector.path={tmp_path}/maps", "backbone=vit_tiny_untrained"),
        *("base=folder", f"base.path={tmp_path}/base", "max_megapixels=1", "tracker=none"),
        *(f"output_root={tmp_path}/out", "device=cpu", "quiet=true"),
    ]


@pytest.mark.parametrize(
    "large", ["images/good/1.png", "base/images/cut/0.png", "base/masks/cut/0.png"]
)
def test_a_run_with_a_file_too_large_does_not_begin(
    large: str, overrides: list[str], tmp_path: Path
) -> None:
    draw(tmp_path / large, height=1000)
    config = composed(*overrides)
    with pytest.raises(InputError, match=rf"{large}: .* 2 megapixels; expected at most 1; .*=2$"):
        run.execute(config)
    assert not list((tmp_path / "out").rglob("config.yaml"))


@pytest.mark.parametrize("large", ["images/good/1.png", "maps/dent/0.png"])
def test_no_map_is_made_with_a_file_too_large(
    large: str, overrides: list[str], tmp_path: Path
) -> None:
    draw(tmp_path / large, height=1000)
    config = composed(*overrides)
    with pytest.raises(InputError, match=rf"{large}: .* 2 megapixels; expected at most 1;"):
        anomaly_maps.make_maps(config)


def test_what_is_left_out_is_told_where_maps_are_made(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "images" / "good" / "2.gif").touch()
    anomaly_maps.make_maps(composed(*overrides, "quiet=false"))
    assert f"{tmp_path}/images: 1 .gif file not read; convert" in capsys.readouterr().err


@pytest.mark.parametrize("large", ["images/good/1.png", "maps/dent/0.png"])
def test_nothing_is_predicted_with_a_file_too_large(
    large: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch()
    trained = MagicMock(), SimpleNamespace(train=TrainConfig(), raw_range=None)
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: trained)
    draw(tmp_path / large, height=1000)
    config = composed(
        *(f"run={tmp_path}", f"path={tmp_path}/images", "device=cpu", "max_megapixels=1"),
        f"detector.path={tmp_path}/maps",
        name="predict",
    )
    with pytest.raises(InputError, match=rf"{large}: .* 2 megapixels; expected at most 1;"):
        prediction.predict(config)
    assert not (tmp_path / "predictions").exists()


def test_more_outputs_than_memory_holds_are_refused_before_anything_starts(
    overrides: list[str],
) -> None:
    config = composed(*overrides, "train.heads=1000", "novel_classes=10000")
    with pytest.raises(InputError, match="10001 classes each: expected at most 1,000,000 outputs"):
        find_inputs(config)
