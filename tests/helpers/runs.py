"""Whole runs of a small drawn product, in this process or as a command."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from anomalyncd.cli.settings import entry
from anomalyncd.config import Config
from anomalyncd.run import RunResult, execute

ROOT = Path(__file__).parents[2]
entry.register_schemas()


def composed(overrides: list[str], name: str = "train") -> Config:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return entry.validated(compose(name, overrides))


def run(overrides: list[str]) -> RunResult:
    return execute(composed(overrides))


def command(*arguments: str, script: str = "train.py") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], capture_output=True, text=True
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def folder_overrides(root: Path, overrides: list[str]) -> list[str]:
    general = [o for o in overrides if not o.startswith(("dataset.", "base.", "detector="))]
    return [
        *("dataset=folder", "backbone=vit_tiny_untrained", f"dataset.path={root / 'photos'}"),
        f"detector.path={root / 'maps'}",
        *general,
    ]
