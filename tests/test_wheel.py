"""The installed package: built as a wheel, it runs and predicts outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = [
    *("dataset.train=1", "dataset.good=4", "dataset.per_class=3", "dataset.combined=0"),
    *("detector=simulated", "base.per_class=3", "backbone.image_size=32", "train.epochs=1"),
    *("train.cached_views=2", "train.hidden=16", "train.heads=2", "quiet=true", "device=cpu"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked outside the repository."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--no-build-isolation"]
    subprocess.run([*build, "--out-dir", str(out), str(ROOT)], check=True, cwd=out)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def anomalyncd(site: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "anomalyncd", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_configs_weights_and_types(site: Path) -> None:
    package = site / "anomalyncd"
    names = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    assert {
        path.relative_to(package / "configs") for path in package.rglob("configs/**/*.yaml")
    } == names
    page = ("templates/base.html.j2", "static/htmx.min.js", "static/htmx.LICENSE")
    for name in (
        *("py.typed", "models/embedded.safetensors", "results/report.html.j2"),
        *(f"review/page/{name}" for name in page),
        *(f"serving/page/{name}" for name in ("index.html", "docs.html", "static/index.js")),
    ):
        assert (package / name).is_file(), name
    base_set = Path("data") / "base_set"
    kept = {path.relative_to(package) for path in (package / base_set).rglob("*.*")}
    assert len(kept) == 640
    assert kept == {
        path.relative_to(ROOT / "anomalyncd")
        for path in (ROOT / "anomalyncd" / base_set).rglob("*.*")
    }
    assert not (site / "tests").exists()


def test_the_wheel_runs_the_demo_and_predicts(site: Path, tmp_path: Path) -> None:
    shown = anomalyncd(site, tmp_path, "run", *SMALL)
    report = tmp_path / shown.splitlines()[-1].removeprefix("Report: ")
    assert report.is_file()
    assert not (tmp_path / "wandb").exists() and not list(tmp_path.rglob("wandb"))
    (photographs,) = (tmp_path / "outputs" / "cache").glob("demo-*/test")
    (maps,) = (tmp_path / "outputs" / "cache").glob("maps-*")
    known = ["category=demo", f"detector.path={maps}"]
    shown = anomalyncd(site, tmp_path, "predict", str(report.parent), str(photographs), *known)
    folder = tmp_path / shown.splitlines()[-1].removeprefix("Predictions: ")
    images = len(list(photographs.rglob("*.png")))
    assert len((folder / "predictions.csv").read_text().splitlines()) == 1 + images


def test_an_import_is_light(site: Path, tmp_path: Path) -> None:
    code = (
        "import sys, anomalyncd; heavy = {'torch', 'timm', 'hydra', 'cv2', 'numpy'};"
        "assert not heavy & sys.modules.keys(); print(anomalyncd.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(site)
