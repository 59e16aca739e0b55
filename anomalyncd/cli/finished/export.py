"""`anomalyncd export`: a finished run as one file that runs without torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from anomalyncd.errors import InputError
from anomalyncd.runtime_onnx.card import PRECISIONS

TARGETS = ("onnx", "openvino")


def main() -> int:
    """Export a run; returns 0 on success, 1 for a reported error."""
    parser = argparse.ArgumentParser(
        prog="anomalyncd export",
        description="Write a finished run as one file (.onnx), or as .xml and .bin for OpenVINO.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--to", choices=TARGETS, default="onnx")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the weights")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="the backbone's weights file, if it has been moved"
    )
    given = parser.parse_args()
    try:
        try:
            from anomalyncd.deploy.export import export  # torch takes seconds to load
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error.name} is not installed: pip install anomalyncd[deploy]"
            ) from error
        done = export(
            given.run,
            given.output,
            to=given.to,
            precision=given.precision,
            weights=given.checkpoint,
        )
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if done.card.detector is None:
        print("without a detector, since the run's cannot be exported: prediction needs --maps")
    for path in done.files:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
