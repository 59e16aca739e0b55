"""Prepare a dataset and verify it: the same as `anomalyncd prepare`."""

from __future__ import annotations

from anomalyncd.runtime import interrupt  # isort: skip

if __name__ == "__main__":
    interrupt.end_at_once()  # before the imports that take seconds

import sys

from anomalyncd.cli.prepare import main

if __name__ == "__main__":
    sys.exit(main())
