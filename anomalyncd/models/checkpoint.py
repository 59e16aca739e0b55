"""Models and training states as safetensors with a JSON header; no pickles.

A finished model holds what was trained and all that prediction needs. Frozen weights are left
where they come from and checked by their hash, unless they are random, when nobody else has them.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from anomalyncd.config import (
    MAX_CLASSES,
    AttentionConfig,
    BackboneConfig,
    TrainConfig,
    FusionConfig,
    MebinConfig,
    RegionsConfig,
)
from anomalyncd.errors import InputError
from anomalyncd.models import backbone as backbones
from anomalyncd.models import model as models
from anomalyncd.models.backbone import Backbone
from anomalyncd.models.model import Model
from anomalyncd.storage import foreign
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.storage.cache import digest

log = logging.getLogger(__name__)

_FORMAT = 2  # 2: frozen weights are known by the hash of their file
_KEY = "anomalyncd"
_APART = 19  # times what keeping an epoch took, until the next is kept


@dataclass(frozen=True)
class ModelMetadata:
    """All that prediction needs beside the weights."""

    backbone: BackboneConfig
    backbone_source: str  # hub, file or random
    attention: AttentionConfig
    mebin: MebinConfig  # with the search range of the training maps
    regions: RegionsConfig
    fusion: FusionConfig
    fit: TrainConfig
    raw_range: tuple[float, float] | None  # of the training maps before they became 8-bit
    head: int  # the classifier that is used
    base_classes: tuple[str, ...]
    class_names: tuple[str, ...]  # of the K novel classes
    frozen_hash: str

    def __post_init__(self) -> None:
        if self.backbone_source not in get_args(backbones.Source):
            raise InputError(f"backbone_source is {self.backbone_source[:60]!r}")
        if not 0 <= self.head < self.fit.heads:
            raise InputError(f"head is {self.head}; expected one of {self.fit.heads}")
        if not 2 <= len(self.class_names) <= MAX_CLASSES:
            raise InputError(f"{len(self.class_names)} class_names; expected 2 to {MAX_CLASSES}")
        if self.mebin.search_range is None:
            raise InputError("mebin.search_range is missing")
        if self.raw_range and not self.raw_range[0] <= self.raw_range[1]:
            raise InputError(f"raw_range is {self.raw_range}; expected the lower value first")


def save_model(path: Path, model: Model, metadata: ModelMetadata) -> None:
    tensors: dict[str, Tensor] = dict(model.trainable())
    if metadata.backbone_source == "random":
        tensors |= dict(model.frozen())
    _save(path, tensors, {"metadata": asdict(metadata)})


def load_model(path: Path, weights: str | None = None) -> tuple[Model, ModelMetadata]:
    """Rebuild a trained model, strictly: every weight must be there, none may be left over.

    Args:
        path: the model's file.
        weights: where the backbone's weights file is now, if it has been moved.

    Raises:
        InputError: not such a file, of another version, its header does not go with its weights,
            these are not finite, or its frozen weights have changed.
    """
    tensors, header = _load(path)
    metadata = foreign.build(ModelMetadata, header.get("metadata"), f"{path}: its header")
    _require_sizes(metadata, tensors, path)
    backbone = backbones.build(
        replace(metadata.backbone, checkpoint=weights or metadata.backbone.checkpoint)
    )
    model = models.build(
        backbone,
        metadata.attention,
        metadata.train,
        n_base=len(metadata.base_classes),
        n_novel=len(metadata.class_names),
    )
    own = dict(model.named_parameters())
    expected = set(own) if metadata.backbone_source == "random" else dict(model.trainable()).keys()
    if expected != tensors.keys():
        odd = sorted(expected ^ tensors.keys())[:3]
        raise InputError(f"{path}: weights missing or left over: {', '.join(odd)} …")
    _copy(tensors, own, path)
    stored_here = metadata.backbone_source == "random"
    if not stored_here and frozen_hash(backbone) != metadata.frozen_hash:
        raise InputError(
            f"{metadata.backbone.checkpoint or metadata.backbone.name}: its weights are not those that "
            f"{path} was trained on; restore them, or train again"
        )
    return model, metadata


def _require_sizes(metadata: ModelMetadata, tensors: dict[str, Tensor], path: Path) -> None:
    """The network that the header asks for is as large as the weights; before it is made."""
    n_classes = len(metadata.base_classes) + len(metadata.class_names)
    fit = metadata.train
    for name, expected in (
        ("heads.prototypes", (train.heads, n_classes, None)),
        ("heads.projector.0.weight", (train.hidden, None)),
        ("heads.projector.4.weight", (train.bottleneck, train.hidden)),
    ):
        shape = tuple(tensors[name].shape) if name in tensors else ()
        fits = len(shape) == len(expected) and all(
            size in (found, None) for found, size in zip(shape, expected, strict=True)
        )
        if not fits:
            sizes = " × ".join("any" if size is None else str(size) for size in expected)
            raise InputError(
                f"{path}: {name} is {' × '.join(map(str, shape)) or 'missing'}, and its header "
                f"says {sizes}: damaged, or changed by hand"
            )


def frozen_hash(backbone: Backbone) -> str:
    """Hash of where all training starts: the stored weights, and the image size."""
    return digest(backbone.weights_hash, backbone.vit.patch_embed.img_size)


@dataclass(frozen=True)
class _Kept:
    """What stands beside the weights of a kept epoch."""

    fingerprint: str
    epochs_done: int
    history: list[list[float]]

    def __post_init__(self) -> None:
        lengths = {len(figures) for figures in self.history if figures}
        if not 1 <= self.epochs_done == len(self.history) or len(lengths) > 1:
            raise InputError(f"a history of {len(self.history)} for {self.epochs_done} epochs")


class TrainingState:
    """Keeps a finished epoch on disk now and then, so that a killed run can go on from it."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """
        Args:
            path: of the file.
            fingerprint: of all that is trained on; a state of other data is not gone on from.
        """
        self.path = path
        self.fingerprint = fingerprint
        self.epochs_done = 0
        self.resumed_after = 0  # epochs that an earlier process had done
        self._due = 0.0  # when the next epoch is worth keeping

    def load(self, model: Model, optimizer: torch.optim.SGD) -> list[list[float]]:
        """Put the kept epoch back into model and optimizer; its history, empty if none is kept.

        Raises:
            InputError: the file is damaged or not of this network.
        """
        if not self.path.exists():
            return []
        try:
            tensors, header = _load(self.path)
            del header["format"]
            kept = foreign.build(_Kept, header, str(self.path))
            if kept.fingerprint != self.fingerprint:
                log.warning(
                    "The data or weights have changed since epoch %d: training anew",
                    kept.epochs_done,
                )
                return []
            parameters = dict(model.trainable())
            momenta = {f"momentum:{name}": p for name, p in parameters.items()}
            if tensors.keys() != parameters.keys() | momenta.keys():
                raise InputError(f"{self.path}: weights missing or left over")
            for name, p in momenta.items():
                _require_like(tensors[name], p, name, self.path)
            _copy({name: tensors[name] for name in parameters}, parameters, self.path)
        except InputError as error:
            raise InputError(
                f"{error}; rerun=true sets this folder aside and starts anew"
            ) from error
        for name, p in momenta.items():
            optimizer.state[p]["momentum_buffer"] = tensors[name].to(p.device)
        self.epochs_done = self.resumed_after = kept.epochs_done
        log.info("Going on after epoch %d", self.epochs_done)
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
        _save(
            self.path,
            tensors,
            {"fingerprint": self.fingerprint, "epochs_done": epochs_done, "history": history},
        )
        self.epochs_done = epochs_done
        end = time.monotonic()
        self._due = end + _APART * (end - start)

    def discard(self) -> None:
        """Remove the file that this run wrote; the finished model stands in its place."""
        self.path.unlink(missing_ok=True)


def _save(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    own = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_write(path) as draft:
        try:
            save_file(own, draft, metadata={_KEY: json.dumps({"format": _FORMAT, **header})})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = foreign.parse_json((file.metadata() or {})[_KEY], f"{path}: its header")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not written by anomalyncd, or damaged ({error})") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != _FORMAT:
        raise InputError(f"{path}: format {str(found)[:60]}; this version reads format {_FORMAT}")
    return tensors, header


@torch.no_grad()
def _copy(tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter], path: Path) -> None:
    for name, tensor in tensors.items():
        _require_like(tensor, parameters[name], name, path)
        parameters[name].copy_(tensor)


def _require_like(tensor: Tensor, own: Tensor, name: str, path: Path) -> None:
    """A stored tensor can stand for one of the network."""
    if tensor.shape != own.shape:
        raise InputError(f"{path}: {name} is {tuple(tensor.shape)}; expected {tuple(own.shape)}")
    if tensor.dtype != own.dtype:
        raise InputError(f"{path}: {name} is of {tensor.dtype}; expected {own.dtype}")
    if not tensor.isfinite().all():
        raise InputError(f"{path}: {name} holds values that are not finite numbers; train again")
