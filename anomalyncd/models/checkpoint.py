"""A finished model in one file: the trained weights, and all other data that prediction needs.

Frozen weights are not stored but checked by their hash, unless they are random: those exist
nowhere else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from torch import Tensor

from anomalyncd.config import (
    MAX_CLASSES,
    AttentionConfig,
    BackboneConfig,
    FusionConfig,
    MebinConfig,
    RegionsConfig,
    TrainConfig,
)
from anomalyncd.errors import InputError
from anomalyncd.models import backbone as backbones
from anomalyncd.models import model as models
from anomalyncd.models.backbone import Backbone
from anomalyncd.models.model import Model
from anomalyncd.storage import foreign
from anomalyncd.storage.cache import digest
from anomalyncd.storage.tensors import copy_tensors, load_tensors, save_tensors


@dataclass(frozen=True)
class ModelMetadata:
    """All that prediction needs besides the weights."""

    backbone: BackboneConfig
    backbone_source: str  # hub, file or random
    attention: AttentionConfig
    mebin: MebinConfig  # with the search range, and the gate, of the training maps
    regions: RegionsConfig
    fusion: FusionConfig
    train: TrainConfig
    raw_range: tuple[float, float] | None  # of the training maps before they became 8-bit
    head: int  # the classifier used for prediction
    base_classes: tuple[str, ...]
    class_names: tuple[str, ...]  # of the K novel classes
    frozen_hash: str

    def __post_init__(self) -> None:
        if self.backbone_source not in get_args(backbones.Source):
            raise InputError(f"backbone_source is {self.backbone_source[:60]!r}")
        if not 0 <= self.head < self.train.heads:
            raise InputError(f"head is {self.head}; expected one of {self.train.heads}")
        if not 2 <= len(self.class_names) <= MAX_CLASSES:
            raise InputError(f"{len(self.class_names)} class_names; expected 2 to {MAX_CLASSES}")
        if self.mebin.search_range is None:
            raise InputError("mebin.search_range is missing")
        if self.mebin.method == "adaptive" and self.mebin.gate is None:
            raise InputError("mebin.gate is missing")
        if self.raw_range and not self.raw_range[0] <= self.raw_range[1]:
            raise InputError(f"raw_range is {self.raw_range}; expected the lower value first")


def save_model(path: Path, model: Model, metadata: ModelMetadata) -> None:
    tensors: dict[str, Tensor] = dict(model.trainable())
    if metadata.backbone_source == "random":
        tensors |= dict(model.frozen())
    save_tensors(path, tensors, {"metadata": asdict(metadata)})


# How to pass the new place of a run's weights file, on the command line and in Python.
_MOVED = "checkpoint=… (in Python: weights=…)"


def load_model(path: Path, weights: str | None = None) -> tuple[Model, ModelMetadata]:
    """Load a trained model, strictly: weights may be neither missing nor left over.

    Args:
        path: the model's file.
        weights: the backbone's weights file, if it has been moved.

    Raises:
        InputError: the file is not a model, or of another version; its header does not match its
            weights; weights are not finite; or the frozen weights have changed.
    """
    tensors, header = load_tensors(path)
    metadata = foreign.build(
        ModelMetadata, header.get("metadata"), f"{path}: its header", complete=True
    )
    _require_sizes(metadata, tensors, path)
    backbone = backbones.build(
        replace(metadata.backbone, checkpoint=weights or metadata.backbone.checkpoint),
        moved=_MOVED,
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
    copy_tensors(tensors, own, path)
    stored_here = metadata.backbone_source == "random"
    if not stored_here and frozen_hash(backbone) != metadata.frozen_hash:
        raise InputError(
            f"{metadata.backbone.checkpoint or metadata.backbone.name}: its weights are not those "
            f"that {path} was trained on; restore them, or train again"
        )
    return model, metadata


def _require_sizes(metadata: ModelMetadata, tensors: dict[str, Tensor], path: Path) -> None:
    """The network that the header asks for is as large as the weights; before it is made."""
    n_classes = len(metadata.base_classes) + len(metadata.class_names)
    train = metadata.train
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
