"""Find the defects of one product and sort them into kinds: python train.py dataset=… category=…"""

from __future__ import annotations

from anomalyncd.runtime import interrupt  # isort: skip

if __name__ == "__main__":
    interrupt.end_at_once()  # before the imports that take seconds

import sys

import hydra
from omegaconf import DictConfig

from anomalyncd.cli import entry
from anomalyncd.config import Config
from anomalyncd.storage.run_record import metrics_of


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(composed: DictConfig) -> None:
    with entry.one_line_errors(composed.debug):
        config = entry.validated(composed)
        from anomalyncd import experiment
        from anomalyncd.runtime import console  # after validation: torch takes seconds to load

        outcome = experiment.run(config, in_a_sweep=entry.in_a_sweep())
        if outcome.metrics:  # none in a helper under torchrun; the first process tells
            console.show_result(outcome.folder, metrics_of(outcome.metrics))


if __name__ == "__main__":
    entry.register_schemas()
    entry.call(main, Config)
    for sweep in entry.sweeps:  # at most one
        with entry.one_line_errors(debug=False):
            # From what the run folders say: a launcher's jobs may have run anywhere.
            from anomalyncd.results import csv_files
            from anomalyncd.runtime import console
            from anomalyncd.storage import jobs

            results, left = jobs.outcome(sweep)
            console.show_sweep(results, left)
            csv_files.write_sweep(sweep / "table.csv", results)
            entry.failures += left
    sys.exit(1 if entry.failures else 0)
