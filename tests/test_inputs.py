"""The settings for inputs are used everywhere, before anything is computed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from anomalyncd import anomaly_maps, detectors, inputs, run
from anomalyncd.cli.settings import entry
from anomalyncd.config import TrainConfig
from anomalyncd.errors import InputError
from anomalyncd.inputs import find_inputs
from anomalyncd.models import checkpoint
from anomalyncd.prediction import predict as prediction
from anomalyncd.storage import identity
from anomalyncd.storage.run_folder import STATE, RunFolder
from anomalyncd.types import Dataset, Labels, Sample

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
def test_a_run_with_a_too_large_file_does_not_start(
    large: str, overrides: list[str], tmp_path: Path
) -> None:
    draw(tmp_path / large, height=1000)
    config = composed(*overrides)
    with pytest.raises(InputError, match=rf"{large}: .* 2 megapixels; expected at most 1; .*=2$"):
        run.execute(config)
    assert not list((tmp_path / "out").rglob("config.yaml"))


@pytest.mark.parametrize("large", ["images/good/1.png", "maps/dent/0.png"])
def test_no_map_is_made_with_a_too_large_file(
    large: str, overrides: list[str], tmp_path: Path
) -> None:
    draw(tmp_path / large, height=1000)
    config = composed(*overrides)
    with pytest.raises(InputError, match=rf"{large}: .* 2 megapixels; expected at most 1;"):
        anomaly_maps.make_maps(config)


def test_skipped_files_are_reported_when_maps_are_made(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "images" / "good" / "2.gif").touch()
    anomaly_maps.make_maps(composed(*overrides, "quiet=false"))
    assert f"{tmp_path}/images: 1 .gif file not read; convert" in capsys.readouterr().err


@pytest.mark.parametrize("large", ["images/good/1.png", "maps/dent/0.png"])
def test_nothing_is_predicted_with_a_too_large_file(
    large: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch()
    trained = MagicMock(), SimpleNamespace(train=TrainConfig(), raw_range=None, class_names=())
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: trained)
    draw(tmp_path / large, height=1000)
    for image in (tmp_path / "images").rglob("*.png"):  # others would be classified
        if image.parts[-2:] != Path(large).parts[-2:]:
            image.unlink()
    config = composed(
        *(f"run={tmp_path}", f"path={tmp_path}/images", "device=cpu", "max_megapixels=1"),
        f"detector.path={tmp_path}/maps",
        name="predict",
    )
    with pytest.raises(InputError, match=rf"{large}: .* 2 megapixels; expected at most 1;"):
        prediction.predict(config)
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("images/good/1.png", "1 image changed (good/1)"),
        ("maps/dent/0.png", "1 anomaly map changed (dent/0)"),
        ("base/images/cut/0.png", "1 base image changed (cut/0)"),
        ("base/masks/cut/0.png", "1 base truth mask changed (cut/0)"),
        ("w.safetensors", "1 weights file changed (w.safetensors)"),
    ],
)
def test_whatever_a_run_is_computed_from_is_known_by_its_content(
    changed: str, message: str, overrides: list[str], tmp_path: Path
) -> None:
    """A finished run is computed again if any of it has changed."""
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    config = composed(*overrides, f"backbone.checkpoint={tmp_path}/w.safetensors")
    before = inputs.find_inputs(config).digests
    assert inputs.find_inputs(config).digests == before
    with (tmp_path / changed).open("ab") as file:
        file.write(b"more")
    assert identity.difference(before, inputs.find_inputs(config).digests) == message


def test_a_training_state_beside_a_finished_run_is_removed(overrides: list[str]) -> None:
    """The process was killed between writing the figures and removing it."""
    config = composed(*overrides)
    folder = RunFolder.of(config)
    folder.root.mkdir(parents=True)
    folder.note_inputs(inputs.find_inputs(config).digests)
    figures = {"dataset": "folder", "category": "c", "scores": {}, "detection": {}}
    folder.finish({**figures, "normal_recall": {}, "seed": 1})
    folder.path(STATE).write_bytes(b"large")
    assert run.execute(config).was_finished
    assert not folder.path(STATE).exists()


def labelled(classes: int, images: int = 3) -> Dataset:
    samples = tuple(Sample(f"{i}", Path(f"{i}.png")) for i in range(images))
    names = tuple("abcd"[:classes])
    return Dataset(samples, Labels(names, np.arange(images) % max(classes, 1), normal=0))


def test_the_number_of_classes_is_set_or_counted(overrides: list[str]) -> None:
    counted, fixed = composed(*overrides, "novel_classes=auto"), composed(*overrides)
    assert inputs.novel_classes(counted, labelled(3)) == 3
    assert inputs.novel_classes(counted, labelled(2, images=2)) == 2
    assert inputs.novel_classes(fixed, labelled(3)) == 2
    assert inputs.novel_classes(composed(*overrides, "novel_classes=7"), labelled(3)) == 7
    with pytest.raises(InputError, match="found 1 class folder; expected at least 2"):
        inputs.novel_classes(counted, labelled(1))
    with pytest.raises(InputError, match="is the only image: expected at least 2"):
        inputs.novel_classes(fixed, labelled(1, images=1))


@pytest.mark.parametrize(("shape", "fits"), [((6, 9), True), ((9, 6), False), ((6, 8), False)])
def test_a_truth_mask_has_the_size_of_its_image(
    shape: tuple[int, int], fits: bool, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "m.png")
    samples = (Sample("0", Path("0.png")), Sample("1", Path("1.png"), tmp_path / "m.png"))
    regions: Any = SimpleNamespace(image_sizes=np.array([[5, 5], [6, 9]]))
    with nullcontext() if fits else pytest.raises(InputError, match=r"m\.png: .* of 9 × 6;"):
        inputs.require_masks_fit(Dataset(samples, None), regions)


def test_the_detector_never_sees_labels_when_its_inputs_are_listed(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Dataset] = []

    def listed(config: object, category: str, dataset: Dataset) -> dict[str, Any]:
        given.append(dataset)
        return {"detector": {"its key": "k"}}

    monkeypatch.setattr(detectors, "inputs", listed)
    found = inputs.find_inputs(composed(*overrides))
    assert found.dataset.labels is not None
    assert [dataset.labels for dataset in given] == [None]
    assert found.digests["detector"] == {"its key": "k"}


def test_more_outputs_than_fit_in_memory_are_rejected_at_the_start(
    overrides: list[str],
) -> None:
    config = composed(*overrides, "train.heads=1000", "novel_classes=10000")
    with pytest.raises(InputError, match="10001 classes each: expected at most 1,000,000 outputs"):
        find_inputs(config)
