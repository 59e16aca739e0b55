"""An exported run beside the run itself: classes, confidences, NMI, size, memory and time.

    python -m scripts.measure_parity RUN --folder OUT [--json FILE] [--threads 2] [--every N]

Each target and precision is exported to OUT, and classifies the photographs of the run; the run
does so with torch in float32. "Same regions" are images whose boxes and areas are equal: maps are
rounded down to 8 bits, so the last bit of a score can move the edge of a region. Time, import and
memory are of a process of its own in which torch cannot be imported, one photograph after the
other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from anomalyncd.deploy.export import TARGETS, Target, export
from anomalyncd.evaluation import metrics
from anomalyncd.inference.predicted import PredictedRegion, Prediction
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.results.known_regions import read_rows
from anomalyncd.runtime_onnx import load
from anomalyncd.runtime_onnx.card import PRECISIONS, Precision

_PROCESS = """
import sys, time, json, statistics
for name in ("torch", "timm", "kornia", "hydra", "sklearn", "scipy", "numba"):
    sys.modules[name] = None
file, threads, *paths = sys.argv[1:]
begun = time.perf_counter()
from anomalyncd.runtime_onnx import load
imported = time.perf_counter() - begun
model = load(file, threads=int(threads))
ready = time.perf_counter() - begun
model.predict(paths[:1])
seconds = []
for path in paths:
    begun = time.perf_counter()
    model.predict([path])
    seconds.append(time.perf_counter() - begun)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([imported, ready, statistics.median(seconds), int(peak.split()[1]) / 1e3]))
"""
_TIMED = 12  # photographs


@dataclass(frozen=True)
class Row:
    """One exported file."""

    target: str
    precision: str
    megabytes: float
    images: int
    same_class: int
    same_regions: int
    difference: (
        float  # of confidences of images and regions, at most, where the regions are the same
    )
    difference_at_all: float  # of images whose class is the same
    nmi: float | None  # with the true classes, without images of a verdict
    import_seconds: float
    load_seconds: float  # with the import
    image_seconds: float
    peak_megabytes: float


def main() -> None:
    """Measure, print a table and, if asked to, write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="N-th photograph only")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    listed = read_rows(given.run / "predictions.csv", ("image", "true_class"))[:: given.every]
    paths, truth = zip(*((Path(row["image"]), row["true_class"]) for row in listed), strict=True)
    exact = _of_torch(given.run, paths)
    print(f"torch: NMI {_nmi(exact, truth)}", flush=True)
    rows = []
    for target in TARGETS:
        for precision in PRECISIONS:
            rows.append(_measured(given, target, precision, paths, truth, exact))
            print(rows[-1], flush=True)
    table = Table(title=given.run.name)
    for name in asdict(rows[0]):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        shown = (f"{v:.2g}" if isinstance(v, float) else str(v) for v in asdict(row).values())
        table.add_row(*shown)
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _of_torch(run: Path, paths: Sequence[Path]) -> list[Prediction]:
    classifier = Classifier(run, device="cpu")
    classifier.network.vit.precision = torch.float32
    return classifier.predict(paths)


def _measured(
    given: argparse.Namespace,
    target: Target,
    precision: Precision,
    paths: Sequence[Path],
    truth: Sequence[str],
    exact: Sequence[Prediction],
) -> Row:
    given.folder.mkdir(parents=True, exist_ok=True)
    file = given.folder / f"{precision}{'.onnx' if target == 'onnx' else '.xml'}"
    written = [file, file.with_suffix(".bin")] if target == "openvino" else [file]
    for path in written:
        path.unlink(missing_ok=True)  # of an earlier measurement
    done = export(given.run, file, to=target, precision=precision)
    found = load(file, threads=given.threads).predict(paths)
    pairs = list(zip(found, exact, strict=True))
    same_class = [pair for pair in pairs if pair[0].class_id == pair[1].class_id]
    same_regions = [pair for pair in pairs if _cut(pair[0]) == _cut(pair[1])]
    command = [sys.executable, "-c", _PROCESS, str(file), str(given.threads)]
    timed = [str(path) for path in paths[:: max(1, len(paths) // _TIMED)]]
    process = subprocess.run([*command, *timed], check=True, capture_output=True, text=True)
    return Row(
        target,
        precision,
        sum(path.stat().st_size for path in done.files) / 1e6,
        len(pairs),
        len(same_class),
        len(same_regions),
        max((_difference(*pair) for pair in same_regions), default=0.0),
        max((abs(one.confidence - other.confidence) for one, other in same_class), default=0.0),
        _nmi(found, truth),
        *json.loads(process.stdout),
    )


def _cut(one: Prediction) -> list[tuple[object, int]]:
    return [(region.box, region.area) for region in one.regions]


def _difference(one: Prediction, other: Prediction) -> float:
    regions = zip(one.regions, other.regions, strict=True)
    pairs: list[tuple[Prediction | PredictedRegion, ...]] = [(one, other), *regions]
    same = [(a.confidence, b.confidence) for a, b in pairs if a.class_id == b.class_id]
    return max((abs(a - b) for a, b in same), default=0.0)


def _nmi(found: Sequence[Prediction], truth: Sequence[str]) -> float | None:
    names = sorted(set(truth))
    pairs = [
        (names.index(true), one.class_id)
        for one, true in zip(found, truth, strict=True)
        if true and one.class_id >= 0
    ]
    if len({true for true, _ in pairs}) < 2:
        return None
    targets, predicted = zip(*pairs, strict=True)
    return metrics.score(targets, predicted).nmi


if __name__ == "__main__":
    main()
