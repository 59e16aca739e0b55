"""Show what is installed, which device and weights are available, and how fast this machine is."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

LIBRARIES = ("torch", "timm", "hydra-core", "kornia", "numpy", "opencv-python-headless", "pillow")
# By extra: a module that is importable if it is installed, and what it is for.
EXTRAS = {
    "anomalib": ("anomalib", "detectors patchcore, padim, efficientad, …; AUPRO"),
    "search": ("qdrant_edge", "anomalyncd similar"),
    "review": ("fastapi", "anomalyncd review"),
    "deploy": ("onnxruntime", "anomalyncd export, and its files without torch"),
    "cluster": ("hydra_plugins.hydra_submitit_launcher", "launcher=local_gpus, launcher=slurm"),
}
TRACKERS = {"wandb": "tracker=wandb", "tensorboard": "tracker=tensorboard"}
VIEWS = 64  # for the measurement of speed


def main() -> int:
    """Print the results; returns 0 if the demo can run here."""
    parser = argparse.ArgumentParser(prog="anomalyncd doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args()
    found = examine()
    print(json.dumps(found, indent=2) if options.json else _text(found))
    return 0 if found["speed"] else 1


def examine() -> dict[str, Any]:
    """All results as JSON: `python`, `libraries`, `extras`, `trackers`, `device`, `weights`,
    `speed`."""
    found: dict[str, Any] = {
        "anomalyncd": _version("anomalyncd"),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "extras": {name: _importable(module) for name, (module, _) in EXTRAS.items()},
        "trackers": {name: _importable(name) for name in TRACKERS},
    }
    try:
        found |= {"device": _device(), "weights": _weights(), "speed": _speed()}
    except Exception as error:  # a broken driver or library can raise anything
        reason = " ".join(str(error).split())
        remedy = "; install anomalyncd again" if isinstance(error, ImportError) else ""
        problem = f"{type(error).__name__}: {reason}{remedy}"
        found |= {"device": None, "weights": {}, "speed": None, "problem": problem}
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that holds it is missing
        return False


def _device() -> dict[str, Any]:
    import torch

    from anomalyncd.runtime import devices

    device = devices.choose("auto")
    return {
        "name": devices.describe(device),
        "processor": devices.processor("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": str(devices.precision("auto", device)).removeprefix("torch."),
    }


def _weights() -> dict[str, bool]:
    """Backbones by name, and whether their weights are on this machine."""
    from anomalyncd.models import embedded, weights

    return {name: weights.at_hand(name) for name in (embedded.NAME, weights.DINO, weights.CLIP)}


def _speed() -> dict[str, float]:
    """Views per second of the embedded backbone at its usual size; the better of two tries."""
    import torch

    from anomalyncd.config import AttentionConfig, BackboneConfig, TrainConfig
    from anomalyncd.models import backbone, model
    from anomalyncd.runtime import devices

    device = devices.choose("auto")
    network = model.build(
        backbone.build(BackboneConfig("embedded", image_size=112)),
        AttentionConfig(),
        TrainConfig(),
        n_base=0,
        n_novel=2,
    ).to(device)
    images = torch.zeros(VIEWS, 3, 112, 112, device=device)
    masks = torch.ones(VIEWS, 1, 112, 112, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(3):  # the first warms up
            start = time.perf_counter()
            network(images, masks).sum().item()
            seconds.append(time.perf_counter() - start)
    return {"views_per_second": round(VIEWS / min(seconds[1:]), 1)}


def _text(found: dict[str, Any]) -> str:
    lines = [f"anomalyncd {found['anomalyncd']}, Python {found['python']}"]
    lines += [
        f"  {name:24} {known or 'not installed'}" for name, known in found["libraries"].items()
    ]
    for name, (_, use) in EXTRAS.items():
        there = "installed" if found["extras"][name] else f"pip install 'anomalyncd[{name}]'"
        lines.append(f"  extra {name:18} {there}  ({use})")
    for name, use in TRACKERS.items():
        there = "installed" if found["trackers"][name] else f"pip install {name}"
        lines.append(f"  tracker {name:16} {there}  ({use})")
    if found["speed"] is None:
        return "\n".join([*lines, f"problem: {found['problem']}"])
    device = found["device"]
    lines.append(
        f"device: {device['name']} ({device['processor']}, {device['cores']} cores, "
        f"{device['cpu_capability']}); frozen blocks in {device['precision']}"
    )
    for name, there in found["weights"].items():
        lines.append(f"  weights {name:36} {'here' if there else 'downloaded when first used'}")
    lines.append(
        f"speed: {found['speed']['views_per_second']:g} views/s, embedded backbone, 112 px"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
