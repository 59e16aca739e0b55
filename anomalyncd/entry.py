"""What every entry point shares: schemas for Hydra, validation, and errors told in one line."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from anomalyncd.atomic import written_whole
from anomalyncd.config import schemas
from anomalyncd.errors import InputError
from anomalyncd.jobs import JOBS, SWEEP_LOCK
from anomalyncd.run_folder import RunFolder

failures: list[str] = []  # of this process: a sweep goes on past a job that failed


def register_schemas() -> None:
    """Make the schemas, and what `configs/` computes with, known to Hydra."""
    OmegaConf.register_new_resolver("name_of", _name_of, replace=True)
    store = ConfigStore.instance()
    for group, name, schema in schemas():
        store.store(group=group or None, name=name, node=schema)


def validated(composed: DictConfig) -> Any:
    """The composed configuration as the dataclass of its schema, cross-checked.

    Raises:
        InputError: a mandatory value is missing, or values do not go together.
    """
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        example = " ".join(f"{key}=…" for key in missing)
        raise InputError(f"not set: {', '.join(missing)}; add {example}")
    return OmegaConf.to_object(composed)


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Print what the user can mend as one line and note the failure; the rest stays a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        told = "Interrupted; run the same command again (training goes on from its last epoch)."
        print(f"\n{told}", file=sys.stderr)
        sys.exit(130)
    except (InputError, OmegaConfBaseException, OSError) as error:
        if debug:
            raise
        message = _explain(error)
        print(f"error: {message}", file=sys.stderr)
        failures.append(message)


class SweepRecord(Callback):
    """Lets a sweep of train.py say at its start what it will run: see `jobs`."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.job.name != "train":  # others share the configuration and train nothing
            return
        sweep = Path(config.hydra.sweep.dir)
        try:
            jobs = list(_sweep_jobs(config))
        except (HydraException, OmegaConfBaseException):
            return  # Hydra meets the same error next, and tells it
        shared = set.intersection(*(set(o) for o, _ in jobs)) if len(jobs) > 1 else set()
        listed = [
            _listed([o for o in overrides if o not in shared], composed, sweep)
            for overrides, composed in jobs
        ]
        sweep.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(sweep / SWEEP_LOCK, timeout=0)
        self._lock.acquire()
        with written_whole(sweep / JOBS) as draft:
            draft.write_text(json.dumps(listed), encoding="utf-8")


def _sweep_jobs(config: DictConfig) -> Iterator[tuple[list[str], DictConfig]]:
    """What each job of a sweep is called with, and its composed configuration."""
    loader = GlobalHydra.instance().config_loader()
    swept = [f"{key}={values}" for key, values in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(loader)
    overrides = parser.parse_overrides([*swept, *config.hydra.overrides.task])
    for job in BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]:
        composed = loader.load_sweep_config(config, job)
        with open_dict(composed):
            del composed["hydra"]
        yield job, composed


def _listed(apart: list[str], composed: DictConfig, sweep: Path) -> dict[str, Any]:
    """A job's line in the record: its run, or why there will be none."""
    try:
        config = validated(composed)
    except (InputError, OmegaConfBaseException) as error:
        return {"overrides": " ".join(apart), "failed": _explain(error)}
    folder = os.path.relpath(RunFolder.of(config).root, sweep)  # so that both can be moved
    return {"folder": folder, "detector": config.detector.label, "settings": asdict(config)}


def _name_of(path: str) -> str:
    """A folder's own name, by which dataset=folder calls the product."""
    return PurePath(path).name or "images"


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'writing'}: {error.strerror}; free space or set output_root=…"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{error.filename}: {error.strerror}; set output_root=… to a folder you can write"
    return str(error).split("\n    full_key")[0]
