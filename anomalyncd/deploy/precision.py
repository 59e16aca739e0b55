"""Smaller weights: half precision, or 8 bits with ranges measured on photographs of the run."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

_FEWEST = 1024  # numbers in a tensor that is worth it
_LARGEST = float(np.finfo(np.float16).max)
_MATRICES = ("Conv", "Gemm", "MatMul")


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with weights in half precision, which it turns to single ones when loaded."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    casts = []
    for tensor in found.graph.initializer:
        values = numpy_helper.to_array(tensor)
        small = values.dtype != np.float32 or values.size < _FEWEST
        if small or np.abs(values).max() > _LARGEST:
            continue
        name = tensor.name
        half = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *found.graph.node]
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    return found


def quantized(
    model: onnx.ModelProto,
    examples: Sequence[dict[str, NDArray]],
    part: re.Pattern[str] = re.compile(""),
) -> onnx.ModelProto:
    """The same model with matrix products and convolutions by weights in 8 bits.

    Products of activations, as in attention, remain: they are a small part.

    Args:
        model: in single precision.
        examples: inputs that the ranges of activations are measured on.
        part: found in the names of the nodes that are changed.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [
        node.name
        for node in model.graph.node
        if node.op_type in _MATRICES and node.input[1] in weights and part.search(node.name)
    ]
    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder:
        path, target = Path(folder, "model.onnx"), Path(folder, "quantized.onnx")
        onnx.save(model, path)
        logging.root.setLevel(logging.ERROR)  # it advises a step that changes nothing here
        try:
            quantize_static(
                path,
                target,
                _Examples(examples),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=names,
                op_types_to_quantize=list(_MATRICES),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        finally:
            logging.root.setLevel(level)
        return onnx.load(target)


class _Examples(CalibrationDataReader):
    def __init__(self, examples: Sequence[dict[str, NDArray]]) -> None:
        self._remaining = iter(examples)

    def get_next(self) -> dict[str, NDArray] | None:
        return next(self._remaining, None)
