"""Classify new images with a finished run: the same as `anomalyncd predict`."""

from __future__ import annotations

from anomalyncd.runtime import interrupt  # isort: skip

if __name__ == "__main__":
    interrupt.end_at_once()  # before the imports that take seconds

import sys

from anomalyncd.cli.finished.predict import main

if __name__ == "__main__":
    sys.exit(main())
