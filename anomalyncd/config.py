"""The settings of a run: their types, defaults and valid combinations.

Hydra composes them from `configs/` and the command line, and rejects unknown keys and wrong types;
invalid combinations are rejected here. Configuration is read, never written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import PurePath
from typing import Any, Literal, cast, get_args

from omegaconf import MISSING

from anomalyncd import typed
from anomalyncd.errors import InputError
from anomalyncd.types import (
    AreaUnit,
    FeatureSource,
    MaskedQueries,
    MaskPooling,
    Precision,
    RegionLabels,
    ResizeMode,
    Weighting,
)

MAX_SIDE = 4096  # pixels of a view, an image in a detector, or a map
MAX_CLASSES = 10_000
FEWEST_COMPARED = 5  # photographs that can be compared with each other

Compat = Literal["none", "release"]
Binarization = Literal["mebin", "fixed", "otsu", "adaptive"]
FullMask = Literal["keep", "empty"]
Comparison = Literal["nearest", "subspace"]
Subfolders = Literal["labels", "pile"]
Unreadable = Literal["stop", "skip"]

UNKNOWN_SHARE = 0.05  # of what a run knows that prediction may call unknown
MAX_MEGAPIXELS = 100  # of one image or map; a larger file may be made to fill the memory
HIGHEST_MAX_MEGAPIXELS = 1000  # the largest value of the setting

# Settings of `compat=release`: what the release computes, where it changes figures.
RELEASE: dict[str, Any] = {
    "novel_classes": "auto",  # K_n is counted from the label folders
    "regions.resize_mode": "compat",  # of a non-square region, only the top-left square is used
    "regions.full_mask": "empty",  # a mask that covers its whole image is saved black
    "train.features": "online",
    "train.precision": "float32",
    "discovery.members": 1,  # one head decides
    "fusion.area_unit": "pixels",  # of the source image, so that τ depends on its resolution
    "evaluation.region_labels": "image",  # a false alarm beside a defect counts as that defect
}


# Settings of earlier versions → their new names.
RENAMED = {
    "fit.trunk": "train.features (exact is online, bank is cached)",
    "fit.views": "train.cached_views",
    "fit.base_weight": "train.sup_weight",
    "fit.entropy_weight": "train.memax_weight",
    "fit": "train",
    "backbone.side": "backbone.image_size",
    "detector.backbone.side": "detector.backbone.image_size",
    "detector.map_side": "detector.map_size",
    "detector.lowest": "detector.topmin_max",
    "regions.fit": "regions.resize_mode",
    "attention.mask_on": "attention.masked_queries",
    "attention.keep_pool": "attention.mask_pooling",
    "attention.keep_threshold": "attention.mask_threshold",
}


def renamed(key: str) -> str:
    """The new name of a setting of earlier versions; empty if it has none."""
    if key in RENAMED:
        return RENAMED[key]
    group, _, name = key.partition(".")
    return RENAMED[group] + "." * bool(name) + name if group in RENAMED else ""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def require_max_megapixels(value: int) -> None:
    """Raise InputError for a size out of range."""
    known = 1 <= value <= HIGHEST_MAX_MEGAPIXELS
    _require(known, f"max_megapixels={value}: expected 1 to {HIGHEST_MAX_MEGAPIXELS}")


def require_unknown_share(value: float) -> None:
    """Raise InputError for a share out of range."""
    known = 0 <= value <= 0.5
    _require(known, f"unknown_share={value}: expected 0 (no verdict `unknown`) to 0.5")


def _one_of(key: str, value: str, choices: Any) -> None:
    names = get_args(choices)
    _require(value in names, f"{key}={value}: expected one of {', '.join(names)}")


def require_forward_batch(forward_batch: int) -> None:
    """Raise InputError for a number out of range."""
    holds = 1 <= forward_batch <= 65536
    _require(holds, f"forward_batch={forward_batch}: expected 1 to 65536")


def _not_negative(owner: Any, group: str, *keys: str) -> None:
    for key in keys:
        value = getattr(owner, key)
        _require(0 <= value < 2**63, f"{group}.{key}={value}: expected a number ≥ 0")


def _within(owner: Any, group: str, low: int, **most: int) -> None:
    """Wide bounds: a value beyond them is a typing error, or needs more memory than exists."""
    for key, high in most.items():
        value = getattr(owner, key)
        _require(low <= value <= high, f"{group}.{key}={value}: expected {low} to {high}")


_LARGEST = 1e30  # well within float32


def _positive(owner: Any, group: str, *keys: str) -> None:
    for key in keys:
        value = getattr(owner, key)
        _require(
            0 < value <= _LARGEST, f"{group}.{key}={value}: expected above 0, at most {_LARGEST:g}"
        )


class _Typed:
    """Settings that are checked to be complete and of their annotated types, whether Hydra or
    Python code created them."""

    def __post_init__(self) -> None:
        for name, hint in typed.hints(cast(Any, type(self))).items():
            where, value = f"{type(self).__name__}.{name}", getattr(self, name)
            is_set = not isinstance(value, str) or value != MISSING
            _require(is_set, f"{where} is not set; give {name}=…")
            setattr(self, name, typed.converted(hint, value, where, _group))


def _group(schema: type, value: Any, where: str) -> Any:
    known = isinstance(value, schema)
    _require(known, f"{where}: expected {schema.__name__}(…), found {typed.named(value)}")
    return value


@dataclass
class _Choice(_Typed):
    """One option of a group. `kind` is its name; setting `kind` does not select an option."""

    kind: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        own = type(self).kind
        _require(
            self.kind == own,
            f"kind={self.kind} does not replace {own}; select the group's option, "
            "such as detector=files, not detector.kind=files",
        )


@dataclass
class DatasetConfig(_Choice):
    """Where the unlabelled images are, and how their folders are read."""

    leave_out: list[str] = field(default_factory=list)  # type folders that are not read
    unscored: list[str] = field(
        default_factory=list
    )  # read and classified, but not a class for scores


@dataclass
class DemoConfig(DatasetConfig):
    kind: str = "demo"
    seed: int = 0  # of the drawing, not of the run
    train: int = 24  # defect-free training images
    good: int = 20  # defect-free test images
    per_class: int = 16  # images of each kind of defect
    combined: int = 8  # images with two kinds of defect

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(self, "dataset", "seed")
        images = dict.fromkeys(("train", "good", "per_class", "combined"), 100_000)
        _within(self, "dataset", 0, **images)


@dataclass
class MvtecConfig(DatasetConfig):
    kind: str = "mvtec"
    path: str = MISSING  # holds <category>/{train,test,ground_truth}


@dataclass
class FolderConfig(DatasetConfig):
    kind: str = "folder"
    path: str = MISSING  # holds images, or class folders of images, or both
    good: str | None = None  # a folder of known-good photographs, for detectors that learn
    normal: str = "good"  # the class folder with defect-free images, if there is one
    # labels: sub-folders are classes, used for scores. pile: they mean nothing, at any depth.
    subfolders: str = "labels"
    # stop: an image that cannot be read ends the run. skip: it is left out, with a warning.
    unreadable: str = "stop"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("dataset.subfolders", self.subfolders, Subfolders)
        _one_of("dataset.unreadable", self.unreadable, Unreadable)


@dataclass
class MtdConfig(DatasetConfig):
    kind: str = "mtd"
    path: str = MISSING  # holds MT_<class>/Imgs
    # A file in `path` with the names of the MT_Free images for training; null: all are for testing.
    train_list: str | None = "mtd_train_filenames.txt"


@dataclass
class CustomDatasetConfig(DatasetConfig):
    """Images listed by the user's own function."""

    kind: str = "custom"
    target: str = MISSING  # importable_module:function, which returns a `types.Dataset`
    options: dict[str, Any] = field(default_factory=dict)  # its arguments


