"""The state of jobs, read from run folders and sweeps: queued, running, done, failed, progress.

A run folder holds `config.yaml` from the start, `progress.json` until the end and `metrics.json`
afterwards; a sweep's folder holds `jobs.json`, the list of its jobs. A running process holds a
lock. So no process needs to be asked, and the state can be read from any terminal or machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from anomalyncd.errors import InputError
from anomalyncd.storage import run_record
from anomalyncd.storage.cache import SEAL
from anomalyncd.storage.run_folder import NON_RESULT_KEYS, RunFolder, is_locked
from anomalyncd.storage.run_record import CONFIG, JOBS, METRICS, RUN_NAME, Listed, Progress

# stopped: killed or interrupted, resumes if run again; not started: its sweep ended before it
State = Literal["running", "failed", "stopped", "done", "queued", "not started"]
STATES: tuple[State, ...] = get_args(State)

SWEEP_LOCK = ".sweep.lock"  # held while a sweep lasts
_NOT_STARTED = {  # by whether it is on Slurm: the reason
    False: "its sweep has ended; run it again",
    True: "its sweep's command has ended; run it again if squeue no longer lists the job",
}
# By what metrics.json has: how a run follows from another one
_STEPS = {"extension": "extended", "learning": "learned from a review"}


@dataclass(frozen=True)
class Job:
    """One run, whether it has started or not."""

    name: str  # its folder, or its overrides if it has none
    state: State
    settings: dict[str, Any]  # the run's configuration; empty if it cannot be known
    detector: str = ""  # its label; empty if there are no settings
    progress: Progress = field(default_factory=Progress)
    scores: dict[str, float] = field(default_factory=dict)  # see `run_record.Metrics`
    reason: str = ""  # why it failed or has not started
    made_from: str = ""  # how it follows from another run; empty if it does not


def find(outputs: Sequence[Path]) -> list[Job]:
    """All jobs below these folders, each once; archived runs are left out.

    Raises:
        InputError: a folder does not exist, or none of them holds a run.
    """
    runs: dict[Path, Job] = {}
    sweeps: list[Path] = []
    failures: list[Job] = []
    for root in outputs:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; pass the output_root of runs or a subfolder")
        for folder, names in _walk(root, failures):
            if JOBS in names:
                sweeps.append(folder)
            elif {CONFIG, METRICS} & names and RUN_NAME.fullmatch(folder.name):
                runs.setdefault(folder.resolve(), _of_run(folder))
    sweeps.sort(key=lambda sweep: sweep.name, reverse=True)  # named by their start time
    for number, sweep in enumerate(sweeps):
        lasting = is_locked(sweep / SWEEP_LOCK)
        try:
            listed, began = run_record.read_jobs(sweep), (sweep / JOBS).stat().st_mtime
        except (InputError, OSError) as error:
            failures.append(_unreadable(sweep, error))
            continue
        for entry in listed:
            if entry.folder and entry.settings:
                runs |= _of_listed(entry, entry.folder, runs, lasting, began)
            elif lasting or number == 0:  # fixed since, unless the sweep is the latest
                failures.append(Job(entry.overrides, "failed", {}, reason=entry.failed))
    found = [runs[folder] for folder in sorted(runs)] + failures
    if not found:
        where = ", ".join(map(str, outputs))
        raise InputError(f"no run found below {where}; pass the output_root of runs or a subfolder")
    return found


def outcome(sweep: Path) -> tuple[list[Job], list[str]]:
    """The result of an ended sweep: its finished runs, and why the others are not finished."""
    jobs = find([sweep])
    left = [f"{job.name}: {job.reason or job.state}" for job in jobs if job.state != "done"]
    return [job for job in jobs if job.state == "done"], left


def computed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that determine a run's figures, without category and seed, with dotted keys."""
    apart = (*NON_RESULT_KEYS, "category", "seed")
    return _flat({key: value for key, value in settings.items() if key not in apart})


def differing(settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each, only the settings whose values differ.

    A setting that only some have is compared among those: the others lack it because of another
    setting.
    """
    keys = dict.fromkeys(key for one in settings for key in one)
    values = {key: [one[key] for one in settings if key in one] for key in keys}
    varying = [key for key in keys if any(value != values[key][0] for value in values[key])]
    return [{key: one[key] for key in varying if key in one} for one in settings]


def short_keys(settings: dict[str, Any]) -> dict[str, Any]:
    """`epochs` for `train.epochs`, if no other key has that last part."""
    ends = [key.rpartition(".")[2] for key in settings]
    return {
        end if ends.count(end) == 1 else key: value
        for end, (key, value) in zip(ends, settings.items(), strict=True)
    }


def _walk(root: Path, failures: list[Job]) -> Iterator[tuple[Path, set[str]]]:
    """Folders and the names in them; a folder that cannot be listed is added to `failures`."""

    def denied(error: OSError) -> None:
        failures.append(_unreadable(Path(error.filename), error))

    for folder, below, names in os.walk(root, onerror=denied):
        yield Path(folder), {*names, *below}
        if SEAL in names or re.match(r"seed-\d+", os.path.basename(folder)):
            below.clear()  # an entry of the cache, or a run
        below[:] = [name for name in sorted(below) if name[0] != "."]


def _of_listed(
    entry: Listed, folder: Path, runs: dict[Path, Job], lasting: bool, began: float
) -> dict[Path, Job]:
    """The job of a run that a sweep lists, unless a newer sweep determines it."""
    assert entry.settings
    known = runs.get(folder)
    if known is None and os.path.lexists(folder / CONFIG):
        known = _of_run(folder)
    on_slurm = entry.launcher == "submitit_slurm"
    settings, detector = entry.settings.values, entry.settings.detector
    if lasting and (known is None or _waits(known, began, on_slurm)):
        known = Job(str(folder), "queued", settings, detector)
    elif known is None:
        why = _NOT_STARTED[on_slurm]
        known = Job(str(folder), "not started", settings, detector, reason=why)
    return {folder: known}


def _waits(job: Job, since: float, on_slurm: bool) -> bool:
    """Whether a running sweep that began at `since` will still start this job, or restart it."""
    ended = job.state in ("failed", "stopped") and job.progress.at < since
    requeued = on_slurm and job.state == "stopped"
    return ended or requeued or job.state == "not started"


def _of_run(path: Path) -> Job:
    folder = RunFolder(path)
    held = folder.is_held  # read first: a run that ends in between is then seen as done
    try:
        settings = run_record.read_settings(path)
        if folder.finished:
            metrics, whole = run_record.read_metrics(path / METRICS)
            step = next((words for key, words in _STEPS.items() if key in whole), "")
            return Job(
                *(str(path), "done", settings.values, settings.detector),
                scores=metrics.scores,
                made_from=step,
            )
        progress = run_record.read_progress(path)
    except InputError as error:
        return _unreadable(path, error)
    failed = progress.failed is not None
    state: State = "running" if held else "failed" if failed else "stopped"
    reason = progress.failed or ""
    return Job(str(path), state, settings.values, settings.detector, progress, reason=reason)


def _unreadable(folder: Path, error: Exception) -> Job:
    """A failed job for a folder that cannot be read, so that the others are still shown."""
    text = error.strerror if isinstance(error, OSError) else str(error)
    brief = str(text).removeprefix(f"{folder}{os.sep}")
    return Job(str(folder), "failed", {}, reason=f"cannot be read ({brief})")


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[above + key] = value
    return flat
