"""How well a backbone's features distinguish kinds of defects, before any training on them.

    python scripts/probe_backbone.py --data ../shared/data [--checkpoint FILE] [--json FILE]

Defects are cut out around their truth masks, one region an image, and described. Clustering:
k-means with K known on standardised features of unit length, NMI over 10 seeds. Linear: accuracy of
logistic regression, 5 folds. The probe is fixed, so that figures of different days can be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anomalyncd.config import (
    AttentionConfig,
    BackboneConfig,
    FolderBaseConfig,
    MtdConfig,
    MvtecConfig,
)
from anomalyncd.data import datasets
from anomalyncd.data.images import read_image, read_mask
from anomalyncd.models import backbone as backbones
from anomalyncd.models.backbone import Backbone
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.regions import boxes
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset
from scripts.pretraining.teacher import MobileNetV2, load_teacher

SIDE = 224
SEEDS = 10
WEIGHTS = "weights/tf2_mobilenet_v2_1.0_224_ptq.tflite"

# images (n, 3, SIDE, SIDE) in [0, 1] and masks (n, 1, SIDE, SIDE), 1 = defect → features (n, d)
Describe = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DefectSet:
    """Regions around the true defects of one product."""

    name: str
    images: NDArray[np.uint8]  # (n, SIDE, SIDE, 3)
    masks: NDArray[np.uint8]  # (n, SIDE, SIDE), 255 = defect
    targets: NDArray[np.int64]  # (n,)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.targets), size):
            images = torch.from_numpy(self.images[start : start + size]).permute(0, 3, 1, 2)
            masks = torch.from_numpy(self.masks[start : start + size, None])
            yield images / 255, masks / 255


@dataclass(frozen=True)
class Reading:
    nmi: float  # mean over the seeds of k-means
    nmi_std: float
    accuracy: float  # of the linear probe


def load_sets(data: Path) -> list[DefectSet]:
    """MTD, the screw and the leather crops of MVTec AD, and the NEU base set; 0.15 GB.

    Raises:
        InputError: a folder is missing.
    """
    mvtec = MvtecConfig(path=str(data / "mvtec"))
    with TemporaryDirectory() as scratch:
        cache = Cache(Path(scratch))  # stays empty: nothing is drawn
        base = datasets.load_base(FolderBaseConfig(path=str(data / "neu_base")), cache)
        assert base is not None
        by_name = {
            "MTD": datasets.load(MtdConfig(path=str(data / "mtd")), "", cache),
            "screw": datasets.load(mvtec, "screw", cache),
            "leather": datasets.load(mvtec, "leather_crops256", cache),
            "NEU": base,
        }
    return [cut_defects(name, dataset) for name, dataset in by_name.items()]


def cut_defects(name: str, dataset: Dataset) -> DefectSet:
    """One square region around all that is defective in each image."""
    assert dataset.labels is not None
    images, masks, targets = [], [], []
    for sample, target in zip(dataset.samples, dataset.labels.targets, strict=True):
        if sample.truth_mask is None:
            continue
        mask = read_mask(sample.truth_mask) * np.uint8(255)
        [box] = boxes.find_boxes(mask, 1, merge_distance=1)  # so far that all components merge
        image, cut, _ = boxes.crop(read_image(sample.image), mask, box, SIDE, "letterbox")
        images.append(image)
        masks.append(cut)
        targets.append(target)
    return DefectSet(name, np.stack(images), np.stack(masks), np.array(targets))


def probe(describe: Describe, sets: Sequence[DefectSet], batch: int = 32) -> dict[str, Reading]:
    """Read a description's worth on each set, by name. Seconds, beside the describing."""
    return {s.name: read(features(describe, s, batch), s.targets) for s in sets}


def mean_nmi(readings: dict[str, Reading]) -> float:
    """The one number that decides."""
    return float(np.mean([reading.nmi for reading in readings.values()]))


@torch.inference_mode()
def features(describe: Describe, defects: DefectSet, batch: int = 32) -> NDArray[np.float32]:
    """(n, d) descriptions of a set's regions."""
    described = [describe(images, masks).float() for images, masks in defects.batches(batch)]
    return torch.cat(described).cpu().numpy()