@dataclass
class BaseConfig(_Choice):
    """The labelled base set; this class is `base=none`."""

    kind: str = "none"


@dataclass
class EmbeddedBaseConfig(BaseConfig):
    """The one inside the package, drawn by scripts/make_base_set.py."""

    kind: str = "embedded"


@dataclass
class FolderBaseConfig(BaseConfig):
    kind: str = "folder"
    path: str = MISSING  # holds images/<class>/* and masks/<class>/<same stem>.*


@dataclass
class CustomBaseConfig(BaseConfig):
    """A labelled base set listed by the user's own function."""

    kind: str = "custom"
    target: str = MISSING  # importable_module:function, which returns a `types.Dataset`
    options: dict[str, Any] = field(default_factory=dict)  # its arguments


@dataclass
class DrawnBaseConfig(BaseConfig):
    kind: str = "demo"
    seed: int = 0
    per_class: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(self, "base", "seed")
        _within(self, "base", 1, per_class=100_000)  # base=none leaves it out


@dataclass
class DetectorConfig(_Choice):
    """Where anomaly maps come from."""

    @property
    def label(self) -> str:
        """A folder's name that distinguishes runs with different maps."""
        return self.kind


@dataclass
class GroundTruthConfig(DetectorConfig):
    kind: str = "ground_truth"


@dataclass
class FilesDetectorConfig(DetectorConfig):
    kind: str = "files"
    # Holds <category>/<type>/<stem>.{png,npy,npz,tiff}. Empty in a prediction: the run's own
    # detector makes the maps.
    path: str = MISSING

    @property
    def label(self) -> str:
        return f"files-{PurePath(os.path.abspath(self.path)).name}"


@dataclass
class SimulatedDetectorConfig(DetectorConfig):
    kind: str = "simulated"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(self, "detector", "seed")


@dataclass
class AnomalibDetectorConfig(DetectorConfig):
    kind: str = "anomalib"
    model: str = MISSING  # patchcore, padim, efficientad, reverse_distillation, dinomaly, …
    options: dict[str, Any] = field(default_factory=dict)  # of the model, as in anomalib
    epochs: int | None = None  # for models without a default duration of training …
    steps: int | None = None  # … or optimiser steps; with both, the shorter one
    image_size: int | None = None  # side in pixels that images are resized to; null: the model's
    batch_size: int = 8  # EfficientAD always trains on single images
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        most = {"epochs": 10**6, "steps": 10**9, "image_size": MAX_SIDE, "batch_size": 10**5}
        given = {key: high for key, high in most.items() if getattr(self, key) is not None}
        _within(self, "detector", 1, **given)

    @property
    def label(self) -> str:
        return self.model


@dataclass
class CustomDetectorConfig(DetectorConfig):
    """The user's own detector, in one file."""

    kind: str = "custom"
    target: str = MISSING  # importable_module:ClassName
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the class

    @property
    def label(self) -> str:
        return self.target.rpartition(":")[2]


@dataclass
class BackboneConfig(_Typed):
    name: str = MISSING  # any timm ViT with a class token
    pretrained: bool = True  # weights from the hub, unless `checkpoint` names a file
    checkpoint: str | None = None  # a local weights file, .safetensors or .pth
    image_size: int = 224  # pixels of a view

    def __post_init__(self) -> None:
        super().__post_init__()
        # The widest blur reflects 16 pixels at the border.
        _within(self, "backbone", 17, image_size=MAX_SIDE)


@dataclass
class MuscDetectorConfig(DetectorConfig):
    """Mutual scoring of the unlabelled images; see `detectors/musc.py`."""

    kind: str = "musc"
    # None: hand-made descriptors without weights (`detectors/descriptors.py`)
    backbone: BackboneConfig | None = field(
        default_factory=lambda: BackboneConfig("vit_large_patch14_clip_336.openai", image_size=518)
    )
    stages: int = 4  # number of compared blocks: equally spaced, including the last
    degrees: list[int] = field(default_factory=lambda: [1, 3, 5])  # neighbourhoods, in patches
    topmin_max: float = 0.3  # share of the other images, the nearest ones, that score a patch
    map_size: int = 256
    reweight: bool = False  # scale maps by how anomalous similar images are
    windows: list[int] = field(default_factory=lambda: [1, 2, 3])  # of similar images
    memory_gb: float = 4.0  # for comparing patches, on the device

    def __post_init__(self) -> None:
        super().__post_init__()
        odd = bool(self.degrees) and all(degree % 2 and 0 < degree < 100 for degree in self.degrees)
        if not odd:
            raise InputError(
                f"detector.degrees={self.degrees}: expected odd numbers, such as [1,3,5]"
            )
        if not 0 < self.topmin_max <= 1:
            raise InputError(f"detector.topmin_max={self.topmin_max}: expected in (0, 1]")
        if not self.windows or min(self.windows) < 1 or max(self.windows) > 10**6:
            raise InputError(f"detector.windows={self.windows}: expected numbers from 1 to 1000000")
        _within(self, "detector", 1, stages=1000, map_size=MAX_SIDE)
        _positive(self, "detector", "memory_gb")

    @property
    def label(self) -> str:
        return f"{self.kind}-{self.backbone.name if self.backbone else 'descriptors'}"


@dataclass
class ReferenceDetectorConfig(DetectorConfig):
    """Comparison with known-good photographs, or with each other; see `detectors/reference/`."""

    kind: str = "reference"
    # Images are compared with each other at this size, and with known-good ones also at half of it,
    # but then not enlarged.
    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig("embedded", image_size=512)
    )
    # nearest: distance to the nearest of a bank of good patches. subspace: what the principal
    # components of good patches leave unexplained, cheaper and less exact.
    comparison: str = "nearest"
    bank_size: int = 2000  # nearest: patches of good images that are kept, at each size …
    neighbours: int = 8  # … and patches of the bank whose distance says how widely it is spaced
    explained: float = 0.99  # subspace: share of the variance that the components explain
    panel: int = 128  # without known-good photographs: images that the others are compared with
    map_size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("detector.comparison", self.comparison, Comparison)
        known = 0 < self.explained < 1
        _require(known, f"detector.explained={self.explained}: expected above 0 and below 1")
        _within(self, "detector", 2, bank_size=10**6, map_size=MAX_SIDE)
        _within(self, "detector", FEWEST_COMPARED, panel=10_000)
        _within(self, "detector", 1, neighbours=1000)

    @property
    def label(self) -> str:
        kind = "subspace" if self.comparison == "subspace" else self.kind
        return f"{kind}-{self.backbone.name}"


@dataclass
class MebinConfig(_Typed):
    # mebin: the published one. adaptive: a gate for images, then a mask with the image's edges.
    # fixed, otsu: the thresholds that MEBin is compared with. See `regions/binarization.py`.
    method: str = "mebin"
    threshold: float = 0.5  # of method=fixed: a share of the maps' full scale
    step: int = 4  # between thresholds, in 1/255 of the search range
    min_interval: int = 4  # thresholds over which a count must be constant to be stable
    erosion: int = 6  # side of the square that thin links are eroded with; 0: none
    # [lo, hi] in levels of the 8-bit maps, 0 to 255; None: lowest and highest peak of the maps
    search_range: list[float] | None = None
    # of method=adaptive: one defect-free with more than this probability has no region …
    normal_probability: float = 0.5
    # … so that their worst spot must exceed this level, 0 to 255; None: it is found
    gate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("mebin.method", self.method, Binarization)
        chance = self.normal_probability
        known = 0 < chance < 1
        _require(known, f"mebin.normal_probability={chance}: expected above 0 and below 1")
        if self.gate is not None:
            _require(0 <= self.gate <= 255, f"mebin.gate={self.gate}: expected 0 to 255")
            _require(
                self.method == "adaptive",
                f"mebin.gate={self.gate} with mebin.method={self.method}: only adaptive has a gate",
            )
        known = 0 <= self.threshold < 1
        _require(known, f"mebin.threshold={self.threshold}: expected 0 or more and below 1")
        _require(1 <= self.step <= 255, f"mebin.step={self.step}: expected 1 to 255")
        _require(self.min_interval >= 1, f"mebin.min_interval={self.min_interval}: expected ≥ 1")
        eroded = 0 <= self.erosion <= 255
        _require(eroded, f"mebin.erosion={self.erosion}: expected 0 (none) to 255 pixels")
        if self.search_range is not None:
            given = self.search_range
            ordered = len(given) == 2 and 0 <= given[0] <= given[1] <= 255
            _require(ordered, f"mebin.search_range={given}: expected [lo,hi], 0 ≤ lo ≤ hi ≤ 255")


@dataclass
class RegionsConfig(_Typed):
    padding: float = 0.1  # added around a component, as a share of its longer side
    min_size: float = 0.1  # half side of the smallest region, as a share of the image's longer side
    merge_distance: float = 0.01  # boxes closer than this share of the longer side become one
    resize_mode: str = (
        "letterbox"  # non-square regions; `compat`: top-left square, as in the release
    )
    full_mask: str = "keep"  # if the whole image is defective; `empty`: as in the release

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("regions.resize_mode", self.resize_mode, ResizeMode)
        _one_of("regions.full_mask", self.full_mask, FullMask)
        for key in ("padding", "min_size", "merge_distance"):
            value = getattr(self, key)
            _require(0 <= value <= 0.5, f"regions.{key}={value}: expected 0 to 0.5")


@dataclass
class AttentionConfig(_Typed):
    masked_blocks: int = 9  # counted from the last
    masked_queries: str = "class_token"
    mask_pooling: str = "average"  # `max` keeps patches under thin defects
    mask_threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("attention.masked_queries", self.masked_queries, MaskedQueries)
        _not_negative(self, "attention", "masked_blocks")
        _one_of("attention.mask_pooling", self.mask_pooling, MaskPooling)
        threshold = self.mask_threshold
        _require(0 < threshold <= 1, f"attention.mask_threshold={threshold}: expected in (0, 1]")


@dataclass
class TrainConfig(_Typed):
    # Source of class tokens. `online`: new views in every step, as published. `cached`:
    # `cached_views` of each region go through the frozen blocks once, before training.
    features: str = "online"
    cached_views: int = 4  # of each region; 2 to 16 give similar scores (docs/results.md)
    precision: str = "auto"  # of the frozen blocks; auto: bfloat16 where natively supported
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 0.003
    final_learning_rate: float = 3e-6
    momentum: float = 0.9
    weight_decay: float = 5e-5
    heads: int = 4
    hidden: int = 2048  # width of the projector
    bottleneck: int = 256
    sup_weight: float = 0.3  # weight of the base set's losses; the novel ones have the rest
    memax_weight: float = 4.0
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    final_teacher_temperature: float = 0.04
    temperature_steps: int = 10  # equal steps from the first to the final …
    temperature_hold: int = 4  # … each held this many epochs
    pseudo_label_correction: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("train.features", self.features, FeatureSource)
        _one_of("train.precision", self.precision, Precision)
        _within(self, "train", 1, epochs=10**6, heads=1000, hidden=2**14, bottleneck=2**14)
        _within(self, "train", 1, temperature_steps=10**6, temperature_hold=10**6)
        _within(self, "train", 2, cached_views=1000, batch_size=10**5)
        temperatures = ("student_temperature", "teacher_temperature", "final_teacher_temperature")
        _positive(self, "train", *temperatures, "learning_rate")
        _not_negative(self, "train", "final_learning_rate", "weight_decay", "memax_weight")
        _require(0 <= self.momentum < 1, f"train.momentum={self.momentum}: expected [0, 1)")
        _require(0 <= self.sup_weight < 1, f"train.sup_weight={self.sup_weight}: expected [0, 1)")


@dataclass
class DiscoveryConfig(_Typed):
    """The consensus of several clusterings, from which one network is distilled."""

    # Clusterings that vote. 1: none; the head with the lowest loss decides, as published.
    members: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "discovery", 1, members=1000)

    @property
    def is_consensus(self) -> bool:
        return self.members > 1


@dataclass
class FusionConfig(_Typed):
    weighting: str = "area"
    temperature: float = 100.0  # of √area, in pixels
    area_unit: str = "pixels"  # `relative`: as if every image's longer side were 1,024 pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("fusion.weighting", self.weighting, Weighting)
        _one_of("fusion.area_unit", self.area_unit, AreaUnit)
        _positive(self, "fusion", "temperature")


@dataclass
class EvaluationConfig(_Typed):
    # True class of a region. `mask`: its image's if it overlaps the truth mask, else normal.
    # `image`: always its image's, as in the release.
    region_labels: str = "mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("evaluation.region_labels", self.region_labels, RegionLabels)


@dataclass
class TrackerConfig(_Choice):
    """An experiment tracker, in addition to the run folder."""


@dataclass
class NoTrackerConfig(TrackerConfig):
    kind: str = "none"


@dataclass
class TensorboardConfig(TrackerConfig):
    kind: str = "tensorboard"


@dataclass
class WandbConfig(TrackerConfig):
    kind: str = "wandb"
    project: str = "anomalyncd"
    mode: str = "offline"  # `online` needs an account; there is never a login prompt
    group: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.mode in ("offline", "online")
        _require(known, f"tracker.mode={self.mode}: expected offline or online (tracker=none: off)")


@dataclass
class Config(_Typed):
    dataset: DatasetConfig = MISSING
    base: BaseConfig = MISSING
    detector: DetectorConfig = MISSING
    backbone: BackboneConfig = MISSING
    tracker: TrackerConfig = MISSING
    mebin: MebinConfig = field(default_factory=MebinConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    category: str = MISSING
    # K_n, including the normal class. `auto`: number of label folders, `estimate` where there are
    # none. `estimate`: found from the regions, by the consensus (discovery.members).
    novel_classes: Any = "auto"
    # `release`: all settings of RELEASE, including its faults (set by configs/compat/release.yaml)
    compat: str = "none"
    seed: int = 3407
    device: str = "auto"  # auto: a GPU if there is one
    # Views per forward pass of the frozen blocks: fewer need less device memory
    forward_batch: int = 64
    output_root: str = "outputs"
    cache_root: str | None = None  # maps and regions of all runs; null: output_root/cache
    max_megapixels: int = MAX_MEGAPIXELS  # the largest image or map that is opened
    # Compute a finished run again; the old run folder is renamed. The same command resumes an
    # interrupted rerun.
    rerun: bool = False
    quiet: bool = False  # no progress on the terminal; errors and the result remain
    debug: bool = False  # show the traceback of an error

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.output_root), "output_root is empty; expected a folder")
        _require(self.cache_root != "", "cache_root is empty; expected a folder")
        require_max_megapixels(self.max_megapixels)
        _require(0 <= self.seed < 2**63, f"seed={self.seed}: expected 0 to 2⁶³ − 1")
        require_forward_batch(self.forward_batch)
        _one_of("compat", self.compat, Compat)
        if self.compat == "release":
            for key, value in RELEASE.items():
                found = attrgetter(key)(self)
                _require(
                    found == value,
                    f"compat=release computes {key}={value}, not {found}; do not set {key}, or set "
                    "single options of configs/compat/release.yaml without compat=release",
                )
        k = self.novel_classes
        counts = isinstance(k, int) and not isinstance(k, bool) and 2 <= k <= MAX_CLASSES
        message = f"novel_classes={k}: expected auto, estimate, or a number from 2 to {MAX_CLASSES}"
        _require(k in ("auto", "estimate") or counts, message)
        _require(
            k != "estimate" or self.discovery.is_consensus,
            "novel_classes=estimate needs several clusterings that can be compared; add "
            "experiment=discover, or discovery.members=32",
        )
        _require(
            not isinstance(self.detector, SimulatedDetectorConfig)
            or isinstance(self.dataset, DemoConfig),
            f"detector=simulated is for dataset=demo only, not dataset={self.dataset.kind}; "
            "use detector=files with detector.path=… or detector=ground_truth",
        )
        _require(
            not isinstance(self.detector, GroundTruthConfig)
            or not isinstance(self.dataset, FolderConfig),
            "detector=ground_truth needs truth masks and dataset=folder has none; "
            "use detector=files with detector.path=…",
        )
        plain = self.category.strip(". ") and not set(self.category) & set("/\\")
        _require(bool(plain), f"category={self.category}: expected one folder's name")

    @property
    def cache_folder(self) -> str:
        """Where maps and regions of all runs are kept."""
        return self.cache_root or str(PurePath(self.output_root, "cache"))


