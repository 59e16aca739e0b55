"""The teacher of the embedded backbone: a quantised MobileNetV2 (TFLite) as a float32 torch module.

The file's weights are dequantised; batch normalisation is already folded into them. What the
interpreter rounds between layers is not rounded here, so the two agree closely, not exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import tflite
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

# Expansion, output channels, repeats, stride of the first (Sandler et al. 2018, table 2).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_AT_STRIDE_16 = 13  # blocks before the one that goes to stride 32


class Features(NamedTuple):
    """Feature maps of images (b, 3, h, w)."""

    linear16: Tensor  # (b, 96, h/16, w/16), sum of the last residual block at this stride
    expanded16: Tensor  # (b, 576, h/16, w/16), its expansion by the next block, in [0, 6]
    linear32: Tensor  # (b, 320, h/32, w/32)
    top32: Tensor  # (b, 1280, h/32, w/32), in [0, 6]; its mean is what the classifier sees


class MobileNetV2(nn.Module):
    """MobileNetV2 at width 1 with TensorFlow's padding, without batch normalisation.

    Args:
        mean, std: of images in [0, 1], one number for all channels.
        classes: number of logits.
    """

    def __init__(self, mean: float = 0.5, std: float = 0.5, classes: int = 1001) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.stem = _Convolution(3, 32, kernel=3, stride=2)
        self.blocks = nn.ModuleList()
        width = 32
        for expansion, channels, repeats, first_stride in _STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                self.blocks.append(_Block(width, channels, expansion, stride))
                width = channels
        self.top = _Convolution(width, 1280, kernel=1)
        self.classifier = nn.Conv2d(1280, classes, 1)

    def forward(self, images: Tensor) -> Features:
        """Describe images (b, 3, h, w) in [0, 1]; both sides are multiples of 32."""
        linear16, expanded16 = self.stride16(images)
        return Features(linear16, expanded16, *self.stride32(linear16, expanded16))

    def stride16(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Only the first two maps of `Features`; both sides are multiples of 16."""
        x = self.stem((images - self.mean) / self.std)
        for block in self.blocks[:_AT_STRIDE_16]:
            x = block(x)
        return x, cast(_Block, self.blocks[_AT_STRIDE_16]).expand(x)

    def stride32(self, linear16: Tensor, expanded16: Tensor) -> tuple[Tensor, Tensor]:
        """The last two maps of `Features`, from the first two."""
        x = cast(_Block, self.blocks[_AT_STRIDE_16]).contract(linear16, expanded16)
        for block in self.blocks[_AT_STRIDE_16 + 1 :]:
            x = block(x)
        return x, self.top(x)

    def logits(self, features: Features) -> Tensor:
        """(b, classes); the first class is the background."""
        return self.classifier(features.top32.mean((2, 3), keepdim=True)).flatten(1)


def load_teacher(path: Path) -> MobileNetV2:
    """Read a quantised MobileNetV2 1.0 TFLite file, per tensor (uint8) or per channel (int8).

    Returns:
        The network in float32, in evaluation mode, without gradients, channels last.

    Raises:
        ValueError: the file holds another network.
    """
    graph = _Graph(path)
    # The input is stored as pixels: real = scale * (pixel - zero point).
    scale, zero = graph.quantisation(graph.subgraph.Inputs(0))
    network = MobileNetV2(mean=float(zero[0]) / 255, std=1 / (255 * float(scale[0])))
    # The file's order of execution is the order in which our layers were created.
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    stored = list(graph.convolutions())
    if len(layers) != len(stored):
        raise ValueError(f"{path}: {len(stored)} convolutions; MobileNetV2 has {len(layers)}")
    for layer, (weight, bias) in zip(layers, stored, strict=True):
        if layer.weight.shape != weight.shape:
            shapes = f"{tuple(weight.shape)} where MobileNetV2 1.0 has {tuple(layer.weight.shape)}"
            raise ValueError(f"{path}: a convolution of {shapes}")
        layer.weight.data.copy_(torch.from_numpy(weight))
        cast(Tensor, layer.bias).data.copy_(torch.from_numpy(bias))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


class _Convolution(nn.Conv2d):
    """Convolution and ReLU6; `depthwise` has one filter per channel.

    TensorFlow pads a strided convolution of an even side only at its right and bottom.
    """

    def __init__(
        self, width: int, channels: int, kernel: int, stride: int = 1, *, depthwise: bool = False
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        groups = width if depthwise else 1
        super().__init__(width, channels, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            x = F.pad(x, (0, 1, 0, 1))
        return F.relu6(super().forward(x), inplace=True)


class _Block(nn.Module):
    """Inverted residual: expand, filter each channel, project linearly."""

    def __init__(self, width: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = nn.Identity() if expansion == 1 else _Convolution(width, inner, kernel=1)
        self.depthwise = _Convolution(inner, inner, kernel=3, stride=stride, depthwise=True)
        self.project = nn.Conv2d(inner, channels, 1)
        self.residual = stride == 1 and width == channels

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(x, self.expand(x))

    def contract(self, x: Tensor, expanded: Tensor) -> Tensor:
        """The block's output from its input and the expansion of that."""
        out = self.project(self.depthwise(expanded))
        return out.add_(x) if self.residual else out


class _Graph:
    """What a TFLite file says about its tensors, as float32 arrays."""

    def __init__(self, path: Path) -> None:
        self.model = tflite.Model.GetRootAs(path.read_bytes())
        self.subgraph = self.model.Subgraphs(0)

    def convolutions(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights (out, in per group, kh, kw) and biases (out,), in order of execution."""
        kinds = tflite.BuiltinOperator
        for index in range(self.subgraph.OperatorsLength()):
            operator = self.subgraph.Operators(index)
            code = self.model.OperatorCodes(operator.OpcodeIndex())
            kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # old files: the latter
            if kind in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D):
                weight = self.dequantised(operator.Inputs(1))
                # (out, kh, kw, in); depthwise (1, kh, kw, out)
                order = (0, 3, 1, 2) if kind == kinds.CONV_2D else (3, 0, 1, 2)
                yield weight.transpose(order), self.dequantised(operator.Inputs(2))

    def dequantised(self, index: int) -> NDArray[np.float32]:
        tensor = self.subgraph.Tensors(index)
        kinds = tflite.TensorType
        dtype = {kinds.UINT8: np.uint8, kinds.INT8: np.int8, kinds.INT32: np.int32}[tensor.Type()]
        stored = self.model.Buffers(tensor.Buffer()).DataAsNumpy().view(dtype)
        values = stored.reshape(tensor.ShapeAsNumpy())
        scale, zero = self.quantisation(index)
        along = [1] * values.ndim
        along[tensor.Quantization().QuantizedDimension()] = -1
        return (scale.reshape(along) * (values - zero.reshape(along))).astype(np.float32)

    def quantisation(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Scale and zero point, of length 1 or one per channel: real = scale * (stored - zero)."""
        quantisation = self.subgraph.Tensors(index).Quantization()
        return quantisation.ScaleAsNumpy().astype(np.float64), quantisation.ZeroPointAsNumpy()
