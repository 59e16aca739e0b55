"""The life of a run: lock it, return a finished one, start or resume it, log, record failures."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from anomalyncd.config import Config
from anomalyncd.errors import InputError
from anomalyncd.inputs import Inputs, find_inputs, open_inputs
from anomalyncd.runtime import console, tracking
from anomalyncd.storage import identity
from anomalyncd.storage.identity import Digests
from anomalyncd.storage.run_folder import STATE, RunFolder
from anomalyncd.storage.run_record import MAX_REASON

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    folder: Path
    metrics: dict[str, Any]  # empty in all but the first process under torchrun
    was_finished: bool  # nothing was computed: results already existed


def execute(config: Config, *, in_a_sweep: bool = False) -> RunResult:
    """Start, resume, or return a finished run.

    Under torchrun all processes call this. The first one writes all files; the others only share
    the training with it.

    Args:
        config: all settings.
        in_a_sweep: record a failure in the run's folder even if the run could not start.

    Raises:
        InputError: an input cannot be used.
    """
    folder = RunFolder.of(config)
    if (rank := _rank()) is not None:
        _require_one_process(config)
        if rank > 0:
            return _assist(config, folder)
    # A mistyped path or device leaves no folder: it is created after all inputs are found.
    with _recorded(config, folder, in_a_sweep), console.logging_to(None, quiet=config.quiet):
        found = find_inputs(config)
    if config.rerun or not folder.finished or _change(folder.inputs, found.digests):
        with _recorded(config, folder, in_a_sweep):
            given = open_inputs(config, found)
        with folder.held():
            is_finished = folder.finished and not config.rerun
            changed = _change(folder.inputs, found.digests) if is_finished else ""
            if not is_finished or changed:
                return _run(config, given, folder, changed)
    if folder.path(STATE).exists():  # left if the run was killed just before
        with folder.held():
            folder.path(STATE).unlink(missing_ok=True)
    if not config.quiet:
        console.say(f"Finished before: {folder.root} (rerun=true computes it again)")
    return RunResult(folder.root, folder.metrics, was_finished=True)


@cache  # `distributed.started` removes torchrun's variables
def _rank() -> int | None:
    """This process's rank under torchrun; None without torchrun."""
    return int(os.environ["RANK"]) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def _require_one_process(config: Config) -> None:
    if config.discovery.is_consensus:
        raise InputError(
            f"discovery.members={config.discovery.members} works in one process, not under "
            "torchrun: start it without torchrun, or use discovery.members=1"
        )


def _assist(config: Config, folder: RunFolder) -> RunResult:
    """Share the training of the first process, unless the run is finished already."""
    from anomalyncd import experiment
    from anomalyncd.runtime import devices, distributed

    known = folder.inputs  # before `finished`: the first process may archive the folder now
    if config.rerun or not folder.finished or known != find_inputs(config).digests:
        with devices.memory_explained(_less_memory_for_views(config)):
            experiment.assist(config, folder, distributed.started())
    return RunResult(folder.root, {}, was_finished=False)


def _run(config: Config, given: Inputs, folder: RunFolder, changed: str) -> RunResult:
    """Compute a run whose folder is locked; `changed` says how its inputs changed."""
    from anomalyncd import experiment  # torch takes seconds to load
    from anomalyncd.runtime import devices, distributed

    archived = _begin(config, folder)
    folder.note_inputs(given.digests)
    with console.logging_to(folder.path("log.txt"), quiet=config.quiet):
        if changed:
            log.warning("%s: it is computed again; the old results are in %s", changed, archived)
        name = "/".join(folder.root.parts[-5:])
        tracker = tracking.create(config.tracker, folder.root, name, asdict(config))
        world = distributed.started()
        try:
            with devices.memory_explained(_less_memory_for_views(config)):
                metrics = experiment.compute(config, given, folder, tracker, world)
            return RunResult(folder.root, metrics, was_finished=False)
        except BaseException as error:
            log.debug("stopped", exc_info=error)  # the traceback goes only to the log
            if isinstance(error, Exception):
                with suppress(InputError):  # on a full disk, show the first error
                    folder.note_progress(failed=_reason(error))
            raise
        finally:
            tracker.finish()


@contextmanager
def _recorded(config: Config, folder: RunFolder, in_a_sweep: bool) -> Iterator[None]:
    """Record a failure in the run's folder: any in a sweep, else only unexpected errors."""
    try:
        yield
    except Exception as error:
        is_noted = in_a_sweep or not isinstance(error, InputError)
        if is_noted and (config.rerun or not folder.finished):
            with suppress(InputError), folder.held():  # show the first error
                _begin(config, folder)
                folder.note_progress(failed=_reason(error))
        raise


def _begin(config: Config, folder: RunFolder) -> Path | None:
    """Create the run's folder or resume in it; returns where an older one was archived."""
    archived = None
    folder.is_rerun = folder.has_unfinished_rerun
    if folder.finished or (config.rerun and not folder.is_rerun):
        from anomalyncd.training.cached_features import CachedFeatures  # loads torch
        from anomalyncd.training.train import features_beside

        CachedFeatures.remove(features_beside(folder.path(STATE)))  # large and not needed any more
        archived = folder.archive()
        folder.is_rerun = config.rerun
    folder.create()
    folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
    return archived


def _change(before: Digests | None, now: Digests) -> str:
    """How the inputs changed since the run finished; empty if they did not."""
    if before is None:
        return "The inputs of this finished run were not recorded"
    found = identity.difference(before, now)
    return f"Since this run finished: {found}" if found else ""


def _less_memory_for_views(config: Config) -> str:
    other_runs = (
        f"train.batch_size={config.train.batch_size} and "
        f"backbone.image_size={config.backbone.image_size} can be lowered too: another run"
    )
    if config.forward_batch == 1:
        return f"forward_batch is 1 already; {other_runs}"
    same = "the same command without rerun=true and" if config.rerun else "the same command"
    return (
        f"run {same} with forward_batch={config.forward_batch // 2}, which resumes this "
        f"run; {other_runs}"
    )


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return text[:MAX_REASON]
