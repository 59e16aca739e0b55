"""Make anomaly maps and say how good they are, without training on them.

    python scripts/anomaly_maps.py dataset=mvtec category=bottle detector=musc [cache_root=DIR]

Takes the settings of train.py; -m sweeps. The maps stay in the cache, in the release's layout.
"""

from __future__ import annotations

from anomalyncd.runtime import interrupt  # isort: skip

if __name__ == "__main__":
    interrupt.end_at_once()  # before the imports that take seconds

import sys

import hydra
from omegaconf import DictConfig

from anomalyncd.cli import entry
from anomalyncd.config import Config
from anomalyncd.runtime.console import printable


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(composed: DictConfig) -> None:
    with entry.one_line_errors(composed.debug):
        config = entry.validated(composed)
        from anomalyncd import experiment
        from anomalyncd.runtime import console  # after validation: torch takes seconds to load

        folder, quality = experiment.make_maps(config)
        console.show_detection(quality)
        told = f"Maps: {folder} (elsewhere: detector=files detector.path={folder})"
        print(printable(told))


if __name__ == "__main__":
    entry.register_schemas()
    entry.call(main, Config)
    elsewhere = entry.failures_elsewhere()
    for message in elsewhere:
        print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(1 if entry.failures or elsewhere else 0)
