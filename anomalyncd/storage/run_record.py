"""Read and check the records in run folders and sweeps; no other module reads these files.

They may come from another version or machine, be damaged or be forged. If a file cannot be used,
each function raises InputError, in one line that names the file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from anomalyncd.config import BackboneConfig, DetectorConfig, EvaluationConfig, schemas
from anomalyncd.errors import InputError
from anomalyncd.storage import foreign

CONFIG = "config.yaml"
METRICS = "metrics.json"
PROGRESS = "progress.json"
JOBS = "jobs.json"
RUN_NAME = re.compile(r"seed-\d+")

_JOBS_BYTES = 200_000_000  # enough for a sweep of 50,000 jobs
MAX_REASON = 2_000  # characters kept of the reason why a run failed
_LEVELS = {"image": "", "region": "region_"}  # and the prefix of their scores here
_SCORES = ("nmi", "ari", "f1")
_DETECTION = ("image_auroc", "pixel_auroc", "aupro", "fpr", "fnr")


@dataclass(frozen=True)
class Settings:
    """A run's configuration."""

    values: dict[str, Any]  # `dataset`, `base`, `detector`, `backbone`, `category`, `seed` …
    detector_config: DetectorConfig

    @property
    def detector(self) -> str:
        """The label of its detector."""
        return self.detector_config.label


@dataclass(frozen=True)
class Progress:
    """The last progress note of an unfinished run."""

    at: float = 0.0  # time of the note, in seconds since 1970
    stage: str = ""  # the current stage; the next fields are set during training
    unit: str = ""  # view or epoch
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    failed: str | None = None  # why the run failed
    rerun: bool = False  # whether a rerun has begun, which the next one resumes

    def __post_init__(self) -> None:
        for key in ("at", "done", "total", "seconds_left"):
            if not 0 <= (getattr(self, key) or 0) < 10**10:
                raise InputError(f"{key} is {getattr(self, key)}; expected 0 to 10¹⁰")


@dataclass(frozen=True)
class Metrics:
    """The figures of a finished run that are shown."""

    dataset: str
    category: str
    # nmi, ari, f1; region_nmi, region_ari, region_f1; image_auroc, pixel_auroc, aupro, fpr, fnr;
    # normal_recall: only those that are known
    scores: dict[str, float]
    region_labels: str = "mask"  # what region_* were compared with, see `EvaluationConfig`


@dataclass(frozen=True)
class Listed:
    """A job in a sweep's list: its run, or why it cannot run."""

    folder: Path | None = None
    launcher: str = ""
    settings: Settings | None = None
    overrides: str = ""  # its overrides, if it cannot run
    failed: str = ""


@dataclass(frozen=True)
class _Run:
    folder: str
    launcher: str
    detector: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class _NoRun:
    overrides: str
    failed: str


@dataclass(frozen=True)
class _Needed:
    """The settings of a run that the tables need; a run has more."""

    dataset: dict[str, Any]
    base: dict[str, Any]
    backbone: BackboneConfig
    detector: dict[str, Any]
    category: str
    seed: int
    compat: str = "none"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def read_settings(folder: Path) -> Settings:
    """A run's config.yaml.

    Raises:
        InputError: it cannot be read, or is not the configuration of a run.
    """
    path = folder / CONFIG
    return _read_settings(path, _changed(path))


@cache  # a live table reads every second, and settings are the slowest part
def _read_settings(path: Path, changed: int) -> Settings:
    return _settings(foreign.read_yaml(path), str(path))


def read_metrics(path: Path) -> tuple[Metrics, dict[str, Any]]:
    """A finished run's figures: those that are shown, checked, and the whole content.

    Raises:
        InputError: it cannot be read, or lacks figures that a run writes.
    """
    whole = foreign.read_json(path)
    return metrics_of(whole, str(path)), whole


