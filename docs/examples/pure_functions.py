"""The method's functions by themselves, on arrays: from anomaly maps to regions, and from the
classes of regions to those of images."""

import numpy as np

import anomalyncd
from anomalyncd.config import MebinConfig


def main() -> None:
    # Two anomaly maps of one category, (h, w) uint8: a defect each, the second fainter and with
    # a single bright pixel of noise.
    maps = np.full((2, 64, 64), 10, np.uint8)
    maps[0, 8:24, 8:24] = 220
    maps[0, 40:56, 36:60] = 180
    maps[1, 30:50, 20:40] = 150
    maps[1, 5, 5] = 140

    # MEBin: where the number of components stays the same over many thresholds, cut there.
    lo, hi = 20.0, anomalyncd.search_range(maps)[1]  # both are defective: the lower end by hand
    for anomaly_map in maps:
        counts = anomalyncd.component_counts(anomaly_map, lo, hi)
        found = anomalyncd.binarize_one(anomaly_map, lo, hi, MebinConfig())
        print(f"{counts.max()} components at most, {found.count} are stable")

        # Boxes around the components, and how anomalous each is, 0 to 1.
        boxes = anomalyncd.find_boxes(found.mask, found.count)
        scores = anomalyncd.score_boxes(anomaly_map, boxes, lo, hi, anomaly_map.shape)
        for box, score in zip(boxes, scores, strict=True):
            print(f"  {box}: {score:.2f}")

    # Three regions of two images, over three classes → one distribution for each image, in which
    # larger defects count more.
    probabilities = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]]
    fused = anomalyncd.fuse(probabilities, [40, 900, 400], [0, 0, 1], temperature=10)
    print(fused.argmax(1))

    # Agreement with true classes, however the found ones are numbered.
    print(anomalyncd.score([0, 1], fused.argmax(1)).f1)


if __name__ == "__main__":
    main()
