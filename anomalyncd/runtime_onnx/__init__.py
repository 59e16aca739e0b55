"""Run a classifier that `anomalyncd export` has written, without torch::

    import anomalyncd.runtime_onnx

    classifier = anomalyncd.runtime_onnx.load("screws.onnx")
    for found in classifier.predict(["new/1.png"]):
        print(found.class_name, found.confidence)

Needs numpy, opencv-python-headless, pillow, tifffile, omegaconf, filelock, and onnxruntime for
.onnx or openvino for .xml; the command `anomalyncd predict` rich and jinja2, too.
"""

from anomalyncd.runtime_onnx.deployed import Deployed as Deployed
from anomalyncd.runtime_onnx.deployed import load as load
