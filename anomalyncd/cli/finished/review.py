"""Name, merge, split and correct a run's classes: a page on this machine, until Ctrl-C.

    anomalyncd review RUN [--port N] [--token T]
    anomalyncd review RUN --export csv|coco|fiftyone|folders [--output PATH]
    anomalyncd review RUN --import TABLE_OR_FOLDER

Decisions are appended to RUN/decisions.jsonl; the run's own results never change.
"""

from __future__ import annotations

import argparse
import re
import secrets
from pathlib import Path

from anomalyncd.cli.settings import entry
from anomalyncd.errors import InputError
from anomalyncd.runtime.console import printable

_OUTPUTS = {
    "csv": "regions_named.csv",
    "coco": "regions_coco.json",
    "fiftyone": "regions_fiftyone",
    "folders": "regions_by_class",
}


def main() -> int:
    """Serve, export or import; returns 0 on success."""
    parser = argparse.ArgumentParser(
        prog=entry.command(),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a finished run's folder")
    parser.add_argument("--port", type=int, default=0, help="of the page; 0: a free one")
    parser.add_argument("--token", help="in the page's address; default: a random one")
    parser.add_argument("--export", choices=_OUTPUTS, help="write the named regions, and end")
    parser.add_argument("--output", type=Path, help="of --export; default: in the current folder")
    parser.add_argument(
        "--import", dest="source", type=Path, help="take back an exported table or folder, and end"
    )
    options = parser.parse_args()
    with entry.one_line_errors(debug=False, elsewhere="--output elsewhere"):
        _require_run(options.run)
        if options.export:
            _export(options.run, options.export, options.output)
        elif options.source:
            _import(options.run, options.source)
        else:
            _serve(options.run, options.port, options.token)
    return 1 if entry.failures else 0


def _serve(run: Path, port: int, token: str | None) -> None:
    token = token if token is not None else secrets.token_urlsafe(18)
    if not re.fullmatch(r"[\w.~-]{1,200}", token, re.ASCII):
        raise InputError("--token: expected 1 to 200 letters, digits, or any of . _ ~ -")
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: expected 0 to 65535")
    try:
        from anomalyncd.review.page.serve import serve
    except ImportError as error:
        raise InputError(
            f"the page needs {error.name}; install the extra: pip install 'anomalyncd[review]'"
        ) from error
    from anomalyncd.review.session import Review

    review = Review(run)
    try:
        serve(review, port, token, lambda address: print(f"Review: {address}", flush=True))
    except KeyboardInterrupt:
        print(printable(f"Stopped. Decisions: {review.path}"))


def _export(run: Path, kind: str, output: Path | None) -> None:
    from anomalyncd.review.exports import export
    from anomalyncd.review.session import Review

    output = output or Path(_OUTPUTS[kind])
    review = Review(run)
    _warn(review.warning)
    count = export(review, kind, output)
    print(printable(f"Regions: {count} of {len(review.regions.ids)} in {output}"))


def _import(run: Path, source: Path) -> None:
    from anomalyncd.review.corrections import corrections
    from anomalyncd.review.session import Review

    review = Review(run)
    made = review.decide(*corrections(review, source))
    _warn(review.warning)
    changed = int((review.state.assigned != review.start.assigned).sum())
    print(
        printable(
            f"Decisions: {len(made)} new, in {review.path}; "
            f"{changed} regions are in another class than the run put them"
        )
    )


def _warn(warning: str) -> None:
    if warning:
        print(printable(f"warning: {warning}"))


def _require_run(run: Path) -> None:
    if not (run / "regions.csv").is_file():
        raise InputError(f"{run}: not a finished run (no regions.csv in it); name a run's folder")
