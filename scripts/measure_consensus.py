"""What the consensus is worth on a dataset: scores over seeds, beside single runs of the method.

python -m scripts.measure_consensus --seeds 1,2,3 dataset=mvtec category=screw dataset.path=… \
    detector.path=… base=folder base.path=…

Each row is a run in its own folder, so that a measurement that was stopped resumes. `consensus` is
experiment=discover with the number of label folders, `estimated` the same without that number, and
`single` is experiment=offline_cpu, one training whose best head decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from anomalyncd.api import compose
from anomalyncd.run import execute

KINDS = {
    "single": ["experiment=offline_cpu"],
    "consensus": ["experiment=discover"],
    "estimated": ["experiment=discover", "novel_classes=estimate"],
}
SCORES = ("nmi", "ari", "f1")


def measure(kind: str, seed: int, overrides: Sequence[str]) -> dict[str, float]:
    """Scores of images, the number of classes, seconds of one run."""
    config = compose(*KINDS[kind], *overrides, f"seed={seed}", "quiet=true")
    metrics = execute(config).metrics
    found = {name: metrics["scores"]["image"][name] for name in SCORES}
    consensus = metrics.get("consensus", {})
    return {
        **found,
        "classes": metrics["counts"]["novel_classes"],
        "learned": consensus.get("learned", float("nan")),
        "seconds": metrics["seconds"]["total"],
    }


def summary(kind: str, rows: list[dict[str, float]]) -> str:
    """Mean and standard deviation of each score over the seeds."""
    parts = []
    for name in SCORES:
        values = [row[name] for row in rows]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        parts.append(f"{name.upper()} {np.mean(values):.3f} ± {spread:.3f}")
    classes = ", ".join(f"{row['classes']:.0f}" for row in rows)
    return f"{kind:10} {'  '.join(parts)}  classes {classes}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="1,2,3", help="numbers, with commas between them")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the runs")
    given = parser.parse_args(arguments)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    rows: dict[str, list[dict[str, float]]] = {}
    for kind in given.kinds.split(","):
        for seed in seeds:
            row = measure(kind, seed, given.overrides)
            rows.setdefault(kind, []).append(row)
            figures = ", ".join(f"{key} {value:.3g}" for key, value in row.items())
            print(f"{kind:10} seed {seed}: {figures}", flush=True)
    for kind, found in rows.items():
        print(summary(kind, found))
    if "single" in rows and "consensus" in rows:
        pairs = zip(rows["consensus"], rows["single"], strict=True)
        gains = [consensus["nmi"] - single["nmi"] for consensus, single in pairs]
        print(f"NMI, consensus less single: {np.mean(gains):+.3f}, worst {min(gains):+.3f}")


if __name__ == "__main__":
    main()
