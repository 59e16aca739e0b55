"""Exported networks of regions on ONNX Runtime and OpenVINO, against torch."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray

from anomalyncd.deploy.graphs import NetworkGraph
from anomalyncd.deploy.precision import quantized
from anomalyncd.deploy.tracing import traced
from anomalyncd.runtime_onnx.engines import APPEARANCE, MASKS, PROBABILITIES, TOKENS, VIEWS
from scripts.benchmark.harness import Row, benchmark, row
from scripts.benchmark.inputs import EMBEDDED, SMALL_16, network

Run = Callable[[dict[str, NDArray]], object]


@benchmark("deployed", by_name=True)
def bench_deployed(options: argparse.Namespace) -> list[Row]:
    """One region and eight, at two sizes; torch in float32 is the plain way."""
    sizes = (
        ((SMALL_16, 32),) if options.tiny else ((EMBEDDED, 112), (EMBEDDED, 224), (SMALL_16, 224))
    )
    return [row for name, size in sizes for row in _rows(name, size, options)]


def _rows(name: str, size: int, options: argparse.Namespace) -> list[Row]:
    model = network(name, size, options)
    model.vit.precision = torch.float32
    graph = NetworkGraph(model, 0, 0.1).eval()
    examples = {n: _regions(n, size) for n in (1, 2, 8)}
    tensors = {key: torch.from_numpy(value) for key, value in examples[2].items()}
    exact = traced(graph, tensors, (PROBABILITIES, APPEARANCE, TOKENS), batched=True)
    small = quantized(exact, [examples[8]])
    ways = {
        "ONNX Runtime, fp32": _onnxruntime(exact, options.threads),
        "ONNX Runtime, int8": _onnxruntime(small, options.threads),
        "OpenVINO, fp32": _openvino(exact, options.threads, "f32"),
        "OpenVINO, bfloat16": _openvino(exact, options.threads, ""),
        "OpenVINO, int8": _openvino(small, options.threads, "f32"),
    }

    @torch.inference_mode()
    def plain(given: dict[str, NDArray]) -> None:
        graph(*(torch.from_numpy(value) for value in given.values()))

    return [
        row(
            f"{n} region(s), {way}",
            f"{name}, {size} px",
            partial(run, examples[n]),
            partial(plain, examples[n]),
            runs=1 if options.tiny else 7,
        )
        for n in (1, 8)
        for way, run in ways.items()
    ]


def _regions(n: int, size: int) -> dict[str, NDArray]:
    rng = np.random.default_rng(0)
    masks = np.zeros((n, size, size), np.uint8)
    masks[:, size // 4 : size // 2, size // 4 : size // 2] = 255
    return {VIEWS: rng.integers(0, 256, (n, size, size, 3)).astype(np.uint8), MASKS: masks}


def _onnxruntime(model: onnx.ModelProto, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return partial(session.run, None)


def _openvino(model: onnx.ModelProto, threads: int, precision: str) -> Run:
    settings: dict[str, object] = {"INFERENCE_NUM_THREADS": threads}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        return openvino.Core().compile_model(path, "CPU", settings)
