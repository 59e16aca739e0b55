"""Compose a run's configuration in a process that is no Hydra application, or another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from omegaconf.errors import OmegaConfBaseException

from anomalyncd.cli.settings import entry, override_errors
from anomalyncd.config import Config
from anomalyncd.errors import InputError


def compose(overrides: Sequence[str]) -> Config:
    """The configuration that `anomalyncd run` would use.

    Args:
        overrides: settings as on the command line.

    Raises:
        InputError: a setting is unknown, missing or invalid.
    """
    entry.register_schemas()
    try:
        with (
            _hydra_set_aside(),
            initialize_config_dir(str(entry.config_dir()), version_base="1.3"),
        ):
            return entry.validated(hydra_compose("train", list(overrides)))
    except (CompactHydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
        raise InputError(override_errors.explained(error, Config, overrides)) from error


@contextmanager
def _hydra_set_aside() -> Iterator[None]:
    """Hydra can only be started once at a time, and the caller may be a Hydra application."""
    callers = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = callers
