"""`anomalyncd discover`: find the kinds of defects in a folder of photographs, offline."""

from __future__ import annotations

import argparse
import sys

from anomalyncd.cli import entry, run


def main() -> int:
    """Run the discovery; returns 0 on success."""
    parser = argparse.ArgumentParser(
        prog=entry.command(),
        usage="%(prog)s PHOTOS --classes K [--good GOOD_PHOTOS] [key=value …]",
        description="Find the kinds of defects in a folder of photographs. Nothing is downloaded.",
        epilog="Any setting of `anomalyncd run` may follow as key=value, such as output_root=DIR.",
    )
    parser.add_argument("photos", metavar="PHOTOS", help="a folder of photographs")
    parser.add_argument(
        "--classes",
        type=int,
        metavar="K",
        help="how many classes to find, including the defect-free one; default: the number of "
        "label folders",
    )
    parser.add_argument(
        "--good",
        metavar="GOOD_PHOTOS",
        help="a folder of known-good photographs, which make the search for defects more exact",
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="any setting of a run")
    given = parser.parse_intermixed_args(sys.argv[1:])
    sys.argv[1:] = [*overrides_for(given.photos, given.classes, given.good), *given.settings]
    return run.main()


def overrides_for(photos: str, classes: int | None, good: str | None = None) -> list[str]:
    """The settings of a discovery, as overrides for `anomalyncd run`."""
    count = [] if classes is None else [f"novel_classes={classes}"]
    detector = ["detector=musc_embedded"]
    if good is not None:
        detector = ["detector=reference", entry.override("dataset.good", good)]
    return [
        "experiment=offline_cpu",
        "dataset=folder",
        entry.override("dataset.path", photos),
        *detector,
        *count,
    ]