def read(described: NDArray[np.float32], targets: NDArray[np.int64]) -> Reading:
    """Cluster and classify descriptions (n, d) of known classes (n,)."""
    unit = normalize(StandardScaler().fit_transform(described))
    classes = len(np.unique(targets))
    nmi = [
        normalized_mutual_info_score(
            targets, KMeans(classes, n_init=10, random_state=seed).fit_predict(unit)
        )
        for seed in range(SEEDS)
    ]
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracy = cross_val_score(linear, described, targets, cv=folds)
    return Reading(float(np.mean(nmi)), float(np.std(nmi)), float(accuracy.mean()))


def masked_mean(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean of feature maps (n, c, h, w) over what masks (n, 1, H, W) cover of each cell: (n, c)."""
    weights = F.adaptive_avg_pool2d(masks, (maps.shape[2], maps.shape[3]))
    return (maps * weights).sum((2, 3)) / weights.sum((2, 3)).clamp_min(1e-6)


def mobilenet(network: MobileNetV2) -> Describe:
    """The linear features at stride 16, averaged over the mask."""
    return lambda images, masks: masked_mean(network.stride16(images)[0], masks)


def class_tokens(backbone: Backbone, attention: AttentionConfig | None = None) -> Describe:
    """The mask-guided class token, as the method uses it."""
    attention = attention or AttentionConfig()
    vit = MaskGuidedViT(
        backbone.vit, attention.masked_blocks, keep_threshold=attention.mask_threshold
    )
    return lambda images, masks: vit(_normalised(images, backbone), masks)


def patch_tokens(backbone: Backbone) -> Describe:
    """The last patch tokens, averaged over the mask."""

    def describe(images: Tensor, masks: Tensor) -> Tensor:
        tokens = backbone.vit.forward_features(_normalised(images, backbone))
        patches = tokens[:, backbone.vit.num_prefix_tokens :].transpose(1, 2)
        return masked_mean(patches.unflatten(2, backbone.vit.patch_embed.grid_size), masks)

    return describe


def _normalised(images: Tensor, backbone: Backbone) -> Tensor:
    mean, std = (images.new_tensor(v)[:, None, None] for v in (backbone.mean, backbone.std))
    return (images - mean) / std


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="with mtd, mvtec, neu_base, weights"
    )
    parser.add_argument("--checkpoint", help="weights of a ViT to probe as well")
    parser.add_argument("--name", default="vit_tiny_patch16_224", help="timm's name of that ViT")
    parser.add_argument("--json", type=Path, help="write the readings there")
    options = parser.parse_args()

    networks = {
        "untrained": BackboneConfig("vit_tiny_patch16_224", pretrained=False, image_size=SIDE),
        "embedded": BackboneConfig("embedded", image_size=SIDE),
    }
    if options.checkpoint:
        given = BackboneConfig(options.name, checkpoint=options.checkpoint, image_size=SIDE)
        networks[Path(options.checkpoint).name] = given
    columns = {"MobileNetV2": mobilenet(load_teacher(options.data / WEIGHTS))}
    for name, config in networks.items():
        network = backbones.build(config)
        columns[f"{name}, patches"] = patch_tokens(network)
        columns[f"{name}, class token"] = class_tokens(network)
        columns[f"{name}, class token, kept from 0.1"] = class_tokens(
            network, AttentionConfig(mask_threshold=0.1)
        )
    sets = load_sets(options.data)
    readings = {column: probe(describe, sets) for column, describe in columns.items()}
    show(readings)
    if options.json:
        plain = {c: {s: asdict(r) for s, r in of.items()} for c, of in readings.items()}
        options.json.write_text(json.dumps(plain, indent=2) + "\n")


def show(readings: dict[str, dict[str, Reading]]) -> None:
    table = Table("Set", *readings, title="NMI of k-means (linear accuracy)")
    for name in next(iter(readings.values())):
        of_set = [column[name] for column in readings.values()]
        table.add_row(name, *(f"{r.nmi:.3f} ± {r.nmi_std:.3f} ({r.accuracy:.2f})" for r in of_set))
    table.add_row("mean", *(f"{mean_nmi(column):.3f}" for column in readings.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
