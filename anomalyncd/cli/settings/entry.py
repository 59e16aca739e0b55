"""Shared by all entry points: schemas for Hydra, validation, and errors reported in one line."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any, NoReturn

from filelock import FileLock
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import CompactHydraException, HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from anomalyncd.cli.settings import override_errors
from anomalyncd.config import schemas
from anomalyncd.errors import InputError
from anomalyncd.results import published
from anomalyncd.runtime import interrupt, local_gpus
from anomalyncd.runtime.console import printable
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.storage.jobs import SWEEP_LOCK
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.storage.run_record import JOBS, MAX_REASON

FAILED = "failed"  # in a sweep's folder: why its jobs failed, in any process
failures: list[str] = []  # in this process: a sweep continues after a failed job
_jobs_begun = False  # an error that Hydra raises earlier is about the command line
sweeps: list[Path] = []  # folders of the sweeps that this process has started


def config_dir() -> Path:
    """The configuration folder: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parents[2]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def command() -> str:
    """The command as the user called it, for a help text."""
    name = PurePath(sys.argv[0]).name
    return f"python {name}" if name.endswith(".py") else name


def options_text() -> str:
    """The configuration groups and their options, for a help text."""
    groups = {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(config_dir().iterdir())
        if folder.is_dir()
    }
    width = max(map(len, groups))
    return "\n".join(
        textwrap.fill(
            " ".join(names),
            100,
            initial_indent=f"  {group:{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_on_hyphens=False,
        )
        for group, names in groups.items()
    )


def named(arguments: list[str], keys: Sequence[str]) -> list[str]:
    """Turn arguments that are not key=value into settings of these keys, in order."""
    free = iter(keys)
    found = []
    for argument in arguments:
        plain = "=" not in argument and not argument.startswith("-")
        key = next(free, None) if plain else None
        found.append(override(key, argument) if key else argument)
    return found


def override(key: str, value: str) -> str:
    """`key=value` in Hydra's syntax, for any text as value."""
    return f"{key}={quoted(value)}"


def quoted(text: str) -> str:
    """A text in Hydra's quotes, where a backslash is literal unless a quote follows it."""
    doubled = re.sub(r"(\\+)(?='|\Z)", r"\1\1", text)
    return "'" + doubled.replace("'", "\\'") + "'"


def register_schemas() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    for group, name, schema in schemas():
        store.store(group=group or None, name=name, node=schema)


def validated(composed: DictConfig) -> Any:
    """Convert the composed configuration to the dataclass of its schema, and cross-check it.

    Raises:
        InputError: a mandatory value is missing, or values contradict each other.
    """
    override_errors.require_known(composed)
    missing = sorted(_missing(OmegaConf.to_container(composed)))
    if "dataset" not in missing:
        _require_one_category(composed)
    if missing:
        example = " ".join(f"{key}=…" for key in missing)
        raise InputError(f"not set: {', '.join(missing)}; add {example}")
    _require_one_job_under_torchrun()
    return OmegaConf.to_object(composed)


def _missing(node: Any, above: str = "") -> Iterator[str]:
    """Keys without a value; a value derived from a missing one is not counted."""
    for key, value in node.items():
        if value == MISSING:
            yield above + str(key)
        elif isinstance(value, dict):
            yield from _missing(value, f"{above}{key}.")


def _require_one_job_under_torchrun() -> None:
    if in_a_sweep() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "-m under torchrun: its processes train one model together, and a job that fails in "
            "one of them would leave the others waiting; call torchrun for each job"
        )


def in_a_sweep() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _require_one_category(composed: DictConfig) -> None:
    kind = OmegaConf.select(composed, "dataset.kind")
    if kind in (None, "folder"):  # any folder may be called `all`
        return
    category, lists = OmegaConf.select(composed, "category"), published.category_lists()
    if category in lists:
        needs = f"dataset={kind} has none of these products"
        if kind == "mvtec":
            needs = "add -m to run each of them, and name no other dataset in the same command"
        raise InputError(
            f"category={category} stands for {len(lists[category])} products of MVTec AD; {needs}"
        )


