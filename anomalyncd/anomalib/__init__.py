"""For anomalib's own pipelines: main element binarization as a post-processor."""

from anomalyncd.anomalib.post_processor import MainElementPostProcessor

__all__ = ["MainElementPostProcessor"]