def metrics_of(whole: Any, where: str = METRICS) -> Metrics:
    """The figures that are shown, from the content of metrics.json.

    Raises:
        InputError: it lacks figures that a run writes; `where` names the file.
    """
    scores: dict[str, float] = {}
    levels = _group(whole, "scores", where)
    for level, prefix in _LEVELS.items():
        if levels.get(level) is not None:  # there are none without labels
            of_level = _group(levels, level, where)
            scores |= {prefix + key: _figure(of_level, key, where) for key in _SCORES}
    detection = _group(whole, "detection", where)
    recall = _group(whole, "normal_recall", where)
    scores |= {k: _figure(detection, k, where) for k in _DETECTION if detection.get(k) is not None}
    if recall.get("image") is not None:
        scores["normal_recall"] = _figure(recall, "image", where)
    labels = EvaluationConfig(_text({"region_labels": "mask", **whole}, "region_labels", where))
    return Metrics(
        _text(whole, "dataset", where),
        _text(whole, "category", where),
        scores,
        labels.region_labels,
    )


def read_progress(folder: Path) -> Progress:
    """A run's last progress note; an empty one if there is none.

    Raises:
        InputError: the file exists and cannot be used.
    """
    path = folder / PROGRESS
    if not os.path.lexists(path):
        return Progress()
    data = foreign.read_json(path)
    if isinstance(data, dict) and isinstance(data.get("failed"), str):
        data["failed"] = " ".join(data["failed"].split())[:MAX_REASON]
    return foreign.build(Progress, data, str(path))


def read_jobs(sweep: Path) -> list[Listed]:
    """A sweep's list of jobs.

    Raises:
        InputError: the list, or a job in it, cannot be used.
    """
    path = sweep / JOBS
    return _read_jobs(path, _changed(path))


@cache  # it may list thousands of jobs, and is written once
def _read_jobs(path: Path, changed: int) -> list[Listed]:
    listed = foreign.read_json(path, _JOBS_BYTES)
    if not isinstance(listed, list):
        raise InputError(f"{path}: expected a list of jobs")
    return [_listed(entry, path.parent, f"{path}: job {n}") for n, entry in enumerate(listed, 1)]


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _listed(entry: Any, sweep: Path, where: str) -> Listed:
    if isinstance(entry, dict) and "failed" in entry:
        without = foreign.build(_NoRun, entry, where)
        return Listed(overrides=without.overrides, failed=without.failed[:MAX_REASON])
    run = foreign.build(_Run, entry, where)
    folder = Path(os.path.normpath(sweep.resolve() / run.folder))
    if not RUN_NAME.fullmatch(folder.name):
        raise InputError(f"{where}: folder {run.folder!r} is not a run's; expected …/seed-<n>")
    return Listed(folder, run.launcher, _settings(run.settings, f"{where}: settings"))


def _settings(values: Any, where: str) -> Settings:
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a run's settings")
    names = _Needed.__dataclass_fields__
    needed = foreign.build(_Needed, {k: v for k, v in values.items() if k in names}, where)
    for group in ("dataset", "base", "detector"):
        of_group = getattr(needed, group)
        _text(of_group, "kind", f"{where}: {group}")
        if "path" in of_group:
            _text(of_group, "path", f"{where}: {group}")
    return Settings(values, _detector(needed.detector, f"{where}: detector"))


def _detector(settings: dict[str, Any], where: str) -> DetectorConfig:
    kinds = {name: schema for group, name, schema in schemas() if group == "schema/detector"}
    if settings["kind"] not in kinds:
        known = ", ".join(sorted(kinds))
        raise InputError(f"{where}: kind is {settings['kind'][:60]!r}; expected one of {known}")
    return foreign.build(kinds[settings["kind"]], settings, where)


def _group(data: Any, key: str, where: str) -> dict[str, Any]:
    group = data.get(key) if isinstance(data, dict) else None
    if not isinstance(group, dict):
        raise InputError(f"{where}: {key}: expected figures by name")
    return group


def _figure(figures: dict[str, Any], key: str, where: str) -> float:
    value = figures.get(key)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < 1.001:  # type: ignore[arg-type]  # number: no None
        raise InputError(f"{where}: {key}: expected a number from -1 to 1")
    return float(value)  # type: ignore[arg-type]


def _text(data: dict[str, Any], key: str, where: str) -> str:
    if not isinstance(data.get(key), str):
        raise InputError(f"{where}: {key}: expected text")
    return data[key]
