"""Find the defects in unlabelled photographs of a product and sort them into kinds.

    import anomalyncd

    result = anomalyncd.discover("photographs")     # folder → kinds of defects
    classifier = anomalyncd.load(result.folder)
    for found in classifier.predict(["new/1.png"]):
        print(found.class_name, found.confidence)

Heavy libraries are imported only when they are used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalyncd.api import compose as compose
    from anomalyncd.api import discover as discover
    from anomalyncd.config import AnomalibDetectorConfig as AnomalibDetectorConfig
    from anomalyncd.config import AttentionConfig as AttentionConfig
    from anomalyncd.config import BackboneConfig as BackboneConfig
    from anomalyncd.config import BaseConfig as BaseConfig
    from anomalyncd.config import Config as Config
    from anomalyncd.config import CustomBaseConfig as CustomBaseConfig
    from anomalyncd.config import CustomDatasetConfig as CustomDatasetConfig
    from anomalyncd.config import CustomDetectorConfig as CustomDetectorConfig
    from anomalyncd.config import DemoConfig as DemoConfig
    from anomalyncd.config import DrawnBaseConfig as DrawnBaseConfig
    from anomalyncd.config import EmbeddedBaseConfig as EmbeddedBaseConfig
    from anomalyncd.config import EvaluationConfig as EvaluationConfig
    from anomalyncd.config import FilesDetectorConfig as FilesDetectorConfig
    from anomalyncd.config import FolderBaseConfig as FolderBaseConfig
    from anomalyncd.config import FolderConfig as FolderConfig
    from anomalyncd.config import FusionConfig as FusionConfig
    from anomalyncd.config import GroundTruthConfig as GroundTruthConfig
    from anomalyncd.config import MebinConfig as MebinConfig
    from anomalyncd.config import MtdConfig as MtdConfig
    from anomalyncd.config import MuscDetectorConfig as MuscDetectorConfig
    from anomalyncd.config import MvtecConfig as MvtecConfig
    from anomalyncd.config import NoTrackerConfig as NoTrackerConfig
    from anomalyncd.config import ReferenceDetectorConfig as ReferenceDetectorConfig
    from anomalyncd.config import RegionsConfig as RegionsConfig
    from anomalyncd.config import SimulatedDetectorConfig as SimulatedDetectorConfig
    from anomalyncd.config import TensorboardConfig as TensorboardConfig
    from anomalyncd.config import TrainConfig as TrainConfig
    from anomalyncd.config import WandbConfig as WandbConfig
    from anomalyncd.detectors import Detector as Detector
    from anomalyncd.errors import InputError as InputError
    from anomalyncd.evaluation.metrics import score as score
    from anomalyncd.extension.extend import extend as extend
    from anomalyncd.inference.fusion import fuse as fuse
    from anomalyncd.learning.learn import learn as learn
    from anomalyncd.models.mask_guided_vit import MaskGuidedViT as MaskGuidedViT
    from anomalyncd.prediction.classifier import Classifier as Classifier
    from anomalyncd.prediction.classifier import Prediction as Prediction
    from anomalyncd.prediction.classifier import load as load
    from anomalyncd.regions.binarization import binarize_one as binarize_one
    from anomalyncd.regions.boxes import find_boxes as find_boxes
    from anomalyncd.regions.boxes import score_boxes as score_boxes
    from anomalyncd.regions.mebin import component_counts as component_counts
    from anomalyncd.regions.mebin import search_range as search_range
    from anomalyncd.run import RunResult as RunResult
    from anomalyncd.run import execute as execute
    from anomalyncd.training.losses import info_nce as info_nce
    from anomalyncd.training.losses import mean_entropy_gap as mean_entropy_gap
    from anomalyncd.training.losses import self_distillation as self_distillation
    from anomalyncd.training.losses import supervised_contrastive as supervised_contrastive
    from anomalyncd.types import Dataset as Dataset
    from anomalyncd.types import Labels as Labels
    from anomalyncd.types import Sample as Sample

_PUBLIC = {
    **dict.fromkeys(("discover", "compose"), "api"),
    **dict.fromkeys(("load", "Classifier", "Prediction"), "prediction.classifier"),
    **dict.fromkeys(("execute", "RunResult"), "run"),
    "extend": "extension.extend",
    "learn": "learning.learn",
    "Config": "config",
    **dict.fromkeys(  # the groups of a Config
        (
            "AnomalibDetectorConfig",
            "AttentionConfig",
            "BackboneConfig",
            "BaseConfig",
            "CustomBaseConfig",
            "CustomDatasetConfig",
            "CustomDetectorConfig",
            "DemoConfig",
            "DrawnBaseConfig",
            "EvaluationConfig",
            "EmbeddedBaseConfig",
            "FilesDetectorConfig",
            "FolderBaseConfig",
            "FolderConfig",
            "FusionConfig",
            "GroundTruthConfig",
            "MebinConfig",
            "MtdConfig",
            "MuscDetectorConfig",
            "MvtecConfig",
            "NoTrackerConfig",
            "ReferenceDetectorConfig",
            "RegionsConfig",
            "SimulatedDetectorConfig",
            "TensorboardConfig",
            "TrainConfig",
            "WandbConfig",
        ),
        "config",
    ),
    **dict.fromkeys(("Dataset", "Sample", "Labels"), "types"),
    "Detector": "detectors",
    "InputError": "errors",
    "MaskGuidedViT": "models.mask_guided_vit",
    "binarize_one": "regions.binarization",
    **dict.fromkeys(("search_range", "component_counts"), "regions.mebin"),
    **dict.fromkeys(("find_boxes", "score_boxes"), "regions.boxes"),
    **dict.fromkeys(
        ("info_nce", "supervised_contrastive", "mean_entropy_gap", "self_distillation"),
        "training.losses",
    ),
    "fuse": "inference.fusion",
    "score": "evaluation.metrics",
}
__all__ = [*_PUBLIC, "__version__"]

try:
    __version__ = version("anomalyncd")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'anomalyncd' has no attribute {name!r}")
    return getattr(import_module(f"anomalyncd.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
