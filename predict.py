"""Classify new images with a finished run: python predict.py run=… path=… detector.path=…"""

from __future__ import annotations

from anomalyncd.runtime import interrupt  # isort: skip

if __name__ == "__main__":
    interrupt.end_at_once()  # before the imports that take seconds

import sys

import hydra
from omegaconf import DictConfig

from anomalyncd.cli import entry
from anomalyncd.config import PredictConfig
from anomalyncd.runtime.console import printable


@hydra.main(version_base="1.3", config_path="configs", config_name="predict")
def main(composed: DictConfig) -> None:
    elsewhere = "output=…, or TMPDIR for what is only needed meanwhile"
    with entry.one_line_errors(composed.debug, elsewhere):
        config = entry.validated(composed)
        from anomalyncd import prediction  # after validation: torch takes seconds to load

        print(printable(f"Predictions: {prediction.predict(config)}"))


if __name__ == "__main__":
    entry.register_schemas()
    entry.call(main, PredictConfig)
    sys.exit(1 if entry.failures else 0)
