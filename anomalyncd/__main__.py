"""`python -m anomalyncd`: the same as the `anomalyncd` command."""

import sys

from anomalyncd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
