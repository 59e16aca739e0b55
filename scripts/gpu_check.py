"""What cannot be checked without a GPU: correctness, speed and memory there, in 40 minutes.

    make gpu-check [ARGS="--json FILE"]
    python -m scripts.gpu_check [names…] [--device cuda] [--minutes 40] [--json FILE] [--tiny]

Each check runs in a process of its own and may take its share of the minutes: one that hangs or
runs out of memory costs no other. A check fails if its process does or if a limit that is named
beside its figures is missed; the status is 1 then. `--device cpu --tiny` only shows that all of it
runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from anomalyncd.config import BackboneConfig, MuscDetectorConfig, TrainConfig
from anomalyncd.detectors.musc import MuscDetector
from anomalyncd.inference.classify import classify
from anomalyncd.runtime import devices
from anomalyncd.runtime.versions import versions
from anomalyncd.training import train
from anomalyncd.training.state import TrainingState
from anomalyncd.types import Dataset, Sample
from scripts.benchmark import mebin, new_images, regions, training  # noqa: F401  # register themselves
from scripts.benchmark.harness import BENCHMARKS, milliseconds
from scripts.benchmark.inputs import BASE_8, SMALL_16, drawn_pixels, drawn_set, network, view_side

ROOT = Path(__file__).parents[1]
GB = 1e9


@dataclass(frozen=True)
class Figure:
    """One measured value, and what it must not exceed or fall below."""

    name: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        above = self.at_most is not None and not self.value <= self.at_most
        below = self.at_least is not None and not self.value >= self.at_least
        return not (above or below)

    def __str__(self) -> str:
        limits = [f"at most {self.at_most:g}"] if self.at_most is not None else []
        limits += [f"at least {self.at_least:g}"] if self.at_least is not None else []
        return f"{self.name} {self.value:.4g}" + (f" ({', '.join(limits)})" if limits else "")


Check = Callable[[argparse.Namespace], list[Figure]]
CHECKS: dict[str, tuple[Check, float]] = {}  # by name: the check, and its share of the minutes


def check(share: float) -> Callable[[Check], Check]:
    def register(function: Check) -> Check:
        CHECKS[function.__name__] = function, share
        return function

    return register


@check(0.1)
def tests(options: argparse.Namespace) -> list[Figure]:
    """The tests that need a GPU, and those of what runs there in another way."""
    names = ["tests/regions/test_mebin_torch.py", "tests/models/test_mask_guided_vit.py"]
    command = [sys.executable, "-m", "pytest", "-q", *(names[:1] if options.tiny else names)]
    status = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=ROOT).returncode
    return [Figure("status of pytest", status, at_most=0)]


@check(0.1)
def parity(options: argparse.Namespace) -> list[Figure]:
    """The same training here and on the CPU, in float32, from the same views."""
    found = []
    side = 32 if options.tiny else 112
    data = drawn_set(16, 24, side)
    for features in ("online", "cached"):
        config = TrainConfig(
            features=features, epochs=3, batch_size=16, cached_views=2, precision="float32"
        )
        losses, classes = [], []
        for device in (torch.device("cpu"), options.device):
            with tempfile.TemporaryDirectory() as folder:
                torch.manual_seed(0)
                at = argparse.Namespace(**{**vars(options), "device": device})
                model = network(SMALL_16, side, at, config)
                history = train.train(
                    model,
                    data,
                    config,
                    seed=0,
                    state=TrainingState(Path(folder, "state"), ""),
                    on_epoch=lambda epoch, figures: None,
                )
                losses.append(np.array(history))
                classes.append(classify(model, data.novel).probabilities.argmax(-1))
        gap = float(np.abs(losses[1] / losses[0] - 1)[losses[0] != 0].max())
        agree = float((classes[0] == classes[1]).mean())
        found += [
            Figure(f"{features}: relative difference of losses", gap, at_most=1e-3),
            Figure(f"{features}: share of regions with the same class", agree, at_least=0.98),
        ]
    return found


@check(0.05)
def bfloat16(options: argparse.Namespace) -> list[Figure]:
    """Class tokens in bfloat16 against those in float32."""
    side = view_side(options)
    model = network(SMALL_16, side, options)
    images = torch.from_numpy(drawn_pixels(32, side)[0]).permute(0, 3, 1, 2).float() / 255
    masks = torch.from_numpy(drawn_pixels(32, side)[1])[:, None].float() / 255
    x, mask = images.to(options.device), masks.to(options.device)
    tokens, seconds = [], []
    with torch.inference_mode():
        for precision in (torch.float32, torch.bfloat16):
            model.vit.precision = precision
            tokens.append(model.vit(x, mask).float())
            seconds.append(min(milliseconds(lambda: model.vit(x, mask)) for _ in range(5)))
    cosine = float(F.cosine_similarity(*tokens).min())
    return [
        Figure("lowest cosine to float32", cosine, at_least=0.99),
        Figure("times as fast as float32", seconds[0] / seconds[1]),
    ]


@check(0.05)
def compiled(options: argparse.Namespace) -> list[Figure]:
    """Whether `torch.compile` would pay for the frozen blocks; they are not compiled now."""
    side = view_side(options)
    model = network(SMALL_16 if options.tiny else BASE_8, side, options)
    n = 2 if options.tiny else 64
    x = torch.randn(n, 3, side, side, device=options.device)
    visible = model.vit.attention_mask(torch.ones(n, 1, side, side, device=options.device))
    faster = torch.compile(model.vit.frozen_blocks, backend="eager" if options.tiny else "inductor")
    with torch.inference_mode():
        ways = (model.vit.frozen_blocks, faster)
        first, second = (way(x, visible) for way in ways)
        calls = [partial(way, x, visible) for way in ways]
        taken = [min(milliseconds(call) for _ in range(5)) for call in calls]
    gap = float((first - second).abs().max() / first.abs().max())
    return [
        Figure("relative difference to eager", gap, at_most=0.05),
        Figure("times as fast as eager", taken[0] / taken[1]),
    ]


@check(0.15)
def benchmarks(options: argparse.Namespace) -> list[Figure]:
    """Every part against its plain way, and against the limits of the device."""
    names = ("mebin_torch", "views", "frozen", "frozen_small_8", "step", "step_small_8", "epoch")
    found = []
    for name in names[:2] if options.tiny else names:
        for row in BENCHMARKS[name].measure(options):
            found.append(Figure(f"{row.name}: times as fast as the plain way", row.ratio))
            if row.of_limit is not None:
                found.append(Figure(f"{row.name}: share of the limit", row.of_limit))
    return found


@check(0.15)
def category(options: argparse.Namespace) -> list[Figure]:
    """50 epochs of a category like those of MVTec AD with ViT-B/8, untrained."""
    rows = BENCHMARKS["category"].measure(options)
    online, cached = (row.ours / 1000 for row in rows)
    goals = (None, None) if options.tiny else (60, 20)
    return [
        Figure("online, s", online, at_most=goals[0]),
        Figure("cached, s", cached, at_most=goals[1]),
        Figure("share of peak, online", rows[0].of_limit or 0),
        Figure("share of peak, cached", rows[1].of_limit or 0),
        *_memory(options, None),
    ]


@check(0.2)
def musc(options: argparse.Namespace) -> list[Figure]:
    """MuSc of 1,200 images with CLIP's ViT-L/14, untrained."""
    count, side = (6, 64) if options.tiny else (1200, 336)
    name = "vit_tiny_patch16_224" if options.tiny else "vit_large_patch14_clip_336"
    size = 32 if options.tiny else 336
    config = replace(
        MuscDetectorConfig(),
        backbone=BackboneConfig(name=name, pretrained=False, image_size=size),
    )
    with tempfile.TemporaryDirectory() as folder:
        samples = []
        for i, image in enumerate(drawn_pixels(count, side)[0]):
            path = Path(folder, f"{i}.bmp")
            Image.fromarray(image).save(path)
            samples.append(Sample(str(i), path))
        begun = time.perf_counter()
        detector = MuscDetector(config, options.device, Path(folder))
        maps = sum(1 for _ in detector.maps(Dataset(tuple(samples), None)))
        taken = time.perf_counter() - begun
    assert maps == count
    return [Figure("images per second", count / taken), *_memory(options, 8.0)]


