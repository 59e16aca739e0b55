"""Find the defects of one product and sort them into kinds: python train.py dataset=… category=…"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from anomalyncd import entry

results: list[dict[str, Any]] = []  # of this process's jobs
sweeps: set[str] = set()  # Hydra's folder for the record of a sweep, where its table goes too


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(composed: DictConfig) -> None:
    with entry.one_line_errors(composed.debug):
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            sweeps.add(HydraConfig.get().sweep.dir)
        config = entry.validated(composed)
        from anomalyncd import console, experiment  # after validation: torch takes seconds to load

        outcome = experiment.run(config)
        if not outcome.metrics:  # a helper under torchrun; the first process tells
            return
        console.show_result(outcome.folder, outcome.metrics)
        results.append({**outcome.metrics, "folder": str(outcome.folder)})


if __name__ == "__main__":
    entry.register_schemas()
    main()
    if len(results) + len(entry.failures) > 1:
        from anomalyncd import console

        console.show_sweep(results, entry.failures)
        from anomalyncd import tables

        for folder in sweeps:
            tables.write_sweep(Path(folder) / "table.csv", results)
    sys.exit(1 if entry.failures else 0)
