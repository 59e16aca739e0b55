"""Finished epochs on disk, so that a killed training resumes from the last one kept."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anomalyncd.errors import InputError
from anomalyncd.models.model import Model
from anomalyncd.runtime.devices import PRECISIONS
from anomalyncd.storage import foreign
from anomalyncd.storage.tensors import copy_tensors, load_tensors, require_like, save_tensors
from anomalyncd.training.objective import TERMS

log = logging.getLogger(__name__)

_INTERVAL = 19  # times what keeping an epoch took, until the next is kept


@dataclass(frozen=True)
class _Kept:
    """What stands beside the weights of a kept epoch."""

    fingerprint: str
    epochs_done: int
    history: list[list[float]]
    precision: str = ""  # of the frozen blocks; an earlier version did not write it

    def __post_init__(self) -> None:
        if self.precision not in ("", *PRECISIONS):
            raise InputError(f"precision {self.precision[:20]!r}")
        if not 1 <= self.epochs_done == len(self.history):
            raise InputError(f"a history of {len(self.history)} for {self.epochs_done} epochs")


class TrainingState:
    """Keeps a finished epoch on disk now and then, for a killed run to resume from."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """
        Args:
            path: of the file.
            fingerprint: of all that is trained on; a state of other data is not resumed.
        """
        self.path = path
        self.fingerprint = fingerprint
        self.epochs_done = 0
        self.resumed_after = 0  # epochs that an earlier process had done
        self.precision: torch.dtype | None = None  # in which these epochs were computed
        self._due = 0.0  # when the next epoch is worth keeping

    def load(self, model: Model, optimizer: torch.optim.SGD) -> list[list[float]]:
        """Put the kept epoch back into model and optimizer; its history, empty if none is kept.

        Raises:
            InputError: the file is damaged or not of this network.
        """
        if not self.path.exists():
            return []
        try:
            tensors, header = load_tensors(self.path)
            del header["format"]
            kept = foreign.build(_Kept, header, str(self.path))
            if kept.fingerprint != self.fingerprint:
                log.warning(
                    "The data or weights have changed since epoch %d: training starts from scratch",
                    kept.epochs_done,
                )
                return []
            figures = len(TERMS) + len(model.heads.prototypes)  # of an epoch that had a batch
            if any(len(row) not in (0, figures) for row in kept.history):
                raise InputError(f"{self.path}: a row of history without {figures} figures")
            parameters = dict(model.trainable())
            momenta = {f"momentum:{name}": p for name, p in parameters.items()}
            if tensors.keys() != parameters.keys() | momenta.keys():
                raise InputError(f"{self.path}: weights missing or left over")
            for name, p in momenta.items():
                require_like(tensors[name], p, name, self.path)
            copy_tensors({name: tensors[name] for name in parameters}, parameters, self.path)
        except InputError as error:
            raise InputError(
                f"{error}; rerun=true archives this folder and starts from scratch"
            ) from error
        for name, p in momenta.items():
            optimizer.state[p]["momentum_buffer"] = tensors[name].to(p.device)
        self.epochs_done = self.resumed_after = kept.epochs_done
        self.precision = PRECISIONS.get(kept.precision)
        log.info("Resuming after epoch %d", self.epochs_done)
        return kept.history

    @property
    def is_due(self) -> bool:
        """Keeping an epoch now makes all keeping cost a twentieth of training at most."""
        return time.monotonic() >= self._due

    def save(
        self,
        model: Model,
        optimizer: torch.optim.SGD,
        epochs_done: int,
        history: list[list[float]],
    ) -> None:
        """Keep an epoch, in the place of the one before."""
        start = time.monotonic()
        tensors: dict[str, Tensor] = dict(model.trainable())
        for name, p in model.trainable():
            momentum = optimizer.state[p].get("momentum_buffer")
            tensors[f"momentum:{name}"] = torch.zeros_like(p) if momentum is None else momentum
        header = {
            "fingerprint": self.fingerprint,
            "epochs_done": epochs_done,
            "history": history,
            "precision": str(model.vit.precision).removeprefix("torch."),
        }
        save_tensors(self.path, tensors, header)
        self.epochs_done = epochs_done
        end = time.monotonic()
        self._due = end + _INTERVAL * (end - start)

    def discard(self) -> None:
        """Remove the file that this run wrote; the finished model stands in its place."""
        self.path.unlink(missing_ok=True)
