"""`anomalyncd extend`: add new photographs to what a finished run knows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from anomalyncd.cli.finished.order import require_run_first
from anomalyncd.cli.settings import entry
from anomalyncd.config import MAX_MEGAPIXELS, UNKNOWN_SHARE


def main() -> int:
    """Extend a run; returns 0 on success."""
    given = _parser().parse_intermixed_args(sys.argv[1:])
    with entry.one_line_errors(given.debug, "--output DIR"):
        require_run_first(given.run, given.photos, "extend")
        from anomalyncd.extension.extend import extend  # torch takes seconds to load

        result = extend(
            given.run,
            given.photos,
            output=given.output,
            maps=given.maps,
            weights=given.weights,
            device=given.device,
            forward_batch=given.forward_batch,
            max_megapixels=given.max_megapixels,
            unknown_share=given.unknown_share,
        )
        for sentence in result.metrics["extension"]["summary"]:
            print(entry.printable(sentence))
        print(entry.printable(f"Report: {result.folder / 'report.html'}"))
        print(entry.printable(f"Next: anomalyncd review {result.folder}"))
        print(entry.printable(f"Run: {result.folder}"))
    return 1 if entry.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=entry.command(),
        description="Add new photographs to what a finished run knows. Classes keep their ids and "
        "names; regions unlike all of them become new classes, as soon as enough of them hold "
        "together. The result is a new run, which can be extended again; RUN is not changed.",
        epilog="The same command returns a finished extension, and resumes an interrupted one.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished run")
    parser.add_argument(
        "photos", metavar="PHOTOS", nargs="+", type=Path, help="folders of photographs, or images"
    )
    parser.add_argument("--output", metavar="DIR", help="the new run's folder; default: beside RUN")
    parser.add_argument(
        "--maps", metavar="MAPS", help="their anomaly maps, if the run's came from files"
    )
    parser.add_argument(
        "--unknown-share",
        metavar="S",
        type=float,
        default=UNKNOWN_SHARE,
        help="share of known regions that may be called unknown; more finds more new kinds "
        "(default: %(default)s)",
    )
    parser.add_argument("--weights", help="the backbone's weights file, if it has been moved")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda … (default: auto)")
    parser.add_argument("--forward-batch", type=int, default=64, help="regions per forward pass")
    parser.add_argument("--max-megapixels", type=int, default=MAX_MEGAPIXELS, help="of an image")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser
