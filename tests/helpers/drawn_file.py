"""An exported file with hand-made graphs: made in milliseconds, without a run and without torch.

Its detector scores how much brighter a pixel is than the product, its network how red a region is:
`red` or `white`; nothing brighter means `good`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from anomalyncd.config import FusionConfig, MebinConfig, RegionsConfig
from anomalyncd.inference.unknown import Seen
from anomalyncd.runtime_onnx import container, engines
from anomalyncd.runtime_onnx.card import FORMAT, Card, DetectorCard, as_metadata

SIDE, MAP = 32, 48
NAMES = ("good", "red", "white")
CARD = Card(
    format=FORMAT,
    class_names=NAMES,
    image_size=SIDE,
    mebin=MebinConfig(method="fixed", erosion=0, search_range=[0.0, 255.0]),
    regions=RegionsConfig(),
    fusion=FusionConfig(),
    raw_range=(0.0, 100.0),
    detector=DetectorCard((MAP,), (1.0,), ()),
    precision="fp32",
    photograph_size=(96, 96),
    dataset="drawn",
    category="tiles",
    data="0" * 20,
    scores={},
    licence="MIT",
    versions={},
)


def write(path: Path, *, seen: tuple[Seen, Seen] | None = None, **changed: Any) -> Path:
    """Write the file; fields of the card may be changed, its graphs stay."""
    card = replace(CARD, **changed)
    outer = _network()
    helper.set_model_props(outer, as_metadata(card, seen))
    inner = None if card.detector is None else _detector().SerializeToString()
    content = outer.SerializeToString()
    path.write_bytes(content if inner is None else container.joined(content, inner))
    return path


def photograph(colour: tuple[int, int, int] | None = None, size: int = 96) -> NDArray[np.uint8]:
    """A grey tile, with a spot of that colour."""
    pixels = np.full((size, size, 3), 90, np.uint8)
    if colour is not None:
        pixels[size // 3 : size // 2, size // 3 : size // 2] = colour
    return pixels


RED, WHITE = (255, 90, 90), (255, 255, 255)


def _detector() -> onnx.ModelProto:
    """(1, s, s, 3) → how much brighter than 90 the brightest channel is."""
    nodes = [
        helper.make_node("Cast", [engines.PHOTOGRAPH.format(0)], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["x", "last"], ["grey"], keepdims=0),
        helper.make_node("Squeeze", ["grey", "first"], ["plane"]),
        helper.make_node("Sub", ["plane", "level"], [engines.SCORES.format(0)]),
    ]
    constants = {
        "last": np.array([3], np.int64),
        "first": np.array([0], np.int64),
        "level": np.array(90, np.float32),
    }
    inputs = {engines.PHOTOGRAPH.format(0): [1, MAP, MAP, 3]}
    return _model(nodes, constants, inputs, {engines.SCORES.format(0): [MAP, MAP]})


def _network() -> onnx.ModelProto:
    """Red and blue of the brightest pixel decide; what shows nothing bright is good."""
    nodes = [
        helper.make_node("Cast", [engines.VIEWS], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["x", "plane"], ["brightest"], keepdims=0),
        helper.make_node("MatMul", ["brightest", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [engines.PROBABILITIES], axis=1),
        helper.make_node("Identity", ["brightest"], [engines.TOKENS]),
        helper.make_node("Cast", [engines.MASKS], ["m"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["m", "plane"], ["share"], keepdims=0),
        helper.make_node("Unsqueeze", ["share", "column"], ["shares"]),
        helper.make_node("Concat", ["brightest", "shares"], [engines.APPEARANCE], axis=1),
    ]
    constants = {
        "plane": np.array([1, 2], np.int64),
        "column": np.array([1], np.int64),
        # rows: red, green, blue; columns: good, red, white
        "weights": np.array([[-0.1, 0.05, 0.0], [0, 0, 0], [0, -0.05, 0.05]], np.float32),
        "bias": np.array([15, 0, -5], np.float32),
    }
    inputs = {engines.VIEWS: ["n", SIDE, SIDE, 3], engines.MASKS: ["n", SIDE, SIDE]}
    outputs = {
        engines.PROBABILITIES: ["n", len(NAMES)],
        engines.APPEARANCE: ["n", 4],
        engines.TOKENS: ["n", 3],
    }
    return _model(nodes, constants, inputs, outputs)


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray],
    inputs: dict[str, list],
    outputs: dict[str, list],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info(n, TensorProto.UINT8, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return model