@dataclass
class PredictConfig(_Typed):
    """Classify new images with a finished run; nothing is learned from them."""

    run: str = MISSING  # the run's folder
    # Files, folders (read at any depth), patterns, videos, or - for a list on standard input; one
    # text or a list of them
    path: Any = MISSING
    detector: DetectorConfig = MISSING  # same kind of maps as in training
    category: str = MISSING  # folder of the maps in detector.path, if there is one
    output: str | None = None  # None: `predictions` in the run, or the next free `predictions-2`, …
    every: int = 1  # of a video, every N-th frame
    overlays: bool = False  # a picture of each image with its regions outlined
    jsonl: bool = False  # print one JSON object for each image as it comes, and nothing else
    # Names or numbers of classes, `unknown`, `out of scope`, `defect`: exit status 3 for one
    fail_on: list[str] = field(default_factory=list)
    checkpoint: str | None = None  # the backbone's weights file, if it has been moved
    device: str = "auto"
    max_megapixels: int = MAX_MEGAPIXELS
    forward_batch: int = 64  # regions per forward pass
    # Share of known regions, and of images of the product, that may be called unknown or out of
    # scope by mistake: more finds more new kinds; 0: all get the most similar class
    unknown_share: float = UNKNOWN_SHARE
    debug: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_max_megapixels(self.max_megapixels)
        require_forward_batch(self.forward_batch)
        require_unknown_share(self.unknown_share)
        words = self.path if isinstance(self.path, list) else [self.path]
        _require(
            bool(words) and all(isinstance(word, str) and word for word in words),
            f"path={self.path}: expected a file, a folder, or a list of them",
        )
        _require(self.every >= 1, f"every={self.every}: expected 1 or more")
        _require(
            isinstance(self.detector, FilesDetectorConfig),
            "prediction reads the maps of new images from files: make them with anomalyncd maps "
            f"dataset=folder dataset.path={self.path} detector=…, which prints the detector.path=… "
            "to use here",
        )


# By group: the schemas of its options; `kind` is the name of an option.
CHOICES: dict[str, tuple[type, ...]] = {
    "dataset": (DemoConfig, MvtecConfig, MtdConfig, FolderConfig, CustomDatasetConfig),
    "base": (BaseConfig, EmbeddedBaseConfig, FolderBaseConfig, DrawnBaseConfig, CustomBaseConfig),
    "detector": (
        FilesDetectorConfig,
        GroundTruthConfig,
        SimulatedDetectorConfig,
        MuscDetectorConfig,
        ReferenceDetectorConfig,
        AnomalibDetectorConfig,
        CustomDetectorConfig,
    ),
    "tracker": (WandbConfig, TensorboardConfig, NoTrackerConfig),
}


def schemas() -> list[tuple[str, str, type]]:
    """Every schema as (group, name, dataclass), registered with Hydra by the entry points."""
    return [
        ("", "train_schema", Config),
        ("", "predict_schema", PredictConfig),
        ("schema/backbone", "vit", BackboneConfig),
        *(
            (f"schema/{group}", vars(schema)["kind"], schema)
            for group, choices in CHOICES.items()
            for schema in choices
        ),
    ]
