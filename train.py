"""Find the defects of one product and sort them into kinds: python train.py dataset=… category=…"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from anomalyncd import entry


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(composed: DictConfig) -> None:
    with entry.one_line_errors(composed.debug):
        config = entry.validated(composed)
        from anomalyncd import console, experiment  # after validation: torch takes seconds to load

        outcome = experiment.run(config)
        console.show_result(outcome.folder, outcome.metrics)


if __name__ == "__main__":
    entry.register_schemas()
    main()
    sys.exit(1 if entry.failures else 0)
