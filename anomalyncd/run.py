"""A run's life: recognised when finished, held by one process, begun or resumed, logged, ended."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from anomalyncd import experiment
from anomalyncd.config import Config
from anomalyncd.errors import InputError
from anomalyncd.inputs import Inputs, open_inputs
from anomalyncd.runtime import console, devices, distributed, tracking
from anomalyncd.storage import identity
from anomalyncd.storage.identity import Digests
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.storage.run_record import MAX_REASON
from anomalyncd.training.cached_features import CachedFeatures
from anomalyncd.training.train import features_beside

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    folder: Path
    metrics: dict[str, Any]  # empty in a process that only assisted
    was_finished: bool  # nothing was computed: results already existed


def execute(config: Config, *, in_a_sweep: bool = False) -> RunResult:
    """Start, resume, or return a finished run.

    Under torchrun all processes call this. The first does everything that is written; the others
    share the training with it.

    Args:
        config: all settings.
        in_a_sweep: keep a record also of what could not even begin, such as a wrong path.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    folder = RunFolder.of(config)
    world = distributed.started()
    if config.train.features == "cached" and world.size > 1:
        raise InputError(
            f"train.features=cached works in one process, not in {world.size}: its frozen blocks "
            "run once; start it without torchrun, or use train.features=online"
        )
    if not world.is_first:
        known = folder.inputs  # before `finished`: the first process may archive the folder now
        if config.rerun or not folder.finished or known != open_inputs(config).digests:
            with devices.memory_explained(_less_memory_for_views(config)):
                experiment.assist(config, folder, world)
        return RunResult(folder.root, {}, was_finished=False)
    given = _inputs_or_record(config, folder, in_a_sweep)  # a mistyped path leaves nothing behind
    with folder.held():
        changed = ""
        if folder.finished and not config.rerun:
            changed = _change(folder.inputs, given.digests)
            if not changed:
                folder.path(experiment.STATE).unlink(missing_ok=True)  # killed just before that
                if not config.quiet:
                    console.say(f"Finished before: {folder.root} (rerun=true computes it again)")
                return RunResult(folder.root, folder.metrics, was_finished=True)
        return _run(config, given, folder, world, changed)


def _run(
    config: Config, given: Inputs, folder: RunFolder, world: distributed.World, changed: str
) -> RunResult:
    """Compute a run whose folder is held; `changed` says how a finished one's inputs differ."""
    archived = _begin(config, folder)
    folder.note_inputs(given.digests)
    with console.logging_to(folder.path("log.txt"), quiet=config.quiet):
        if changed:
            log.warning("%s: it is computed again; what it was is in %s", changed, archived)
        name = "/".join(folder.root.parts[-5:])
        tracker = tracking.create(config.tracker, folder.root, name, asdict(config))
        try:
            with devices.memory_explained(_less_memory_for_views(config)):
                metrics = experiment.compute(config, given, folder, tracker, world)
            return RunResult(folder.root, metrics, was_finished=False)
        except BaseException as error:
            log.debug("stopped", exc_info=error)  # the log has what the terminal is spared
            if isinstance(error, Exception):
                with suppress(InputError):  # on a full disk the first error is to be shown
                    folder.note_progress(failed=_reason(error))
            raise
        finally:
            tracker.finish()


def _inputs_or_record(config: Config, folder: RunFolder, in_a_sweep: bool) -> Inputs:
    """Open the inputs; if they cannot be used, a sweep or a fault leaves a record of it."""
    try:
        with console.logging_to(None, quiet=config.quiet):
            return open_inputs(config)
    except Exception as error:
        is_noted = in_a_sweep or not isinstance(error, InputError)
        if is_noted and (config.rerun or not folder.finished):
            with suppress(InputError), folder.held():  # the first error is to be shown
                _begin(config, folder)
                folder.note_progress(failed=_reason(error))
        raise


def _begin(config: Config, folder: RunFolder) -> Path | None:
    """Make the run's folder, or resume in it; where a finished one has been archived."""
    archived = None
    if config.rerun or folder.finished:
        # large, and of no use any more
        CachedFeatures.remove(features_beside(folder.path(experiment.STATE)))
        archived = folder.archive()
    folder.create()
    folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
    return archived


def _change(before: Digests | None, now: Digests) -> str:
    """What has changed since a run has finished; empty if nothing has."""
    if before is None:
        return "There is no record of what this finished run was computed from"
    found = identity.difference(before, now)
    return f"Since this run finished: {found}" if found else ""


def _less_memory_for_views(config: Config) -> str:
    other_runs = (
        f"train.batch_size={config.train.batch_size} and "
        f"backbone.image_size={config.backbone.image_size} can be lowered too, which is another run"
    )
    if config.forward_batch == 1:
        return f"forward_batch is 1 already; {other_runs}"
    return (
        f"run the same command with forward_batch={config.forward_batch // 2}, which resumes this "
        f"run; {other_runs}"
    )


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return text[:MAX_REASON]
