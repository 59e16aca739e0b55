"""`anomalyncd predict`, which is predict.py: classify new images with a finished run."""

from __future__ import annotations

import csv
import sys
from collections import Counter

import hydra
from omegaconf import DictConfig

from anomalyncd.cli import entry
from anomalyncd.config import PredictConfig
from anomalyncd.runtime.console import printable

HELP = """\
Classify new images with a finished run.

  {command} RUN PHOTOS [--output DIR] [detector.path=MAPS]

RUN is a run's folder, PHOTOS a folder of images or one image. A run with
detector=reference or musc* makes their anomaly maps itself. For other runs MAPS are
their maps, made with the same detector as the run's:
anomalyncd maps dataset=folder dataset.path=PHOTOS detector=…

Settings: run, path (instead of RUN and PHOTOS), detector.path, category, output, checkpoint,
device, forward_batch, max_megapixels, unknown_share, debug."""


def main() -> int:
    """Run the prediction; returns 0 on success."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP.format(command=entry.command()))
        return 0
    given = entry.named(_with_output(sys.argv[1:]), ("run", "path"))
    if not any(override.startswith("detector") for override in given):
        given.append(entry.override("detector.path", ""))  # the run's own detector makes the maps
    sys.argv[1:] = given
    entry.register_schemas()
    entry.call(_main, PredictConfig)
    return 1 if entry.failures else 0


def _with_output(arguments: list[str]) -> list[str]:
    """`--output DIR` as a setting."""
    found, rest = [], iter(arguments)
    for argument in rest:
        option, is_joined, folder = argument.partition("=")
        if option == "--output":
            argument = entry.override("output", folder if is_joined else next(rest, ""))
        found.append(argument)
    return found


@hydra.main(version_base="1.3", config_path=str(entry.config_dir()), config_name="predict")
def _main(composed: DictConfig) -> None:
    elsewhere = "output=…, or TMPDIR for temporary files"
    with entry.one_line_errors(composed.debug, elsewhere):
        config = entry.validated(composed)
        # After validation: torch takes seconds to load.
        from anomalyncd.prediction.predict import predict

        folder = predict(config)
        with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
            found = Counter(row["class_name"] for row in csv.DictReader(file))
        print(printable(", ".join(f"{name}: {count}" for name, count in found.most_common())))
        print(printable(f"Predictions: {folder}"))