@check(0.1)
def prediction(options: argparse.Namespace) -> list[Figure]:
    """Photographs that a finished run classifies, from file to class."""
    rows = BENCHMARKS["new_images"].measure(options)
    return [Figure(f"{row.measured_on}, {row.name}, ms", row.ours) for row in rows]


@check(0.1)
def resume(options: argparse.Namespace) -> list[Figure]:
    """A run that is killed in training ends with the same classes as one that is not."""
    small = ["detector=simulated", "train.epochs=40", "quiet=true", "tracker=none"]
    small += ["dataset.per_class=3", "dataset.good=4", "dataset.train=1", "base.per_class=3"]
    small += [f"device={options.device}", "backbone.image_size=32", "train.features=online"]
    tables = []
    with tempfile.TemporaryDirectory() as name:
        for kill in (False, True):
            root = Path(name, str(kill))
            command = [sys.executable, str(ROOT / "train.py"), *small, f"output_root={root}"]
            if kill:
                _killed_in_training(command, root)
            subprocess.run(command, check=True, cwd=name, stdout=subprocess.DEVNULL)
            (table,) = root.rglob("predictions.csv")
            tables.append([line.split(",")[2] for line in table.read_text().splitlines()[1:]])
    same = float(np.mean([a == b for a, b in zip(*tables, strict=True)]))
    return [Figure("share of photographs with the same class", same, at_least=1.0)]


