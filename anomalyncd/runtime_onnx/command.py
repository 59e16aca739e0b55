"""`anomalyncd predict FILE.onnx`: classify new images where torch is not installed."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from anomalyncd.config import MAX_MEGAPIXELS, UNKNOWN_SHARE
from anomalyncd.errors import InputError
from anomalyncd.runtime_onnx.tables import write_tables


def main() -> int:
    """Write the tables; returns 0 on success, 1 for a reported error."""
    parser = argparse.ArgumentParser(
        prog="anomalyncd predict",
        description="Classify new images with a file that anomalyncd export has written.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=".onnx, or .xml for OpenVINO")
    parser.add_argument("photographs", type=Path, metavar="PHOTOS", help="a folder, or one image")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--maps",
        type=Path,
        metavar="DIR",
        help="anomaly maps by the images' names, made like those of the run; for a file without "
        "a detector",
    )
    parser.add_argument("--threads", type=int, default=0, help="default: one for each core")
    parser.add_argument(
        "--unknown-share",
        type=float,
        default=UNKNOWN_SHARE,
        help="of known regions that may be called unknown; 0: none is (default %(default)s)",
    )
    parser.add_argument("--max-megapixels", type=int, default=MAX_MEGAPIXELS)
    given = parser.parse_args()
    try:
        found = write_tables(
            given.file,
            given.photographs,
            given.output,
            maps=given.maps,
            threads=given.threads,
            unknown_share=given.unknown_share,
            max_megapixels=given.max_megapixels,
        )
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = Counter(one.class_name for one in found).most_common()
    print(", ".join(f"{name}: {count}" for name, count in counts))
    print(f"Predictions: {given.output}")
    return 0