def call(main: Callable[[], None], schema: type) -> None:
    """Call a function decorated by `hydra.main`; report rejected settings in one line.

    Args:
        main: the decorated function.
        schema: of its configuration.

    Raises:
        SystemExit: with status 1, if settings were rejected.
    """
    in_full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints its own message and exits
    # argparse accepts -m only before the settings; people add it at the end of a command.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    try:
        main()
    except KeyboardInterrupt:
        _end_interrupted()
    except (
        *(CompactHydraException, OmegaConfBaseException),
        *(ValueError, AssertionError, OSError),
    ) as error:
        known = isinstance(error, CompactHydraException | OmegaConfBaseException)
        # A job of a sweep may have started in another process: its errors need a traceback.
        about_command_line = not _jobs_begun and not {"-m", "--multirun"} & set(sys.argv)
        if in_full or not (known or about_command_line):
            raise
        if not known and isinstance(error, OSError):  # some errors of Hydra are OSErrors too
            _end_without_folder(error)
        print_error(override_errors.explained(error, schema, sys.argv[1:]))
        sys.exit(1)


def _end_interrupted() -> NoReturn:
    print(f"\n{interrupt.MESSAGE}", file=sys.stderr)
    sys.exit(interrupt.STATUS)


def _end_without_folder(error: OSError) -> NoReturn:
    """Hydra creates a folder for a run, and one for a sweep, before any job starts."""
    print_error(
        f"{error.filename}: {error.strerror}; set hydra.run.dir and hydra.sweep.dir to writable "
        "folders, or do not set them"
    )
    sys.exit(1)


def print_error(message: str) -> None:
    """Print one line to stderr."""
    print(f"error: {printable(message)}", file=sys.stderr)


@contextmanager
def one_line_errors(debug: bool, elsewhere: str = "output_root=…") -> Iterator[None]:
    """Report errors that the user can fix in one line and record the failure; raise all others.

    Args:
        debug: raise every error, so that its traceback is shown.
        elsewhere: the setting that moves the output to another disk.
    """
    global _jobs_begun
    _jobs_begun = True
    interrupt.raise_from_now_on()
    try:
        yield
    except KeyboardInterrupt:
        _end_interrupted()
    except (InputError, OmegaConfBaseException, OSError) as error:
        if debug:
            raise
        message = _explain(error, elsewhere)
        print_error(message)
        failures.append(message)
        if in_a_sweep():
            with suppress(OSError):  # a full disk may be the very error that was reported
                _record_failure(message)


def _record_failure(message: str) -> None:
    folder = Path(HydraConfig.get().sweep.dir, FAILED)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{HydraConfig.get().job.num:04d}.txt").write_text(message, encoding="utf-8")


def failures_elsewhere() -> list[str]:
    """Why jobs of this process's sweep failed in processes that its launcher started."""
    paths = [path for sweep in sweeps for path in sorted((sweep / FAILED).glob("*.txt"))]
    messages = [path.read_text(encoding="utf-8") for path in paths]
    return [message for message in messages if message not in failures]


class SweepRecord(Callback):
    """Expands a sweep's lists of categories, and records its jobs for `storage.jobs`."""

    _lock: FileLock | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        interrupt.raise_from_now_on()  # so that launchers stop their workers
        try:
            _expand_categories(config)
            if config.hydra.job.name != "run":  # other commands do not train
                sweeps.append(Path(config.hydra.sweep.dir))
                return
            swept = [
                f"{key}={values}" for key, values in (config.hydra.sweeper.params or {}).items()
            ]
            jobs = list(_sweep_jobs(config, [*swept, *config.hydra.overrides.task]))
        except (HydraException, OmegaConfBaseException):
            return  # Hydra will raise and report the same error
        shared = set.intersection(*(set(o) for o, _ in jobs)) if len(jobs) > 1 else set()
        sweep = Path(config.hydra.sweep.dir)
        launcher = config.hydra.runtime.choices["hydra/launcher"]
        listed = [
            _listed([o for o in overrides if o not in shared], composed, sweep, launcher)
            for overrides, composed in jobs
        ]
        try:
            sweep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _end_without_folder(error)
        self._lock = FileLock(sweep / SWEEP_LOCK, timeout=0)
        self._lock.acquire()
        with atomic_write(sweep / JOBS) as draft:
            draft.write_text(json.dumps(listed), encoding="utf-8")
        sweeps.append(sweep)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if self._lock:
            self._lock.release()

    def __reduce__(self) -> tuple[type[SweepRecord], tuple[()]]:
        return SweepRecord, ()  # a launcher sends copies to its workers; the lock stays here


