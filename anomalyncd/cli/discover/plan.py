"""What a discovery will do, with what, and how long it takes, printed before it starts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from statistics import median

import torch

from anomalyncd.cli.discover.check import Checked
from anomalyncd.config import BackboneConfig, Config, MuscDetectorConfig, ReferenceDetectorConfig
from anomalyncd.data import datasets
from anomalyncd.discovery.descriptors import TURNS
from anomalyncd.models import backbone, weights
from anomalyncd.runtime import console, devices
from anomalyncd.storage.run_folder import RunFolder

_REGIONS_PER_IMAGE = 1.2  # about; known only after the maps
_REGIONS_PER_BASE_IMAGE = 1.1
_STEP = 4  # views of the frozen blocks that take as long as an optimiser step
_PER_MEMBER = 1.0  # seconds of a clustering in the consensus
_FIXED = 15.0  # seconds for reading, regions, scores and the report, plus …
_PER_IMAGE = 0.15  # … these for each photograph
_SPREAD = (0.7, 1.6)  # of the estimate: other programs, other pictures


def backbone_option(device: str) -> str:
    """The option of `backbone`: the published one if its weights and a GPU are here.

    Args:
        device: the run's setting.

    Raises:
        InputError: the device does not exist.
    """
    on_gpu = devices.choose(device).type != "cpu"
    return "dino_vitb8" if on_gpu and weights.at_hand(weights.DINO) else "embedded"


def show(config: Config, checked: Checked) -> None:
    """Print the plan; nothing for a finished run, which takes no time."""
    if RunFolder.of(config).finished and not config.rerun:
        return
    device = devices.choose(config.device)
    for name, text in lines(config, checked, device):
        console.say(f"{name + ':':13} {text}")
    expected = _time_text(config, len(checked.images), len(checked.good), device)
    console.say(f"{'Time:':13} {expected}")


def lines(config: Config, checked: Checked, device: torch.device) -> list[tuple[str, str]]:
    """What is used and why, as (name, text)."""
    return [
        ("Detector", _detector(config, checked)),
        ("Backbone", _backbone(config, device)),
        ("Base set", _base(config)),
        ("Classes", _classes(config, checked)),
    ]


def _detector(config: Config, checked: Checked) -> str:
    match config.detector:
        case ReferenceDetectorConfig():
            if checked.request.good is not None:
                return "reference: each photograph is compared with the known-good ones"
            return "reference: photographs are compared with each other (better: --good GOOD)"
    return config.detector.label


def _backbone(config: Config, device: torch.device) -> str:
    name = config.backbone.name
    if name != "embedded":
        return name
    here = "its weights are here" if weights.at_hand(weights.DINO) else "343 MB, downloaded once"
    slow = "" if device.type != "cpu" else "; slow without a GPU"
    return (
        "embedded, small and fast. backbone=dino_vitb8 tells similar kinds apart better "
        f"({here}{slow})"
    )


def _base(config: Config) -> str:
    if config.discovery.is_consensus and config.base.kind != "none":
        return f"not used: a consensus needs none ({config.base.kind} with discovery.members=1)"
    match config.base.kind:
        case "none":
            return "none; base=embedded makes classes better"
        case "embedded":
            return "embedded, drawn defects (better: labelled ones, base=folder base.path=DIR)"
    return config.base.kind


def _classes(config: Config, checked: Checked) -> str:
    if config.novel_classes == "auto":
        from_folders = checked.request.labels_from_folders
        return "as many as sub-folders" if from_folders else "estimated; to set it: --classes K"
    return f"{config.novel_classes}, with the defect-free one"


def _time_text(config: Config, n: int, good: int, device: torch.device) -> str:
    seconds = estimated_seconds(config, n, good, device)
    low, high = (console.duration(seconds * factor) for factor in _SPREAD)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = devices.describe(device) if device.type != "cpu" else f"CPU, {cores} cores"
    return f"about {low} to {high}, from the speed just measured here ({where})"


def estimated_seconds(config: Config, n: int, good: int, device: torch.device) -> float:
    """Seconds of a run, from the time of a few forward passes.

    Args:
        config: all settings.
        n: number of photographs.
        good: number of known-good ones.
        device: of the run.
    """
    votes = config.discovery.is_consensus
    base = 0 if votes else datasets.count_base(config.base)
    regions = _REGIONS_PER_IMAGE * n + _REGIONS_PER_BASE_IMAGE * base
    view = _seconds_per_image(config.backbone, device, 16)
    views = config.train.cached_views if config.train.features == "cached" else 2
    steps = config.train.epochs * math.ceil(regions / config.train.batch_size)
    views += TURNS if votes else 0
    trained = (views * regions + _STEP * steps + regions) * view
    trained += _PER_MEMBER * config.discovery.members if votes else 0
    return _FIXED + _PER_IMAGE * n + _maps_seconds(config, n, good, device) + trained


def _maps_seconds(config: Config, n: int, good: int, device: torch.device) -> float:
    match config.detector:
        case ReferenceDetectorConfig(backbone=network):
            # Two sizes; known-good ones are read for the bank and for its calibration.
            read = 1.5 * (n + 2 * good) if good else n + min(n, config.detector.panel)
            return read * _seconds_per_image(network, device, 2)
        case MuscDetectorConfig(backbone=BackboneConfig() as network) as musc:
            each = n * _seconds_per_image(network, device, 2)
            rounds = musc.stages * len(musc.degrees)
            return each + rounds * n * n / 2 * _seconds_per_pair(network, device)
    return 0.0


def _seconds_per_image(network: BackboneConfig, device: torch.device, count: int) -> float:
    vit = backbone.build(network).vit.to(device)
    images = torch.zeros(count, 3, network.image_size, network.image_size, device=device)
    return _timed(lambda: vit.forward_features(images).sum()) / count


def _seconds_per_pair(network: BackboneConfig, device: torch.device) -> float:
    """Of comparing all patches of two images."""
    vit = backbone.build(network).vit
    patches = torch.zeros(vit.patch_embed.num_patches, vit.embed_dim, device=device)
    return _timed(lambda: (patches @ patches.T).amax(1).sum())


@torch.inference_mode()
def _timed(compute: Callable[[], torch.Tensor]) -> float:
    seconds = []
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        compute().item()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])
