"""The commands that the README shows, from another folder, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("good", "dent"):
        for i in range(4):
            image = rng.integers(90, 100, (64, 64, 3)).astype(np.uint8)
            if kind == "dent":
                image[20:40, 8 * i : 8 * i + 24] = 240
            path = tmp_path / "photos" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path / "photos"


def command(folder: Path, script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_images_to_maps_to_a_run_to_predictions(photographs: Path, tmp_path: Path) -> None:
    product = ["dataset=folder", "dataset.path=photos"]
    printed = command(
        tmp_path,
        "scripts/anomaly_maps.py",
        *product,
        "detector=musc_descriptors",
        "cache_root=made",
    )
    assert "image AUROC" in printed
    maps = next(line for line in printed.splitlines() if line.startswith("Maps: ")).split()[1]
    assert (tmp_path / maps / "photos" / "dent" / "0.png").is_file()

    printed = command(
        tmp_path,
        "train.py",
        *(
            *product,
            f"detector.path={maps}",
            "backbone=vit_tiny_untrained",
            "backbone.image_size=32",
        ),
        *("train.epochs=1", "train.hidden=16", "tracker=none", "quiet=true"),
    )
    report = tmp_path / printed.splitlines()[-1].removeprefix("Report: ")
    assert report.is_file()
    assert (tmp_path / "outputs" / "folder" / "photos").is_dir()

    printed = command(
        tmp_path,
        "predict.py",
        *(f"run={report.parent}", "path=photos", f"detector.path={maps}"),
    )
    *counts, page, last = printed.splitlines()
    assert page == f"Report: {report.parent / 'predictions' / 'report.html'}"
    assert last == f"Predictions: {report.parent / 'predictions'}"
    predicted = (report.parent / "predictions" / "predictions.csv").read_text().splitlines()[1:]
    numbers = [int(entry.rpartition(": ")[2]) for entry in counts[0].split(", ")]
    assert len(counts) == 1 and sum(numbers) == len(predicted)
    assert numbers == sorted(numbers, reverse=True)
    assert len((report.parent / "predictions" / "predictions.csv").read_text().splitlines()) == 9


def test_benchmark_runs(tmp_path: Path) -> None:
    names = ["mebin", "cropping", "views", "frozen", "frozen_small_8", "step", "step_small_8"]
    names += ["epoch", "run", "category", "prediction", "new_images"]
    options = ["--tiny", "--threads", "1", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmark", *options, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    table = done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    starts = ("mebin", "cropping", "views", "frozen", "step", "epoch", "run", "prediction", "1 new")
    for start in starts:
        assert any(row["name"].startswith(start) for row in rows), table
    for row in rows:
        assert row["ratio"] == pytest.approx(row["plain"] / row["ours"])
        assert row["of_limit"] is None or row["of_limit"] > 0
