"""The schema of a run: what can be set, of which type, and which combinations make sense.

Hydra composes these from `configs/` and the command line; an unknown key or a wrong type is
rejected there, an impossible combination here. Configuration is read, never written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, get_args

from omegaconf import MISSING

from anomalyncd.errors import InputError
from anomalyncd.types import AreaUnit, Fit, KeepPool, MaskOn, Weighting


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def _one_of(key: str, value: str, choices: Any) -> None:
    names = get_args(choices)
    _require(value in names, f"{key}={value}: expected one of {', '.join(names)}")


@dataclass
class DatasetConfig:
    """Where the unlabelled images are. `kind` says how their folders are read."""

    kind: str = MISSING
    leave_out: list[str] = field(default_factory=list)  # type folders that are not read
    unscored: list[str] = field(
        default_factory=list
    )  # read and classified, but no class of its own


@dataclass
class DemoConfig(DatasetConfig):
    kind: str = "demo"
    seed: int = 0  # of the drawing, not of the run
    train: int = 24  # defect-free training images
    good: int = 20  # defect-free test images
    per_class: int = 16  # images of each kind of defect
    combined: int = 8  # images with two kinds of defect

    def __post_init__(self) -> None:
        for key in ("train", "good", "per_class", "combined"):
            _require(getattr(self, key) >= 0, f"dataset.{key} must not be negative")


@dataclass
class MvtecConfig(DatasetConfig):
    kind: str = "mvtec"
    path: str = MISSING  # holds <category>/{train,test,ground_truth}


@dataclass
class FolderConfig(DatasetConfig):
    kind: str = "folder"
    path: str = MISSING  # holds images, or class folders of images, or both
    normal: str = "good"  # the class folder that holds defect-free images, if there is one


@dataclass
class MtdConfig(DatasetConfig):
    kind: str = "mtd"
    path: str = MISSING  # holds MT_<class>/Imgs
    # A file in `path` with the names of the MT_Free images that are for training; null: all test.
    train_list: str | None = "mtd_train_filenames.txt"


@dataclass
class BaseConfig:
    """The labelled anomaly set that is trained along; this one is `base=none`."""

    kind: str = "none"


@dataclass
class FolderBaseConfig(BaseConfig):
    kind: str = "folder"
    path: str = MISSING  # holds images/<class>/* and masks/<class>/<same stem>.*


@dataclass
class DrawnBaseConfig(BaseConfig):
    kind: str = "demo"
    seed: int = 0
    per_class: int = 24

    def __post_init__(self) -> None:
        _require(self.per_class >= 1, "base.per_class must be at least 1; base=none leaves it out")


@dataclass
class DetectorConfig:
    """Where anomaly maps come from."""

    kind: str = MISSING

    @property
    def label(self) -> str:
        """A folder's name that tells runs with different maps apart."""
        return self.kind


@dataclass
class GroundTruthConfig(DetectorConfig):
    kind: str = "ground_truth"


@dataclass
class FilesDetectorConfig(DetectorConfig):
    kind: str = "files"
    path: str = MISSING  # holds <category>/<type>/<stem>.{png,npy,npz,tiff}

    @property
    def label(self) -> str:
        return f"files-{PurePath(self.path).name}"


@dataclass
class SimulatedDetectorConfig(DetectorConfig):
    kind: str = "simulated"
    seed: int = 0


@dataclass
class BackboneConfig:
    name: str = MISSING  # any timm ViT with a class token
    pretrained: bool = True  # weights from the hub, unless `checkpoint` names a file
    checkpoint: str | None = None  # a local weights file, .safetensors or .pth
    side: int = 224  # pixels of a view

    def __post_init__(self) -> None:
        _require(self.side >= 16, f"backbone.side={self.side}: expected at least 16 pixels")


