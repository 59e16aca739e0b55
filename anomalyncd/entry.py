"""What every entry point shares: schemas for Hydra, validation, and errors told in one line."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalyncd.config import schemas
from anomalyncd.errors import InputError

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


def _name_of(path: str) -> str:
    """A folder's own name, by which dataset=folder calls the product."""
    return PurePath(path).name or "images"


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'writing'}: {error.strerror}; free space or set output_root=…"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{error.filename}: {error.strerror}; set output_root=… to a folder you can write"
    return str(error).split("\n    full_key")[0]
