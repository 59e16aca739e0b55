"""Classify new images with a finished run; start `discover.py` first, in the same folder."""

from pathlib import Path

import numpy as np
from PIL import Image

import anomalyncd


def main() -> None:
    (run,) = Path("outputs/folder").glob("test/*/*/seed-*")
    classifier = anomalyncd.load(run)
    print(classifier.class_names)

    # Paths, PIL images and arrays may be mixed. The run's own detector makes their maps.
    paths = sorted(Path("product/test").glob("*/*.png"))
    images = [*paths[:-2], Image.open(paths[-2]), np.asarray(Image.open(paths[-1]))]
    for path, found in zip(paths, classifier.predict(images), strict=True):
        print(f"{path}: {found.class_name} ({found.confidence:.2f})")
        for region in found.regions:
            print(f"  {region.box}: {region.class_name}, {region.area} anomalous pixels")


if __name__ == "__main__":
    main()
