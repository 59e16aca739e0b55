"""Which paths stand for an exported file rather than a run."""

from __future__ import annotations

import os
from pathlib import Path

_SUFFIXES = (".onnx", ".xml")


def is_exported(path: Path) -> bool:
    """Whether it names an exported file, also one that is missing; a run is a folder."""
    return path.suffix in _SUFFIXES and not os.path.isdir(path)  # Path: an error if long
