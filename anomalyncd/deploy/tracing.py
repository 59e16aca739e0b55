"""Networks → ONNX models."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

OPSET = 18


def traced(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    batched: bool = False,
) -> onnx.ModelProto:
    """Trace a module.

    Args:
        module: its `forward` takes the inputs in order.
        inputs: examples by name.
        outputs: names of what it returns.
        batched: the first dimension of all inputs and outputs may differ from that of the examples.
    """
    names = [*inputs, *outputs] if batched else []
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder, "model.onnx")
        # Shapes are constants here, and the tracing exporter needs no other package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in names},
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(path)
    onnx.checker.check_model(model)
    return model
