"""`anomalyncd maps`: make anomaly maps and evaluate them, without training on them."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from anomalyncd.cli.settings import entry
from anomalyncd.config import Config
from anomalyncd.runtime.console import printable

HELP = """\
Make anomaly maps and evaluate them, without training on them.

  {command} dataset=mvtec category=bottle detector=musc [cache_root=DIR]

Accepts the settings of `anomalyncd run`; -m runs a sweep. The maps stay in the cache, in the
release's layout, and their folder is printed.

{options}"""


def main() -> int:
    """Make and evaluate the maps; returns 0 on success."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP.format(command=entry.command(), options=entry.options_text()))
        return 0
    entry.register_schemas()
    entry.call(_main, Config)
    elsewhere = entry.failures_elsewhere()
    for message in elsewhere:
        entry.print_error(message)
    return 1 if entry.failures or elsewhere else 0


@hydra.main(version_base="1.3", config_path=str(entry.config_dir()), config_name="train")
def _main(composed: DictConfig) -> None:
    with entry.one_line_errors(composed.debug):
        config = entry.validated(composed)
        from anomalyncd import anomaly_maps  # after validation: torch takes seconds to load
        from anomalyncd.runtime import console

        folder, quality = anomaly_maps.make_maps(config)
        console.show_detection(quality)
        print(printable(f"To use them elsewhere: detector=files detector.path={folder}"))
        print(printable(f"Maps: {folder}"))
