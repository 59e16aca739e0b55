"""The package as a notebook uses it: names, light import, configurations, and classified images."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import anomalyncd
from anomalyncd.api import _override
from anomalyncd.cli.discover import overrides_for
from anomalyncd.cli.discover.check import Request
from anomalyncd.data.images import read_image
from anomalyncd.errors import InputError
from anomalyncd.prediction import classifier as classifying
from anomalyncd.storage.run_folder import RunFolder
from tests.helpers.runs import folder_overrides, run, table
from tests.helpers.settings import PHOTOGRAPHS

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "timm", "hydra", "omegaconf", "numpy", "cv2", "PIL", "scipy", "kornia"}


@pytest.mark.parametrize("statement", ["import anomalyncd", "from anomalyncd.cli import main"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(*({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_every_public_name_is_there() -> None:
    for name in anomalyncd.__all__:
        assert getattr(anomalyncd, name).__class__, name
        assert name in dir(anomalyncd)
    assert anomalyncd.__version__ == version("anomalyncd")
    with pytest.raises(AttributeError, match="no attribute 'discovr'"):
        _ = anomalyncd.discovr


def test_type_checkers_see_all_public_names() -> None:
    """The names are listed twice: for type checkers, and for the running code."""
    tree = ast.parse(Path(anomalyncd.__file__).read_text(encoding="utf-8"))
    imports = [
        (alias.name, f"{node.module}")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    public = {name: f"anomalyncd.{module}" for name, module in anomalyncd._PUBLIC.items()}
    assert dict(imports) == public and len(imports) == len(public)


def test_a_configuration_is_composed_as_on_the_command_line() -> None:
    config = anomalyncd.compose(
        "train.epochs=10", "dataset=folder", "dataset.path=p", "detector=musc"
    )
    assert isinstance(config, anomalyncd.Config)
    assert config.train.epochs == 10
    assert (config.dataset.kind, config.category, config.detector.kind) == ("folder", "p", "musc")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epohcs=3", "did you mean train.epochs"),
        ("train.epochs=many", "train.epochs=many: "),
        ("train.epochs=0", "train.epochs=0: expected"),
        ("dataset=mvtecc", "did you mean mvtec"),
        ("dataset=3", "dataset=3: expected the name of an option"),
        ("dataset=folder", "not set: "),
        ("fit.epochs=3", "is now called train.epochs"),
        ("ablation=mask_on", "ablation=mask_on: is now called ablation=masked_queries"),
    ],
)
def test_an_invalid_setting_is_an_input_error_of_one_line(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        anomalyncd.compose(override)
    assert "\n" not in str(raised.value)


def test_a_configuration_built_in_python_is_the_one_composed(tmp_path: Path) -> None:
    composed = anomalyncd.compose(
        *("dataset=folder", "dataset.path=photographs", "detector=files", "detector.path=maps"),
        *("backbone=embedded", "tracker=none", "novel_classes=5", "train.learning_rate=1"),
    )
    page = (ROOT / "docs" / "howto" / "notebook.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^(config = anomalyncd\.Config\(.*?^\))$", page, re.M | re.S)
    names: dict[str, Any] = {"anomalyncd": anomalyncd}
    exec(code, names)
    names["config"].train = anomalyncd.TrainConfig(learning_rate=1)
    assert names["config"] == composed
    assert RunFolder.of(names["config"]).root == RunFolder.of(composed).root
    assert anomalyncd.FolderConfig(path=tmp_path).path == str(tmp_path)


NAMES = [
    "a,b",
    "it's (new)",
    "back\\slash",
    "end\\",
    "\\'",
    "\\\\' x",
    "[1]",
    "{a:1}",
    "null",
    "=",
    "é",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_value_reaches_its_setting_as_it_is(name: str) -> None:
    found = anomalyncd.compose(*overrides_for(Request(name, name, 3))).dataset
    assert isinstance(found, anomalyncd.FolderConfig) and found.good == name
    assert isinstance(found, anomalyncd.FolderConfig) and found.path == name
    options = {"depth": 2, "rate": 1e-5, "on": True, "none": None, "path": name, "l": [1, name]}
    given = {
        "detector": "custom",
        "detector__target": "a:b",
        "detector__options": {**options, "x y": {"z": 1}},
        "output_root": Path(name),
    }
    config = anomalyncd.compose(*(_override(k.replace("__", "."), v) for k, v in given.items()))
    assert config.detector.options == given["detector__options"]  # type: ignore[attr-defined]
    assert config.output_root == str(Path(name))


def test_composing_inside_a_hydra_application_leaves_it_unchanged() -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        assert anomalyncd.compose("train.epochs=10").train.epochs == 10
        with pytest.raises(InputError):
            anomalyncd.compose("no=1")
        assert GlobalHydra.instance().hydra is mine is not None
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: anomalyncd.Config(), "Config.dataset is not set; give dataset="),
        (lambda: anomalyncd.Config(dataset=anomalyncd.DemoConfig()), "Config.base is not set"),
        (lambda: anomalyncd.Config(dataset="demo"), r"dataset: expected DatasetConfig\(…\), found"),
        (lambda: anomalyncd.FolderConfig(), "FolderConfig.path is not set; give path="),
        (lambda: anomalyncd.TrainConfig(epochs="5"), "epochs: expected a whole number, found '5'"),
        (lambda: anomalyncd.TrainConfig(epochs=5.5), "expected a whole number, found 5.5"),
        (lambda: anomalyncd.TrainConfig(epochs=True), "expected a whole number, found True"),
        (lambda: anomalyncd.MebinConfig(search_range=[1.0, "2"]), "expected a number, found '2'"),
    ],
)
def test_a_configuration_built_in_python_is_checked(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_a_run_classifies_paths_pictures_and_arrays_as_it_did_its_own_images(
    photographs: Path, overrides: list[str]
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=3", "train.epochs=1"]
    folder = run(settings).folder
    trained = {row["id"]: row for row in table(folder / "predictions.csv")}
    boxes = [row["id"] for row in table(folder / "regions.csv")]
    paths = [photographs / "photos" / f"{name}.png" for name in PHOTOGRAPHS]
    images: list[Any] = [
        *(paths[0], str(paths[1]), Image.open(paths[2]), Image.open(paths[3]).convert("RGBA")),
        *(np.asarray(Image.open(path)) for path in paths[4:]),
    ]
    maps = [np.asarray(Image.open(photographs / "maps" / path.name)) for path in paths]
    classifier = anomalyncd.load(folder, device="cpu")
    found = classifier.predict(images, maps=maps)
    assert len(found) == len(PHOTOGRAPHS)
    for name, prediction in zip(PHOTOGRAPHS, found, strict=True):
        row = trained[name]
        assert prediction.class_id == int(row["class"])
        assert (
            prediction.class_name == row["class_name"] == classifier.class_names[int(row["class"])]
        )
        assert f"{prediction.confidence:.4f}" == row["confidence"]
        assert len(prediction.regions) == int(row["regions"]) == boxes.count(name)
        assert all(0 < region.confidence <= 1 for region in prediction.regions)
    alone = classifier.predict(images[1:2], maps=maps[1:2])
    assert alone[0].class_id == found[1].class_id
    assert alone[0].regions[0].box == found[1].regions[0].box
    stacked = classifier.predict(np.stack(images[4:]), maps=maps[4:])
    assert [p.class_id for p in stacked] == [p.class_id for p in found[4:]]
    assert classifier.predict([], maps=[]) == []
    for given, message in (
        ((images, maps[1:]), "5 maps for 6 images; expected one for each"),
        (
            ([np.zeros((4, 4), np.uint8)], maps[:1]),
            r"images\[0\]: an array of uint8 \(4, 4\); expected uint8",
        ),
        (([np.zeros((4, 4, 3))], maps[:1]), r"array of float64 \(4, 4, 3\); expected uint8"),
        (([3], maps[:1]), r"images\[0\]: of type int; expected a path, PIL or array"),
        ((paths[0], maps[:1]), "was given one image, a .*Path; expected a list of them"),
        ((str(paths[0]), maps[:1]), "one image, a str; expected a list of them"),
        ((images[2], maps[:1]), "one image, a PngImageFile; expected a list of them"),
        ((images[4], maps[:1]), "one image, a ndarray; expected a list of them"),
        (([photographs / "nowhere.png"], maps[:1]), r"nowhere\.png: "),
        ((images, None), r"needs more than the new images; give their maps"),
        ((images, [m.astype(np.float32) for m in maps]), "not yet normalised"),
    ):
        with pytest.raises(InputError, match=message):
            classifier.predict(*given)


def test_a_picture_is_classified_as_its_own_file_would_be(
    photographs: Path,
    overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=3", "train.epochs=1"]
    classifier = anomalyncd.load(run(settings).folder, device="cpu", max_megapixels=1)
    seen: list[Any] = []

    def examine(dataset: anomalyncd.Dataset, *_: Any, **__: Any) -> Any:
        seen.append(pixels(dataset))
        return SimpleNamespace(cropped=SimpleNamespace(regions=None), judged=None)

    monkeypatch.setattr(classifier, "examine", examine)
    monkeypatch.setattr(classifying, "as_predictions", lambda *_: [])

    def pixels(dataset: anomalyncd.Dataset) -> list[Any]:
        return [read_image(sample.image).tolist() for sample in dataset.samples]

    levels = np.arange(0, 65536, 137, np.uint16)[:450].reshape(15, 30)
    grey, palette = Image.fromarray(levels), Image.new("P", (8, 8), 3)
    palette.putpalette(list(range(256)) * 3)
    for i, image in enumerate((grey, palette, Image.new("LA", (8, 8), (9, 0)))):
        path = tmp_path / f"{i}.png"
        image.save(path)
        classifier.predict([path, image], maps=[np.zeros((8, 8), np.uint8)] * 2)
        (found,) = seen
        assert found[0] == found[1]
        seen.clear()
    maps = [np.zeros((8, 8), np.uint8)]
    with pytest.raises(InputError, match=r"images\[0\]: floating-point pixels; expected an 8-"):
        classifier.predict([Image.new("F", (8, 8))], maps=maps)
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8)).save(path)
    (tmp_path / "short.png").write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"short.png: cannot read this image \("):
        classifier.predict([Image.open(tmp_path / "short.png")], maps=maps)
    with pytest.raises(InputError, match=r"2 megapixels; .* set max_megapixels=2$"):
        classifier.predict([np.zeros((1001, 1001, 3), np.uint8)], maps=maps)
    pages = tmp_path / "pages.tif"
    grey.save(pages, save_all=True, append_images=[grey])
    classifier.predict([pages], maps=maps)
    assert "pages.tif: more than one page in a file" in caplog.text


def test_only_a_finished_run_can_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; expected the folder of a finished run"):
        anomalyncd.load(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 1")
    with pytest.raises(InputError, match="the run is not finished; repeat its command"):
        anomalyncd.load(tmp_path)


def test_photographs_are_sorted_into_classes_and_found_again(
    photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"device": "cpu", "quiet": True, "train__epochs": 1, "train__hidden": 16}

    def found() -> anomalyncd.RunResult:
        return anomalyncd.discover(
            photographs / "photos",
            classes=2,
            output_root=tmp_path / "it's mine",
            **settings,
            base="none",
            backbone__image_size=32,
            detector__backbone__image_size=32,
        )

    result = found()
    assert result.folder.is_relative_to(tmp_path / "it's mine") and not result.was_finished
    assert result.metrics["counts"]["images"] == len(PHOTOGRAPHS)
    assert result.metrics["counts"]["novel_classes"] == 2
    assert (result.folder / "report.html").is_file()
    assert found().was_finished
    # the run keeps what its photographs were compared with: one alone can be classified
    image = sorted((photographs / "photos").iterdir())[0]
    assert len(anomalyncd.load(result.folder, device="cpu").predict([image])) == 1
    assert "compares the new images with each other" not in caplog.text
