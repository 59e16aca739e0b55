"""Try to break the product from outside, and count.

    make campaign ARGS="[--parts kills disks …] [--kills N] [--trials N] [--seed N] [--minutes N]"

What is left out of it by ARGS is not written to docs/reliability.md, only told on the terminal.
"""

from __future__ import annotations

import argparse
import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.campaign import (
    bad_input,
    bad_settings,
    cases,
    disks,
    jobs,
    kills,
    process,
    products,
    report,
    tampering,
    trials,
)
from scripts.campaign.cases import Case, Row
from scripts.campaign.kills import Recipe, Whole
from scripts.campaign.products import Product

PAGE = process.ROOT / "docs" / "reliability.md"
KILLS = 220


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the scratch folder is removed
    process.prepare()
    began = time.monotonic()
    until = began + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        rows: list[Row] = []
        all_cases: list[Case] = []
        for part in options.parts:
            planned = list(PLANS[part](options, scratch / part))
            all_cases += planned
            workers = 1 if part == "jobs" else options.workers  # they are many by themselves
            at = scratch / f"{part}-cases"
            rows += cases.spread(planned, at, workers=workers, until=until, keep=options.keep)
        if options.keep:
            kept = Path(tempfile.mkdtemp(prefix="campaign-kept-"))
            for place in scratch.glob("*-cases"):
                place.rename(kept / place.name)
            print(f"Cases with a fault: {kept}")
    command = shlex.join(
        ["make", "campaign", *[f"ARGS={shlex.join(sys.argv[1:])}"] * (len(sys.argv) > 1)]
    )
    page = report.document(rows, all_cases, command, (time.monotonic() - began) / 60)
    whole = set(options.parts) == set(PLANS) and options.trials is None and options.kills >= 200
    if whole and len(rows) == len(all_cases):
        PAGE.write_text(page, encoding="utf-8")
        print(f"Written: {PAGE.relative_to(process.ROOT)}")
    else:
        print(page.partition("## What is promised")[0])
    faults = sum(bool(row.fault) for row in rows)
    print(f"{len(rows)} of {len(all_cases)} cases, {faults} not as promised")
    return int(bool(faults) or len(rows) < len(all_cases))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=PLANS, default=list(PLANS), help="default: all"
    )
    parser.add_argument("--kills", type=int, default=KILLS, help=f"default: {KILLS}")
    parser.add_argument("--trials", type=int, help="of each of bad input and tampering, at random")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--workers", type=int, default=2, help="cases at the same time")
    parser.add_argument("--minutes", type=float, default=60, help="no case begins after these")
    parser.add_argument(
        "--keep", action="store_true", help="keep the folders of cases with a fault"
    )
    return parser.parse_args()


def _kills(options: argparse.Namespace, scratch: Path) -> Iterator[Case]:
    product = products.draw(scratch / "product")
    recipes = kills.recipes(product)
    if options.kills < len(recipes):
        recipes = recipes[: options.kills]
    wholes = [
        kills.whole(recipe, product, scratch / f"whole-{number}")
        for number, recipe in enumerate(recipes)
    ]
    seconds = kills.start_up(recipes[0], scratch / "start-up") if options.kills > 1 else 10.0
    for whole in wholes:
        whole.seconds["start-up"] = seconds
    yield from kills.cases(options.kills, wholes, product, options.seed)


def _bad_input(options: argparse.Namespace, scratch: Path) -> Iterator[Case]:
    return _trials("bad-input", [*bad_input.trials(), *bad_settings.trials()], options, scratch)


def _tampering(options: argparse.Namespace, scratch: Path) -> Iterator[Case]:
    return _trials("tampering", list(tampering.trials()), options, scratch)


def _trials(
    part: str, found: list[trials.Trial], options: argparse.Namespace, scratch: Path
) -> Iterator[Case]:
    if options.trials is not None:
        found = random.Random(options.seed).sample(found, min(options.trials, len(found)))
    whole = _undisturbed(scratch)
    return (trials.case(part, trial, whole) for trial in found)


def _jobs(options: argparse.Namespace, scratch: Path) -> Iterator[Case]:
    return jobs.cases()


def _disks(options: argparse.Namespace, scratch: Path) -> Iterator[Case]:
    return disks.cases(_undisturbed(scratch))


def _undisturbed(scratch: Path) -> Whole:
    """A run of the usual settings, with paths relative to its folder."""
    products.draw(scratch / "whole" / "product")
    relative = Product(Path("product"))
    return kills.whole(Recipe("usual", trials.usual(relative)), relative, scratch / "whole")


PLANS = {
    "kills": _kills,
    "bad-input": _bad_input,
    "tampering": _tampering,
    "jobs": _jobs,
    "disks": _disks,
}

if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