@dataclass
class MebinConfig:
    step: int = 4  # between thresholds, in 1/255 of the search range
    min_interval: int = 4  # thresholds that a count must hold to be stable
    erosion: int = 6  # side of the square that thin links are eroded with; 0: none
    search_range: list[float] | None = None  # [lo, hi] in map units; None: from the maps

    def __post_init__(self) -> None:
        _require(1 <= self.step <= 255, f"mebin.step={self.step}: expected 1 to 255")
        _require(self.min_interval >= 1, f"mebin.min_interval={self.min_interval}: expected ≥ 1")
        _require(self.erosion >= 0, f"mebin.erosion={self.erosion}: expected ≥ 0 (0: none)")
        if self.search_range is not None:
            ascending = len(self.search_range) == 2 and self.search_range[0] < self.search_range[1]
            _require(
                ascending, f"mebin.search_range={self.search_range}: expected [lo,hi], lo < hi"
            )


@dataclass
class RegionsConfig:
    padding: float = 0.1  # added around a component, as a share of its longer side
    min_size: float = 0.1  # half side of the smallest region, as a share of the image's longer side
    merge_distance: float = 0.01  # boxes closer than this share of the longer side become one
    fit: str = "letterbox"  # non-square regions; `compat` keeps the top-left square as the release

    def __post_init__(self) -> None:
        _one_of("regions.fit", self.fit, Fit)
        for key in ("padding", "min_size", "merge_distance"):
            value = getattr(self, key)
            _require(0 <= value <= 0.5, f"regions.{key}={value}: expected 0 to 0.5")


@dataclass
class AttentionConfig:
    masked_blocks: int = 9  # counted from the last
    mask_on: str = "class_token"
    keep_pool: str = "average"  # `max` keeps patches under thin defects
    keep_threshold: float = 0.5

    def __post_init__(self) -> None:
        _one_of("attention.mask_on", self.mask_on, MaskOn)
        _one_of("attention.keep_pool", self.keep_pool, KeepPool)
        threshold = self.keep_threshold
        _require(0 < threshold <= 1, f"attention.keep_threshold={threshold}: expected in (0, 1]")


