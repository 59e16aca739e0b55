"""Find the defects in unlabelled photographs of a product and sort them into kinds.

    import anomalyncd

    result = anomalyncd.discover("photographs", classes=5)     # folder → kinds of defects
    classifier = anomalyncd.load(result.folder)
    for found in classifier.predict(["new/1.png"], maps=[anomaly_map]):
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
    from anomalyncd.config import Config as Config
    from anomalyncd.errors import InputError as InputError
    from anomalyncd.evaluation.metrics import score as score
    from anomalyncd.inference.fusion import fuse as fuse
    from anomalyncd.models.mask_guided_vit import MaskGuidedViT as MaskGuidedViT
    from anomalyncd.prediction import Classifier as Classifier
    from anomalyncd.prediction import Prediction as Prediction
    from anomalyncd.prediction import load as load
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

_PUBLIC = {
    **dict.fromkeys(("discover", "compose"), "api"),
    **dict.fromkeys(("load", "Classifier", "Prediction"), "prediction"),
    **dict.fromkeys(("execute", "RunResult"), "run"),
    "Config": "config",
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
