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
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from anomalyncd import backbone as backbones
from anomalyncd import model as models
from anomalyncd.atomic import written_whole
from anomalyncd.backbone import Backbone
from anomalyncd.cache import digest
from anomalyncd.config import (
    AttentionConfig,
    BackboneConfig,
    FitConfig,
    FusionConfig,
    MebinConfig,
    RegionsConfig,
)
from anomalyncd.errors import InputError
from anomalyncd.model import Model

log = logging.getLogger(__name__)

_FORMAT = 2  # 2: frozen weights are known by the hash of their file
_KEY = "anomalyncd"
_APART = 19  # times what keeping an epoch took, until the next is kept


@dataclass(frozen=True)
class Recipe:
    """All that prediction needs beside the weights."""

    backbone: BackboneConfig
    backbone_source: str  # hub, file or random
    attention: AttentionConfig
    mebin: MebinConfig  # with the search range of the training maps
    regions: RegionsConfig
    fusion: FusionConfig
    fit: FitConfig
    raw_range: tuple[float, float] | None  # of the training maps before they became 8-bit
    head: int  # the classifier that is used
    base_classes: tuple[str, ...]
    class_names: tuple[str, ...]  # of the K novel classes
    frozen_hash: str


def save_model(path: Path, model: Model, recipe: Recipe) -> None:
    tensors: dict[str, Tensor] = dict(model.trainable())
    if recipe.backbone_source == "random":
        tensors |= dict(model.frozen())
    _save(path, tensors, {"recipe": asdict(recipe)})


def load_model(path: Path, weights: str | None = None) -> tuple[Model, Recipe]:
    """Rebuild a trained model, strictly: every weight must be there, none may be left over.

    Args:
        path: the model's file.
        weights: where the backbone's weights file is now, if it has been moved.

    Raises:
        InputError: not such a file, of another version, or its frozen weights have changed.
    """
    tensors, header = _load(path)
    stored = header["recipe"]
    recipe = Recipe(
        backbone=BackboneConfig(**stored["backbone"]),
        backbone_source=stored["backbone_source"],
        attention=AttentionConfig(**stored["attention"]),
        mebin=MebinConfig(**stored["mebin"]),
        regions=RegionsConfig(**stored["regions"]),
        fusion=FusionConfig(**stored["fusion"]),
        fit=FitConfig(**stored["fit"]),
        raw_range=tuple(stored["raw_range"]) if stored["raw_range"] else None,
        head=stored["head"],
        base_classes=tuple(stored["base_classes"]),
        class_names=tuple(stored["class_names"]),
        frozen_hash=stored["frozen_hash"],
    )
    backbone = backbones.build(
        replace(recipe.backbone, checkpoint=weights or recipe.backbone.checkpoint)
    )
    model = models.build(
        backbone,
        recipe.attention,
        recipe.fit,
        n_base=len(recipe.base_classes),
        n_novel=len(recipe.class_names),
    )
    own = dict(model.named_parameters())
    expected = set(own) if recipe.backbone_source == "random" else dict(model.trainable()).keys()
    if expected != tensors.keys():
        odd = sorted(expected ^ tensors.keys())[:3]
        raise InputError(f"{path}: weights missing or left over: {', '.join(odd)} …")
    _copy(tensors, own, path)
    stored_here = recipe.backbone_source == "random"
    if not stored_here and frozen_hash(backbone) != recipe.frozen_hash:
        raise InputError(
            f"{recipe.backbone.checkpoint or recipe.backbone.name}: its weights are not those that "
            f"{path} was trained on; restore them, or train again"
        )
    return model, recipe


def frozen_hash(backbone: Backbone) -> str:
    """Hash of where all training starts: the stored weights, and the image size."""
    return digest(backbone.weights_hash, backbone.vit.patch_embed.img_size)


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
            if header["fingerprint"] != self.fingerprint:
                log.warning(
                    "The data or weights have changed since epoch %d: training anew",
                    header["epochs_done"],
                )
                return []
            parameters = dict(model.trainable())
            momenta = {f"momentum:{name}": p for name, p in parameters.items()}
            if tensors.keys() != parameters.keys() | momenta.keys():
                raise InputError(f"{self.path}: weights missing or left over")
            _copy({name: tensors[name] for name in parameters}, parameters, self.path)
        except InputError as error:
            raise InputError(
                f"{error}; rerun=true sets this folder aside and starts anew"
            ) from error
        for name, p in momenta.items():
            optimizer.state[p]["momentum_buffer"] = tensors[name].to(p.device)
        self.epochs_done = self.resumed_after = header["epochs_done"]
        log.info("Going on after epoch %d", self.epochs_done)
        return header["history"]

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
    with written_whole(path) as draft:
        try:
            save_file(own, draft, metadata={_KEY: json.dumps({"format": _FORMAT, **header})})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not written by anomalyncd, or damaged ({error})") from error
    if header.get("format") != _FORMAT:
        raise InputError(
            f"{path}: format {header.get('format')}; this version reads format {_FORMAT}"
        )
    return tensors, header


@torch.no_grad()
def _copy(tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter], path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.shape != parameters[name].shape:
            raise InputError(
                f"{path}: {name} is {tuple(tensor.shape)}; expected {tuple(parameters[name].shape)}"
            )
        parameters[name].copy_(tensor)
