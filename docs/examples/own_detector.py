"""An anomaly detector of one's own, in one file, and a run with it."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import anomalyncd
from anomalyncd.data import demo
from anomalyncd.types import Dataset


class DifferenceFromMedian:
    """How far each pixel lies from the median of all images, for products in a fixed pose."""

    def __init__(self, side: int = 256, blur: float = 6.0) -> None:
        self.side = side  # pixels of a map
        self.blur = blur  # pixels; single bright pixels are noise

    def key(self, dataset: Dataset) -> int:
        return 1  # raise it when the code changes: maps that are kept are then made again

    def maps(self, dataset: Dataset) -> Iterator[np.ndarray]:
        size = (self.side, self.side)
        photos = [Image.open(s.image).convert("RGB").resize(size) for s in dataset.samples]
        pixels = np.stack([np.asarray(photo, np.float32) for photo in photos])  # (n, h, w, 3)
        for difference in np.abs(pixels - np.median(pixels, axis=0)).mean(-1):
            yield cv2.GaussianBlur(difference, (0, 0), self.blur)  # (h, w), larger = more anomalous


def main() -> None:
    if not Path("product").exists():
        demo.draw(Path("product"), side=96, train=0, good=4, per_class=1, combined=0)
    config = anomalyncd.compose(
        "dataset=folder",
        "dataset.path=product/test",
        "detector=custom",
        "detector.target=own_detector:DifferenceFromMedian",  # module:Class
        "+detector.options.blur=8",
        "novel_classes=3",
        "backbone=embedded",
        # small, so that the script ends in seconds
        *("backbone.image_size=64", "train.epochs=1", "train.hidden=32", "train.features=cached"),
        *("train.cached_views=2", "quiet=true"),
    )
    print(anomalyncd.execute(config).folder)


if __name__ == "__main__":
    main()
