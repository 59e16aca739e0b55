"""The published figures that our tables are compared with: `published.yaml`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

Figures = dict[str, float]  # those of nmi, ari, f1 and aupro that were published

# An independent rerun of the release differed by this much.
MEAN_TOLERANCE = 0.01  # of the mean over all categories
CATEGORY_TOLERANCE = 0.08


@dataclass(frozen=True)
class Published:
    """Published figures of one method on one data set."""

    method: str
    mean: Figures  # over all categories
    categories: dict[str, Figures] = field(default_factory=dict)  # empty: only the mean is known


def look_up(dataset: str, detector: str, departs: dict[str, Any]) -> Published | None:
    """The published figures for such runs; None if there are none.

    Args:
        dataset: its kind, `mvtec` or `mtd`.
        detector: the label of the maps, such as `musc-vit_large…` or `files-cpr`.
        departs: settings of the method that are not at their defaults, `{"mebin.method": "otsu"}`.
            Some belong to the paper's ablation; some were published for that data set.
    """
    data = _data()
    words = set(re.split(r"[^a-z+]+", detector.lower()))
    method = next((method for word, method in data["maps"].items() if word in words), None)
    if method is None:
        return None
    own = data["settings"].get(dataset, {}) | data["settings"].get(method, {})
    departs = {key: value for key, value in departs.items() if own.get(key) != value}
    if departs:
        ablation = data["ablation"]
        if (dataset, method) != (ablation["dataset"], ablation["method"]):
            return None
        for variant in ablation["variants"]:
            if variant["departs"] == departs:
                return Published(f"{method}, {variant['name']}", variant["mean"])
        return None
    for setting in ("unsupervised", "semi_supervised", "supervised"):
        if mean := data[setting].get(dataset, {}).get(method):
            by_category = data["per_category_mvtec"] if dataset == "mvtec" else {}
            return Published(method, mean, by_category.get(method, {}))
    return None


def all_categories(dataset: str) -> tuple[str, ...]:
    """The categories of the published mean; empty if nothing was published."""
    if dataset == "mvtec":
        return tuple(next(iter(_data()["per_category_mvtec"].values())))
    return (dataset,) if dataset in _data()["unsupervised"] else ()


def category_lists() -> dict[str, tuple[str, ...]]:
    """Names for groups of MVTec AD products: `all`, `textures` and `objects`, as in its paper."""
    products = all_categories("mvtec")
    textures = ("carpet", "grid", "leather", "tile", "wood")
    objects = tuple(product for product in products if product not in textures)
    return {"all": products, "textures": textures, "objects": objects}


@cache
def _data() -> dict[str, Any]:
    text = files("anomalyncd.results").joinpath("published.yaml").read_text(encoding="utf-8")
    data = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}