def _killed_in_training(command: list[str], root: Path) -> None:
    process = subprocess.Popen(command, cwd=root.parent, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(root.rglob("training.safetensors")):
        time.sleep(0.05)
    if process.poll() is not None:
        raise SystemExit("the run ended before it could be killed")
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.wait()


def _memory(options: argparse.Namespace, at_most: float | None) -> list[Figure]:
    if options.device.type != "cuda":
        return []
    return [Figure("peak memory, GB", torch.cuda.max_memory_allocated() / GB, at_most=at_most)]


def main() -> int:
    """Run all checks, or measure the one of `--one`; returns 0 if all are met."""
    options = _options()
    if options.one:
        found = CHECKS[options.one][0](options)
        Path(options.json).write_text(json.dumps([asdict(figure) for figure in found]))
        return 0
    where = devices.describe(options.device)
    table = Table("check", "figures", "seconds", title=f"{where}: GPU check")
    results, is_met = {}, True
    for name in options.names or CHECKS:
        began = time.perf_counter()
        found, problem = _in_a_process(name, options)
        taken = time.perf_counter() - began
        met = not problem and all(figure.is_met for figure in found)
        is_met &= met
        lines = [f"{'' if figure.is_met else 'MISSED: '}{figure}" for figure in found]
        table.add_row(name, "\n".join([*lines, *([problem] if problem else [])]), f"{taken:.0f}")
        print(f"{name}: {'met' if met else 'not met'}, {taken:.0f} s", flush=True)
        results[name] = {
            "figures": [asdict(figure) for figure in found],
            "problem": problem,
            "seconds": round(taken, 1),
            "is_met": met,
        }
    Console().print(table)
    if options.json:
        content = {"device": where, "versions": versions(), "checks": results}
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0 if is_met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CHECKS)}; default: all")
    parser.add_argument("--device", type=devices.choose, default=None, help="default: cuda")
    parser.add_argument("--minutes", type=float, default=40, help="that all may take together")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    parser.add_argument("--tiny", action="store_true", help="only to see that everything runs")
    parser.add_argument("--one", choices=CHECKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(CHECKS):
        parser.error(f"no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    if options.device is None:
        if not torch.cuda.is_available():
            parser.error("this machine has no GPU; --device cpu --tiny shows that all of it runs")
        options.device = devices.choose("cuda")
    options.maps, options.threads = None, torch.get_num_threads()  # of the benchmarks
    return options


def _in_a_process(name: str, options: argparse.Namespace) -> tuple[list[Figure], str]:
    """A check's figures, and what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "figures.json")
        command = [sys.executable, "-m", "scripts.gpu_check", "--one", name]
        command += ["--device", str(options.device), "--json", str(written)]
        command += ["--tiny"] * options.tiny
        limit = 60 * options.minutes * CHECKS[name][1]
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return [], f"took more than {limit:.0f} s"
        if status:
            return [], f"ended with status {status}; its output is above"
        return [Figure(**figure) for figure in json.loads(written.read_text())], ""


if __name__ == "__main__":
    sys.exit(main())
