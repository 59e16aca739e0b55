"""Find the kinds of defects in a folder of photographs.

The photographs are drawn here, small and few, and the settings are small too, so that the script
ends in seconds; leave `QUICK` out for photographs of your own.
"""

from pathlib import Path

import anomalyncd
from anomalyncd.data import demo

QUICK = {
    "base": "none",
    "detector__backbone__image_size": 128,
    "backbone__image_size": 64,
    "train__epochs": 2,
    "train__cached_views": 2,
    "train__hidden": 32,
    "quiet": True,
}


def main() -> None:
    if not Path("product").exists():
        demo.draw(Path("product"), side=96, train=0, good=4, per_class=1, combined=0)

    result = anomalyncd.discover("product/test", classes=3, **QUICK)

    print(result.folder / "report.html")
    print(result.metrics["counts"]["regions"], "regions")


if __name__ == "__main__":
    main()
