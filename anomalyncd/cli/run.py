"""`anomalyncd run`, which is train.py: one run, or with -m a sweep, with any settings."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from anomalyncd.cli.settings import entry
from anomalyncd.config import Config
from anomalyncd.storage.run_record import metrics_of

HELP = """\
Find the defects of one product and sort them into kinds.

  {command}                                        the demo product, offline
  {command} dataset=mvtec category=bottle          published settings, on MVTec AD
  {command} -m category=bottle,cable seed=1,2,3 …  a sweep: every combination in its own folder

{options}

Any setting can follow as KEY=VALUE; anomalyncd/config.py explains all of them. --cfg job prints
the resulting settings, -m runs a sweep over lists."""


def main() -> int:
    """Run one job or a sweep; returns 0 on success."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP.format(command=entry.command(), options=entry.options_text()))
        return 0
    sys.argv[1:] = _with_discovery(sys.argv[1:])
    entry.register_schemas()
    entry.call(_main, Config)
    for sweep in entry.sweeps:  # at most one
        with entry.one_line_errors(debug=False):
            # Read from the run folders: a launcher's jobs may have run on any machine.
            from anomalyncd.results import csv_files
            from anomalyncd.runtime import console
            from anomalyncd.storage import jobs

            results, unfinished = jobs.outcome(sweep)
            console.show_sweep(results, unfinished)
            csv_files.write_sweep(sweep / "table.csv", results)
            entry.failures += unfinished
    return 1 if entry.failures else 0


def _with_discovery(arguments: list[str]) -> list[str]:
    """A folder of photographs without word of its maps is discovered, with what works offline."""
    keys = [argument.partition("=")[0] for argument in arguments]
    chosen = {"experiment", "detector", "detector.path"} & set(keys)
    if "dataset=folder" not in arguments or "dataset.path" not in keys or chosen:
        return arguments
    defaults = {"base": "embedded", "backbone": "embedded", "detector": "reference"}
    added = [f"{key}={value}" for key, value in defaults.items() if key not in keys]
    place = arguments.index("dataset=folder") + 1  # not after an option such as --cfg job
    return [*arguments[:place], "experiment=discover", *added, *arguments[place:]]


@hydra.main(version_base="1.3", config_path=str(entry.config_dir()), config_name="train")
def _main(composed: DictConfig) -> None:
    with entry.one_line_errors(composed.debug):
        config = entry.validated(composed)
        from anomalyncd import run  # after validation: torch takes seconds to load
        from anomalyncd.runtime import console

        result = run.execute(config, in_a_sweep=entry.in_a_sweep())
        if result.metrics:  # empty in all but the first process under torchrun
            console.show_result(result.folder, metrics_of(result.metrics))
