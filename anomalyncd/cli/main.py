"""The `anomalyncd` command: one verb for each task.

Each verb is a module of this folder or of `finished/` with a `main`. It is imported only when it is
called, so that verbs that do not need torch start quickly.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from anomalyncd.runtime import interrupt
from anomalyncd.storage.exported import is_exported

WITHOUT_A_RUN = {
    "discover": "find the kinds of defects in a folder of photographs",
    "run": "one run or a sweep with any settings (same as train.py)",
    "maps": "only make anomaly maps, and evaluate them",
    "table": "tables of finished runs, compared with the published figures",
    "status": "the state of all runs, live",
    "prepare": "download or unpack a dataset and verify it",
    "doctor": "what is installed, which device and weights are available, how fast it is",
}
OF_A_FINISHED_RUN = {
    "predict": "classify new photographs",
    "extend": "add new photographs: classes keep their ids, new kinds follow",
    "review": "name, merge, split and correct the kinds",
    "learn": "make a classifier of what was decided in a review",
    "similar": "known regions that resemble those of a photograph",
    "export": "write one file that runs without torch",
    "serve": "classify photographs that are sent over HTTP",
}
VERBS = WITHOUT_A_RUN | OF_A_FINISHED_RUN

HELP = """\
Find the defects in unlabelled photographs of a product and sort them into kinds.

usage: anomalyncd VERB …

{verbs}

with a finished run:

{finished}

  anomalyncd run                                 the demo product, offline
  anomalyncd discover PHOTOS                     your photographs
  anomalyncd VERB --help                         help on a verb
  anomalyncd --version"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Call a verb.

    Args:
        arguments: the verb and its arguments; None: those of the process.

    Returns:
        The exit status: 0 for success, 1 for a reported error, 2 for a wrong command line.
    """
    if arguments is None:
        interrupt.end_at_once()  # before the imports that take seconds
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if given else 2
    if given[0] in ("-V", "--version"):
        from anomalyncd import __version__

        print(f"anomalyncd {__version__}")
        return 0
    verb, rest = given[0], given[1:]
    if verb not in VERBS:
        print(f"error: {_no_such_verb(verb)}", file=sys.stderr)
        return 2
    sys.argv = [f"anomalyncd {verb}", *rest]  # where Hydra and argparse look
    room = "cli.finished" if verb in OF_A_FINISHED_RUN else "cli"
    if verb == "predict" and any(map(_is_exported, rest)):
        verb = "predict_file"  # without torch and Hydra
    return import_module(f"anomalyncd.{room}.{verb}").main()


def _is_exported(word: str) -> bool:
    return is_exported(Path(word.rpartition("=")[2]))  # also of a setting


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [
        "\n".join(f"  {v:{width}}  {what}" for v, what in verbs.items())
        for verbs in (WITHOUT_A_RUN, OF_A_FINISHED_RUN)
    ]
    return HELP.format(verbs=lines[0], finished=lines[1])


def _no_such_verb(verb: str) -> str:
    if "=" in verb:
        return f"{verb!r} is a setting, not a verb; did you mean: anomalyncd run {verb} …"
    near = get_close_matches(verb, VERBS, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{verb!r} is not a verb; {meant}verbs: {', '.join(VERBS)}"
