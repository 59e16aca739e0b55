"""How well a run tells kinds of defects that it has not seen, and photographs of other products.

python -m scripts.measure_unknown --seeds 1,2,3 --others FOLDER,… dataset=mvtec category=screw \
    dataset.path=… detector=files detector.path=…

Each kind is left out in turn: half of the photographs without this kind are those of a run; the
other half and all photographs of the kind are new. How a region looks does not depend on what a run
has learned, so nothing is trained: regions are cropped and described once, with the settings of
experiment=discover.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from anomalyncd import inputs
from anomalyncd.api import compose
from anomalyncd.config import UNKNOWN_SHARE, Config
from anomalyncd.data.images import SUFFIXES, read_mask
from anomalyncd.detectors import map_store
from anomalyncd.evaluation.metrics import region_targets
from anomalyncd.inference import appearance
from anomalyncd.inference.unknown import SCOPE_MARGIN, Familiar, Seen
from anomalyncd.models import backbone, model
from anomalyncd.regions import cropping
from anomalyncd.runtime import devices
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Labels, Sample

SETTINGS = ("experiment=discover", "quiet=true")


@dataclass(frozen=True)
class Described:
    """A dataset, its n regions with a main element, and how all look."""

    labels: Labels
    regions: NDArray[np.float32]  # (n, width)
    image_index: NDArray[np.int64]  # (n,)
    targets: NDArray[np.int64]  # (n,) true classes
    images: NDArray[np.float32]  # (n_images, width)
    others: NDArray[np.float32]  # (n_others, width) images of other products


def described(config: Config, others: Sequence[Path]) -> Described:
    """Crop and describe all regions of a dataset with labels."""
    cache, device = Cache(Path(config.cache_folder)), devices.choose(config.device)
    dataset = inputs.find_images(config, cache)
    assert dataset.labels is not None
    detector = inputs.open_detector(config, cache, device)
    maps = map_store.collect(
        detector, dataset, config.category, cache, settings=asdict(config.detector)
    )
    stock = backbone.build(config.backbone)
    size = config.backbone.image_size
    cropped = cropping.crop_novel(dataset.samples, maps, config.mebin, config.regions, size, cache)
    network = model.build(stock, config.attention, config.train, n_base=0, n_novel=2).to(device)
    regions, samples = cropped.regions, dataset.samples
    rows = np.flatnonzero(regions.areas > 0)
    targets = region_targets(dataset.labels, regions, lambda i: _mask(samples[i]))
    return Described(
        labels=dataset.labels,
        regions=appearance.of_regions(network, regions, rows),
        image_index=regions.image_index[rows],
        targets=targets[rows],
        images=appearance.of_images(network, [sample.image for sample in samples]),
        others=appearance.of_images(network, others),
    )


def _mask(sample: Sample) -> NDArray[np.bool_] | None:
    return None if sample.truth_mask is None else read_mask(sample.truth_mask)


def measure(data: Described, seed: int, share: float) -> Iterator[tuple[str, dict[str, float]]]:
    """Leave out one kind after the other.

    Images whose kind is not scored, such as those of two kinds, count nowhere.

    Args:
        data: the described dataset.
        seed: of the halves; each kind is halved.
        share: the setting `unknown_share`.

    Yields:
        The kind, and its figures: see `summary`.
    """
    labels = data.labels
    first = halved(labels, seed)
    for target, kind in enumerate(labels.classes):
        if target == labels.normal:
            continue
        with_kind = labels.targets == target
        own = first & ~with_kind & (labels.targets >= 0)
        new = ~first & ~with_kind & (labels.targets >= 0)
        own_regions, new_regions = own[data.image_index], new[data.image_index]
        of_kind = with_kind[data.image_index] & (data.targets == target)
        if of_kind.any():
            seen = Seen(data.regions[own_regions], data.image_index[own_regions])
            looks = Familiar(seen, share)
            unknown, known = (looks.scores(data.regions[rows]) for rows in (of_kind, new_regions))
            whole = Familiar(Seen(data.images[own], np.flatnonzero(own)), share, SCOPE_MARGIN)
            yield (
                kind,
                {
                    "auroc": auroc(unknown, known),
                    "found": above(unknown),
                    "lost": above(known),
                    "others flagged": above(whole.scores(data.others)),
                    "own flagged": above(whole.scores(data.images[new])),
                    "new kind flagged": above(whole.scores(data.images[with_kind])),
                },
            )


def halved(labels: Labels, seed: int) -> NDArray[np.bool_]:
    """Half of the images of each kind, (n_images,)."""
    generator = np.random.default_rng(seed)
    first = np.zeros(len(labels.targets), bool)
    for target in range(len(labels.classes)):
        members = generator.permutation(np.flatnonzero(labels.targets == target))
        first[members[: len(members) // 2]] = True
    return first


def auroc(unknown: NDArray[np.float64], known: NDArray[np.float64]) -> float:
    """How often an unknown one has a higher score than a known one."""
    is_unknown = np.repeat([True, False], [len(unknown), len(known)])
    return float(roc_auc_score(is_unknown, np.concatenate([unknown, known])))


def above(scores: NDArray[np.float64]) -> float:
    """The share with a verdict; NaN of none."""
    return float((scores > 1).mean()) if len(scores) else float("nan")


def summary(rows: Sequence[dict[str, float]]) -> str:
    """Means over kinds and seeds.

    AUROC of regions of the kind left out against those of new images of known kinds; the share of
    both that is called unknown; and of images of other products, of new ones of known kinds and of
    those of the new kind, the share that is called out of scope.
    """
    return ", ".join(f"{name} {np.mean([row[name] for row in rows]):.3f}" for name in rows[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="1,2,3", help="numbers, with commas between them")
    parser.add_argument("--share", type=float, default=UNKNOWN_SHARE, help="unknown_share")
    parser.add_argument("--others", default="", help="folders of other products, with commas")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the runs")
    given = parser.parse_args(arguments)
    folders = [Path(folder) for folder in given.others.split(",") if folder]
    others = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix in SUFFIXES]
    data = described(compose(*SETTINGS, *given.overrides), others)
    kinds: dict[str, list[dict[str, float]]] = {}
    for seed in (int(seed) for seed in given.seeds.split(",")):
        for kind, row in measure(data, seed, given.share):
            kinds.setdefault(kind, []).append(row)
    for kind, rows in kinds.items():
        print(f"without {kind}: {summary(rows)}")
    print(f"mean: {summary([row for rows in kinds.values() for row in rows])}")


if __name__ == "__main__":
    main()