def _expand_categories(config: DictConfig) -> None:
    """Replace `all`, `textures` and `objects` by their products, if all jobs are on MVTec AD."""
    task = list(config.hydra.overrides.task)
    named = [_expanded(override) for override in task]
    if named == task:
        return
    choosing = [o for o in task if o.partition("=")[0] in ("dataset", "experiment")]
    if {job.dataset.kind for _, job in _sweep_jobs(config, choosing)} == {"mvtec"}:
        config.hydra.overrides.task = named


def _expanded(override: str) -> str:
    key, _, value = override.partition("=")
    if key != "category":
        return override
    lists = published.category_lists()
    names = dict.fromkeys(n for name in value.split(",") for n in lists.get(name, (name,)))
    return f"category={','.join(names)}"


def _sweep_jobs(config: DictConfig, swept: list[str]) -> Iterator[tuple[list[str], DictConfig]]:
    """The overrides of each job of a sweep, and its composed configuration."""
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(loader)
    overrides = parser.parse_overrides(swept)
    for job in map(list, itertools.product(*_choices(overrides))):
        composed = loader.load_sweep_config(config, job)
        with open_dict(composed):
            del composed["hydra"]
        yield job, composed


def _choices(overrides: list[Override]) -> list[list[str]]:
    """The values of each key, in order, as Hydra's sweeper does it: a key's last override counts.

    Raises:
        HydraException: a sweep that cannot be enumerated, such as an interval.
    """
    choices = {}
    for override in overrides:
        swept = override.is_sweep_override()
        values = (
            override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
        )
        key = override.get_key_element()
        choices[key] = [f"{key}={value}" for value in values]
    return list(choices.values())


def _listed(apart: list[str], composed: DictConfig, sweep: Path, launcher: str) -> dict[str, Any]:
    """A job's entry in the record: its run folder, or why it cannot run."""
    try:
        config = validated(composed)
    except (InputError, OmegaConfBaseException) as error:
        return {"overrides": " ".join(apart), "failed": _explain(error)[:MAX_REASON]}
    folder = os.path.relpath(RunFolder.of(config).root, sweep)  # so that both can move
    known = {"detector": config.detector.label, "settings": asdict(config)}
    return {"folder": folder, "launcher": launcher, **known}


def _name_of(path: str | Sequence[str]) -> str:
    """The folder's own name, which dataset=folder uses as the product's name; of the first one."""
    path = path if isinstance(path, str) else path[0]
    name = PurePath(os.path.abspath(path)).name.replace("\\", "_")  # not allowed in a category
    return name if name.strip(". ") else "images"


# At import, since the workers of a launcher import this module but call no entry point.
OmegaConf.register_new_resolver("name_of", _name_of, replace=True)
OmegaConf.register_new_resolver("count_of_gpus", local_gpus.count, replace=True)
OmegaConf.register_new_resolver("own_gpu", local_gpus.take, replace=True)


def _explain(error: Exception, elsewhere: str = "output_root=…") -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'writing'}: {error.strerror}; free space or set {elsewhere}"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        found = f"{error.filename}: {error.strerror}"
        if os.path.exists(error.filename or "") and not os.access(error.filename, os.R_OK):
            return f"{found}; make it readable"
        return f"{found}; make it writable or set {elsewhere}"
    return override_errors.without_details(error)
