"""`anomalyncd predict`, which is predict.py: classify new images with a finished run."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from functools import partial

import hydra
from omegaconf import DictConfig

from anomalyncd.cli.finished.order import require_run_first
from anomalyncd.cli.finished.predicted import FOUND, on_record, require_all, tell
from anomalyncd.cli.settings import entry
from anomalyncd.config import PredictConfig

HELP = """\
Classify new photographs with a finished run.

  {command} RUN PHOTOS... [--output DIR] [detector.path=MAPS]

RUN is a run's folder. PHOTOS are photographs, folders (read at any depth), quoted
patterns such as 'day*/*.png', videos, or - for a list of paths on standard input.
The same command resumes after an interruption, and adds photographs that are new.

  --output DIR     where to write; default: RUN/predictions
  --jsonl          print one JSON object for each image as it comes, and nothing else
  --overlays       a picture of each image with its regions outlined, in DIR/overlays
  --every N        of a video, every N-th frame
  --fail-on KINDS  exit status 3 if an image is of one of these classes: names or numbers
                   separated by commas, unknown, "out of scope", or defect (any but good)

Exit status: 0; 1 if something was wrong, also if some photographs could not be read (they are
listed in DIR/unreadable.csv, all others are done); 3 as --fail-on says.

A run with detector=reference makes the anomaly maps of new images itself, image by image; one with
musc* compares the new images with each other. For other runs MAPS are their maps, made with the
same detector as the run's: anomalyncd maps dataset=folder dataset.path=PHOTOS detector=...

Settings: run, path (instead of RUN and PHOTOS), detector.path, category, output, every,
overlays, jsonl, fail_on, unknown_share, checkpoint, device, forward_batch, max_megapixels,
debug."""

_VALUES = {"--output": "output", "--every": "every", "--fail-on": "fail_on"}
_SWITCHES = {"--jsonl": "jsonl", "--overlays": "overlays"}
_OF_HYDRA = (
    *("--cfg", "--config-dir", "--config-name", "--config-path", "--experimental-rerun"),
    *("--hydra-help", "--info", "--multirun", "--package", "--resolve", "--run"),
    *("--shell-completion", "--version"),
)
_found: list[str] = []  # kinds of --fail-on, in this process


def main() -> int:
    """Run the prediction; returns 0 on success, 3 if --fail-on has found something."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP.format(command=entry.command()))
        return 0
    _found.clear()
    given = _with_options(sys.argv[1:])
    if strange := next((word for word in given if _is_strange(word)), None):
        options = (*_VALUES, *_SWITCHES)
        near = get_close_matches(strange, options, n=1)
        meant = f"did you mean {near[0]}?" if near else f"options: {', '.join(options)}"
        entry.print_error(f"{strange}: no such option; {meant}")
        return 2
    given = _with_paths(given)
    if not any(override.startswith("detector") for override in given):
        given.append(entry.override("detector.path", ""))  # the run's own detector makes the maps
    sys.argv[1:] = given
    entry.register_schemas()
    entry.call(_main, PredictConfig)
    return FOUND if _found else 1 if entry.failures else 0


def _with_options(arguments: list[str]) -> list[str]:
    """`--output DIR` and other options as settings."""
    found, rest = [], iter(arguments)
    for argument in rest:
        option, is_joined, value = argument.partition("=")
        if option in _VALUES:
            value = value if is_joined else next(rest, "")
            if option == "--fail-on":
                words = ",".join(entry.quoted(word) for word in value.split(",") if word)
                argument = f"fail_on=[{words}]"
            elif option == "--every":
                argument = f"every={value}"
            else:
                argument = entry.override(_VALUES[option], value)
        elif argument in _SWITCHES:
            argument = f"{_SWITCHES[argument]}=true"
        found.append(argument)
    return found


def _is_strange(word: str) -> bool:
    return word.startswith("--") and word.partition("=")[0] not in _OF_HYDRA


def _with_paths(arguments: list[str]) -> list[str]:
    """RUN and PHOTOS as settings: what is no setting, in order."""
    plain = [word for word in arguments if _is_path(word)]
    rest = [word for word in arguments if not _is_path(word)]
    keys = {word.partition("=")[0] for word in rest}
    if plain and "run" not in keys:
        rest.append(entry.override("run", plain.pop(0)))
    if len(plain) == 1:
        rest.append(entry.override("path", plain[0]))
    elif plain:
        rest.append(f"path=[{','.join(map(entry.quoted, plain))}]")
    return rest


def _is_path(word: str) -> bool:
    if word == "-":
        return True
    return not word.startswith("-") and (
        "=" not in word or os.path.exists(word)
    )  # Path: an error if long


@hydra.main(version_base="1.3", config_path=str(entry.config_dir()), config_name="predict")
def _main(composed: DictConfig) -> None:
    elsewhere = "output=…, or TMPDIR for temporary files"
    with entry.one_line_errors(composed.debug, elsewhere):
        config = entry.validated(composed)
        paths = config.path if isinstance(config.path, list) else [config.path]
        require_run_first(config.run, paths, "predict")
        from anomalyncd.prediction.predict import predict_all

        result = predict_all(config, partial(on_record, config))
        _found.extend(tell(result, config))
        require_all(result)
