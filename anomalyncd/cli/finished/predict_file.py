"""`anomalyncd predict FILE.onnx PHOTOS…`: as with a run, where torch is not installed."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from anomalyncd.cli.finished.predicted import FOUND, on_record, require_all, tell
from anomalyncd.config import (
    MAX_MEGAPIXELS,
    UNKNOWN_SHARE,
    FilesDetectorConfig,
    PredictConfig,
)
from anomalyncd.errors import InputError
from anomalyncd.prediction.of_file import OfFile
from anomalyncd.prediction.predict import predict_all
from anomalyncd.runtime.console import printable


def main() -> int:
    """Run the prediction; returns 0 on success, 1 for a reported error, 3 as --fail-on says."""
    given = _parser().parse_args()
    found: list[str] = []
    try:
        config = PredictConfig(
            run=given.file,
            path=given.photographs,
            output=given.output,
            detector=FilesDetectorConfig(path=given.maps or ""),
            category="images",
            every=given.every,
            overlays=given.overlays,
            jsonl=given.jsonl,
            fail_on=[word for word in given.fail_on.split(",") if word],
            unknown_share=given.unknown_share,
            max_megapixels=given.max_megapixels,
        )
        if not Path(given.file).is_file():
            raise InputError(
                f"{given.file}: no such file; expected one that anomalyncd export has written"
            )
        result = predict_all(
            config, partial(on_record, config), partial(OfFile, threads=given.threads)
        )
        found = tell(result, config)
        require_all(result)
    except (InputError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return FOUND if found else 1
    return FOUND if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anomalyncd predict",
        description="Classify new photographs with a file that anomalyncd export has written. The "
        "same command resumes after an interruption, and adds photographs that are new.",
    )
    parser.add_argument("file", metavar="FILE", help=".onnx, or .xml for OpenVINO")
    parser.add_argument(
        "photographs",
        nargs="+",
        metavar="PHOTOS",
        help="photographs, folders (read at any depth), patterns in quotes, videos, or - for a "
        "list of paths on standard input",
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--maps",
        metavar="DIR",
        help="anomaly maps by the images' names, made like those of the run; for a file without "
        "a detector",
    )
    parser.add_argument("--jsonl", action="store_true", help="one JSON object for each image")
    parser.add_argument("--overlays", action="store_true", help="pictures in DIR/overlays")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="frame of a video")
    parser.add_argument(
        "--fail-on", default="", metavar="KINDS", help="exit status 3 if an image is of one of them"
    )
    parser.add_argument("--threads", type=int, default=0, help="default: one for each core")
    parser.add_argument(
        "--unknown-share",
        type=float,
        default=UNKNOWN_SHARE,
        help="of known regions that may be called unknown; 0: none is (default %(default)s)",
    )
    parser.add_argument("--max-megapixels", type=int, default=MAX_MEGAPIXELS)
    return parser
