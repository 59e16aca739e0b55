"""What run folders and sweeps say of their jobs: queued, running, done, failed, and how far.

A run folder holds `config.yaml` from its start, `progress.json` until its end and `metrics.json`
from then on; a sweep's folder holds `jobs.json`, the list of all that it will run. Who runs holds
a lock, so nothing needs to be asked of a process, and any terminal or machine can look.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalyncd.config import DetectorConfig, schemas
from anomalyncd.errors import InputError
from anomalyncd.run_folder import NON_RESULT_KEYS, RunFolder, is_locked

# stopped: killed or interrupted, goes on if run again; not started: its sweep has ended without it
State = Literal["running", "failed", "stopped", "done", "queued", "not started"]
STATES: tuple[State, ...] = get_args(State)

JOBS = "jobs.json"
SWEEP_LOCK = ".sweep.lock"  # held while a sweep lasts
_CACHE_ENTRY = re.compile(r"-[0-9a-f]{20}$")  # of `cache`: holds no runs, but many files
_NOT_STARTED = {  # on Slurm: why
    False: "its sweep has ended; run it again",
    True: "its sweep's command has ended; run it again if squeue has it no more",
}
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(yaml.YAMLError, OmegaConfBaseException),
)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is 15 times as fast


@dataclass(frozen=True)
class Job:
    """One run, whether it has begun or not."""

    name: str  # its folder, or what it was called with if it has none
    state: State
    settings: dict[str, Any]  # the run's configuration; empty if it cannot be known
    detector: str = ""  # its label; empty if there are no settings
    progress: dict[str, Any] = field(default_factory=dict)  # see `RunFolder.progress`
    scores: dict[str, float] = field(default_factory=dict)  # see `_scores`; empty without labels
    reason: str = ""  # why it failed or has not started


def find(outputs: Sequence[Path]) -> list[Job]:
    """All jobs below these folders, each once; runs that were set aside are left out.

    Raises:
        InputError: a folder is not there, or no run is in any of them.
    """
    runs: dict[Path, Job] = {}
    sweeps: list[Path] = []
    for root in outputs:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; give the output_root of runs, or one below")
        for folder, names in _walk(root):
            if JOBS in names:
                sweeps.append(folder)
            elif {"config.yaml", "metrics.json"} & names and re.fullmatch(r"seed-\d+", folder.name):
                runs.setdefault(folder.resolve(), _of_run(folder))
    failures = []
    sweeps.sort(key=lambda sweep: sweep.name, reverse=True)  # named by their time
    for number, sweep in enumerate(sweeps):
        lasting, began = is_locked(sweep / SWEEP_LOCK), (sweep / JOBS).stat().st_mtime
        for entry in _sweep_jobs(sweep):
            if "failed" in entry:  # mended since, unless the sweep is the last
                if lasting or number == 0:
                    failures.append(Job(entry["overrides"], "failed", {}, reason=entry["failed"]))
                continue
            folder = Path(os.path.normpath(sweep.resolve() / entry["folder"]))
            if folder not in runs and (folder / "config.yaml").exists():
                runs[folder] = _of_run(folder)
            known = runs.get(folder)
            on_slurm = entry.get("launcher") == "submitit_slurm"
            if lasting and (known is None or _waits(known, began, on_slurm)):
                runs[folder] = Job(str(folder), "queued", entry["settings"], entry["detector"])
            elif known is None:
                settings, detector = entry["settings"], entry["detector"]
                why = _NOT_STARTED[on_slurm]
                runs[folder] = Job(str(folder), "not started", settings, detector, reason=why)
    found = [runs[folder] for folder in sorted(runs)] + failures
    if not found:
        where = ", ".join(map(str, outputs))
        raise InputError(f"no run found below {where}; give the output_root of runs, or one below")
    return found


def outcome(sweep: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What a sweep that has ended leaves: figures of each finished run, and why others are not."""
    results, left = [], []
    for job in find([sweep]):
        if job.state == "done":
            results.append({**RunFolder(Path(job.name)).metrics, "folder": job.name})
        else:
            left.append(f"{job.name}: {job.reason or job.state}")
    return results, left


def computed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """All that a run's figures follow from, but its category and seed: {"fit.epochs": 50, …}."""
    apart = (*NON_RESULT_KEYS, "category", "seed")
    return _flat({key: value for key, value in settings.items() if key not in apart})


def differing(settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each, only what not all of them have in common.

    What some have not at all is left out too: another setting has taken it from them.
    """
    keys = dict.fromkeys(key for one in settings for key in one)
    values = {key: [one[key] for one in settings if key in one] for key in keys}
    told = [key for key in keys if any(value != values[key][0] for value in values[key])]
    return [{key: one[key] for key in told if key in one} for one in settings]


def short_keys(settings: dict[str, Any]) -> dict[str, Any]:
    """`epochs` for `fit.epochs`, where no other setting ends so."""
    ends = [key.rpartition(".")[2] for key in settings]
    return {
        end if ends.count(end) == 1 else key: value
        for end, (key, value) in zip(ends, settings.items(), strict=True)
    }


def _walk(root: Path) -> Iterator[tuple[Path, set[str]]]:
    for folder, below, names in os.walk(root):
        yield Path(folder), set(names)
        if re.match(r"seed-\d+", os.path.basename(folder)):
            below.clear()
        below[:] = [n for n in sorted(below) if n[0] != "." and not _CACHE_ENTRY.search(n)]


def _waits(job: Job, since: float, on_slurm: bool) -> bool:
    """A sweep that began then will still come to this job, or come back to it."""
    ended = job.state in ("failed", "stopped") and job.progress.get("at", 0.0) < since
    requeued = on_slurm and job.state == "stopped"
    return ended or requeued or job.state == "not started"


def _of_run(path: Path) -> Job:
    folder = RunFolder(path)
    held = folder.is_held  # looked at first: a run that ends meanwhile is then seen as done
    try:
        config = path / "config.yaml"
        settings, detector = _settings(config, config.stat().st_mtime_ns)
        if folder.finished:
            return Job(str(path), "done", settings, detector, scores=_scores(folder.metrics))
    except _UNREADABLE as error:
        brief = str(error).splitlines()[0]
        return Job(str(path), "failed", {}, reason=f"cannot be read ({brief})")
    progress = folder.progress
    reason = " ".join(progress.get("failed", "").split())
    state: State = "running" if held else "failed" if "failed" in progress else "stopped"
    return Job(str(path), state, settings, detector, progress, reason=reason)


def _scores(metrics: dict[str, Any]) -> dict[str, float]:
    """NMI, ARI and F1 of all images, and what is known beside them.

    That is AUPRO of the maps, FPR and FNR of detection, and the recall of the normal class.
    """
    scores = metrics["scores"]["image"]
    if scores is None:
        return {}
    beside = {key: metrics["detection"][key] for key in ("aupro", "fpr", "fnr")}
    beside["normal_recall"] = metrics["normal_recall"]["image"]
    return {**scores, **{key: value for key, value in beside.items() if value is not None}}


@cache  # a live table looks every second, and reading settings takes the longest
def _settings(path: Path, modified: int) -> tuple[dict[str, Any], str]:
    """A run's configuration and the label of its detector, as long as the file is the same."""
    settings = yaml.load(path.read_bytes(), _LOADER)
    kinds = {name: schema for group, name, schema in schemas() if group == "schema/detector"}
    detector = OmegaConf.merge(kinds[settings["detector"]["kind"]], settings["detector"])
    return settings, cast(DetectorConfig, OmegaConf.to_object(detector)).label


def _sweep_jobs(sweep: Path) -> list[dict[str, Any]]:
    try:
        return json.loads((sweep / JOBS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [{"overrides": str(sweep), "failed": f"its {JOBS} cannot be read ({error})"}]


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[above + key] = value
    return flat
