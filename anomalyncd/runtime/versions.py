"""Versions of the libraries that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_NAMES = ("anomalyncd", "torch", "timm", "kornia", "numpy", "opencv-python-headless", "pillow")


def versions() -> dict[str, str]:
    """Version of Python and of each library that results may depend on, if it is installed."""
    found = {"python": platform.python_version()}
    for name in (*_NAMES, "anomalib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
