"""Experiment trackers with one interface: wandb, TensorBoard or none."""

from __future__ import annotations

import re
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from anomalyncd.config import TensorboardConfig, TrackerConfig, WandbConfig
from anomalyncd.errors import InputError
from anomalyncd.storage.atomic import atomic_write

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Tracker(Protocol):
    def log(self, figures: dict[str, float], step: int) -> None:
        """Figures of one epoch."""
        ...

    def summarise(self, figures: dict[str, float]) -> None:
        """The run's final figures."""
        ...

    def finish(self) -> None: ...


def create(config: TrackerConfig, folder: Path, name: str, settings: dict[str, Any]) -> Tracker:
    """The tracker of a run.

    Args:
        config: which tracker.
        folder: where it may write.
        name: the run's name, for people.
        settings: the run's configuration, stored with it.

    Raises:
        InputError: the tracker is not installed, or wandb has no API key in online mode. It never
            asks for a login.
    """
    match config:
        case WandbConfig():
            return _Wandb(config, folder, name, settings)
        case TensorboardConfig():
            if find_spec("tensorboard") is None:
                raise InputError(
                    "tracker=tensorboard is not installed; pip install 'anomalyncd[tensorboard]'"
                )
            return _Tensorboard(folder)
    return _Nothing()


class _Nothing:
    def log(self, figures: dict[str, float], step: int) -> None: ...

    def summarise(self, figures: dict[str, float]) -> None: ...

    def finish(self) -> None: ...


class _Tensorboard:
    """Starts with the first figures, like `_Wandb`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def log(self, figures: dict[str, float], step: int) -> None:
        writer = self._started()
        for key, value in figures.items():
            writer.add_scalar(key, value, step)

    def summarise(self, figures: dict[str, float]) -> None:
        self._started().add_hparams({}, figures, run_name=".")

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _started(self) -> SummaryWriter:
        if self._writer is None:
            # Imported here because it takes seconds to load.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
        return self._writer


class _Wandb:
    """Starts with the first figures, so that a run that fails on bad input writes nothing."""

    def __init__(
        self, config: WandbConfig, folder: Path, name: str, settings: dict[str, Any]
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                "tracker=wandb is not installed; pip install wandb, or set tracker=none"
            ) from error
        if config.mode == "online" and not wandb.login(prompt=False):
            raise InputError(
                "tracker.mode=online: wandb has no API key; run `wandb login` once, set "
                "WANDB_API_KEY, or keep tracker.mode=offline"
            )
        self._run: wandb.Run | None = None
        self._id = folder / "wandb" / "run_id"
        self._start = lambda: wandb.init(
            project=config.project,
            group=config.group,
            name=name,
            dir=str(folder),
            mode="online" if config.mode == "online" else "offline",
            config=settings,
            id=self._run_id(),
            resume="allow" if config.mode == "online" else None,  # offline, only the id matters
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )

    def _run_id(self) -> str:
        """One id per run folder, so that a resumed run stays one run in wandb."""
        if self._id.is_file():
            known = self._id.read_text(encoding="utf-8", errors="replace")
            if re.fullmatch(r"[0-9a-f]{16}", known):
                return known
        self._id.parent.mkdir(exist_ok=True)
        run_id = secrets.token_hex(8)
        with atomic_write(self._id) as draft:
            draft.write_text(run_id, encoding="utf-8")
        return run_id

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run = self._run or self._start()
        self._run.log(figures, step=step)

    def summarise(self, figures: dict[str, float]) -> None:
        self._run = self._run or self._start()
        self._run.summary.update(figures)

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()