@dataclass
class FitConfig:
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 0.003
    final_learning_rate: float = 3e-6
    momentum: float = 0.9
    weight_decay: float = 5e-5
    heads: int = 4
    hidden: int = 2048  # width of the projector
    bottleneck: int = 256
    base_weight: float = 0.3  # share of the base set's losses; the novel ones have the rest
    entropy_weight: float = 4.0
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    final_teacher_temperature: float = 0.04
    temperature_steps: int = 10  # equal steps from the one to the other …
    temperature_hold: int = 4  # … each held this many epochs
    pseudo_label_correction: bool = True

    def __post_init__(self) -> None:
        for key in ("epochs", "heads", "hidden", "bottleneck", "temperature_steps"):
            _require(getattr(self, key) >= 1, f"fit.{key}={getattr(self, key)}: expected ≥ 1")
        _require(self.batch_size >= 2, f"fit.batch_size={self.batch_size}: expected ≥ 2")
        _require(self.temperature_hold >= 1, "fit.temperature_hold: expected ≥ 1")
        for key in ("student_temperature", "teacher_temperature", "final_teacher_temperature"):
            _require(getattr(self, key) > 0, f"fit.{key}={getattr(self, key)}: expected > 0")
        _require(self.learning_rate > 0, f"fit.learning_rate={self.learning_rate}: expected > 0")
        _require(0 <= self.base_weight < 1, f"fit.base_weight={self.base_weight}: expected [0, 1)")

    def teacher_temperature_at(self, epoch: int) -> float:
        """τ_t of an epoch counted from 0: steps down, then stays."""
        step = min(epoch // self.temperature_hold, self.temperature_steps - 1)
        done = step / max(self.temperature_steps - 1, 1)
        return self.teacher_temperature + done * (
            self.final_teacher_temperature - self.teacher_temperature
        )


@dataclass
class FusionConfig:
    weighting: str = "area"
    temperature: float = 100.0  # of √area, in pixels
    area_unit: str = "pixels"  # `relative`: as if every image's longer side were 1,024 pixels

    def __post_init__(self) -> None:
        _one_of("fusion.weighting", self.weighting, Weighting)
        _one_of("fusion.area_unit", self.area_unit, AreaUnit)
        _require(self.temperature > 0, f"fusion.temperature={self.temperature}: expected > 0")


@dataclass
class TrackerConfig:
    """Where figures are logged beside the run folder."""

    kind: str = MISSING


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
    mode: str = "offline"  # `online` needs an account; nothing ever asks for a login
    group: str | None = None

    def __post_init__(self) -> None:
        known = self.mode in ("offline", "online")
        _require(known, f"tracker.mode={self.mode}: expected offline or online (tracker=none: off)")


@dataclass
class Config:
    dataset: DatasetConfig = MISSING
    base: BaseConfig = MISSING
    detector: DetectorConfig = MISSING
    backbone: BackboneConfig = MISSING
    tracker: TrackerConfig = MISSING
    mebin: MebinConfig = field(default_factory=MebinConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    category: str = MISSING
    novel_classes: Any = "auto"  # K_n, the normal class included; `auto`: as many as label folders
    seed: int = 3407
    device: str = "auto"  # auto: a GPU where there is one
    output_root: str = "outputs"
    cache_root: str = "${output_root}/cache"  # maps and regions, shared by all runs
    rerun: bool = False  # compute again what is finished; the old run folder is set aside
    quiet: bool = False  # no progress on the terminal; errors and the result remain
    debug: bool = False  # show the traceback of an error

    def __post_init__(self) -> None:
        k = self.novel_classes
        counts = isinstance(k, int) and not isinstance(k, bool) and k >= 2
        _require(k == "auto" or counts, f"novel_classes={k}: expected auto or a number ≥ 2")
        _require(
            self.detector.kind != "simulated" or self.dataset.kind == "demo",
            f"detector=simulated is for dataset=demo only, not dataset={self.dataset.kind}; "
            "use detector=files with detector.path=… or detector=ground_truth",
        )
        _require(
            self.detector.kind != "ground_truth" or self.dataset.kind != "folder",
            "detector=ground_truth needs truth masks and dataset=folder has none; "
            "use detector=files with detector.path=…",
        )
        parts = (self.category, self.dataset.kind)
        plain = all(part and not set(part) & set('/\\:*?"<>|') and part != ".." for part in parts)
        _require(plain, f"category={self.category}: expected one folder's name")


@dataclass
class PredictConfig:
    """Classify new images with a finished run; nothing is learned from them."""

    run: str = MISSING  # the run's folder
    path: str = MISSING  # holds the new images, loose or in sub-folders
    detector: DetectorConfig = MISSING  # the kind of maps that the run was trained on
    category: str = "images"  # folder of the maps below detector.path, if there is one
    output: str = "${run}/predictions"  # must not hold predictions yet
    cache_root: str = "${output}/cache"
    device: str = "auto"
    debug: bool = False

    def __post_init__(self) -> None:
        _require(
            self.detector.kind == "files", "predict.py takes the maps of new images from files"
        )


def schemas() -> list[tuple[str, str, type]]:
    """Every schema as (group, name, dataclass), for the entry points to hand to Hydra."""
    return [
        ("", "train_schema", Config),
        ("", "predict_schema", PredictConfig),
        ("schema/dataset", "demo", DemoConfig),
        ("schema/dataset", "mvtec", MvtecConfig),
        ("schema/dataset", "mtd", MtdConfig),
        ("schema/dataset", "folder", FolderConfig),
        ("schema/base", "none", BaseConfig),
        ("schema/base", "folder", FolderBaseConfig),
        ("schema/base", "demo", DrawnBaseConfig),
        ("schema/detector", "files", FilesDetectorConfig),
        ("schema/detector", "ground_truth", GroundTruthConfig),
        ("schema/detector", "simulated", SimulatedDetectorConfig),
        ("schema/backbone", "vit", BackboneConfig),
        ("schema/tracker", "wandb", WandbConfig),
        ("schema/tracker", "tensorboard", TensorboardConfig),
        ("schema/tracker", "none", NoTrackerConfig),
    ]
