"""`anomalyncd learn`: make a classifier of what was decided in a review."""

from __future__ import annotations

import argparse
from pathlib import Path

from anomalyncd.cli.settings import entry


def main() -> int:
    """Learn from a review; returns 0 on success."""
    parser = argparse.ArgumentParser(
        prog=entry.command(),
        description="Make a classifier of what was decided in a review of RUN: decided regions are "
        "known, the others follow those that they look like, and classes have the names that were "
        "given. The result is a new run, which can be used and reviewed like any other; RUN is not "
        "changed. It needs seconds, and no photographs.",
        epilog="The same command returns a finished result.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a reviewed run")
    parser.add_argument("--output", metavar="DIR", help="the new run's folder; default: beside RUN")
    parser.add_argument("--weights", help="the backbone's weights file, if it has been moved")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    given = parser.parse_args()
    with entry.one_line_errors(given.debug, "--output DIR"):
        from anomalyncd.learning.learn import learn  # torch takes seconds to load

        result = learn(given.run, output=given.output, weights=given.weights)
        for sentence in result.metrics["learning"]["summary"]:
            print(entry.printable(sentence))
        print(entry.printable(f"Next: anomalyncd predict {result.folder} NEW_PHOTOS"))
        print(entry.printable(f"Run: {result.folder}"))
    return 1 if entry.failures else 0
