"""Settings of small runs, and the names of the photographs of those on a folder."""

from __future__ import annotations

PHOTOGRAPHS = ("a.b", "c_crop", "d d", "é", "5", "6")
MAP_NAMES = [f"{name}.png" for name in PHOTOGRAPHS]
SMALL = [
    "detector=simulated",
    "dataset.train=1",
    "dataset.good=4",
    "dataset.per_class=3",
    "dataset.combined=2",
    "base.per_class=3",
    *(
        "backbone.image_size=32",
        "train.epochs=2",
        "train.hidden=16",
        "train.bottleneck=8",
        "train.heads=2",
    ),
    *("tracker=none", "quiet=true", "device=cpu"),
]
