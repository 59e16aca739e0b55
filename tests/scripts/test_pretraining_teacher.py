"""The dequantised teacher against the interpreter of its file, and what a feature map must hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
pytest.importorskip("tflite", reason="reads the teacher's weights")

from scripts.pretraining import teacher  # noqa: E402
from scripts.pretraining.teacher import MobileNetV2, load_teacher  # noqa: E402

WEIGHTS = ROOT.parent / "shared" / "data" / "weights"
QUANTISED = ["tf2_mobilenet_v2_1.0_224_ptq.tflite", "mobilenet_v2_1.0_224_quant.tflite"]


def pictures(n: int) -> NDArray[np.uint8]:
    """Smooth coloured patterns with edges: (n, 224, 224, 3)."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((n, 3, 9, 9)).astype(np.float32))
    smooth = F.interpolate(coarse, size=(224, 224), mode="bicubic").clamp(0, 1)
    smooth[:, :, 60:150, 80:90] = 0.9
    return (smooth * 255).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("name", QUANTISED)
def test_agrees_with_the_interpreter(name: str) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert compares")
    path = WEIGHTS / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    network = load_teacher(path)
    images = pictures(6)
    with torch.inference_mode():
        features = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
        logits = network.logits(features)

    interpreter = litert.Interpreter(
        str(path),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    shapes = {"linear16": (14, 14, 96), "expanded16": (14, 14, 576), "linear32": (7, 7, 320)}
    for index, image in enumerate(images):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        for field, shape in shapes.items():
            theirs = torch.from_numpy(last_of_shape(interpreter, (1, *shape)))
            ours = getattr(features, field)[index].permute(1, 2, 0)
            assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.95, field
        theirs = torch.from_numpy(last_of_shape(interpreter, (1, 1, 1, 1001))).flatten()
        assert F.cosine_similarity(logits[index], theirs, dim=0) > 0.95
        assert theirs.argmax() in logits[index].topk(5).indices


def last_of_shape(interpreter: object, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The last result of that shape in order of execution, dequantised."""
    found = [
        detail
        for detail in interpreter.get_tensor_details()  # type: ignore[attr-defined]
        if tuple(detail["shape"]) == shape
    ]
    scale, zero = found[-1]["quantization"]
    stored = interpreter.get_tensor(found[-1]["index"])  # type: ignore[attr-defined]
    return (scale * (stored[0].astype(np.float32) - zero)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (160, 160)])
def test_maps_of_any_size(height: int, width: int) -> None:
    features = MobileNetV2()(torch.rand(2, 3, height, width))
    for maps, stride, channels in zip(
        features, (16, 16, 32, 32), (96, 576, 320, 1280), strict=True
    ):
        assert maps.shape == (2, channels, height // stride, width // stride)


def test_expansion_belongs_to_the_map_it_is_made_from() -> None:
    network = MobileNetV2().eval()
    features = network(torch.rand(1, 3, 64, 64))
    expand = network.blocks[13].expand
    expected = F.relu6(F.conv2d(features.linear16, expand.weight, expand.bias))
    torch.testing.assert_close(features.expanded16, expected)


def test_strided_convolution_pads_right_and_bottom_only() -> None:
    """As TensorFlow: the first output sees pixels 0 to 2, the last one a row of padding."""
    layer = teacher._Convolution(1, 1, kernel=3, stride=2)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    rows = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 1, 4, 1).expand(1, 1, 4, 4)
    of_rows = layer(rows)[0, 0, :, 0]
    torch.testing.assert_close(of_rows, torch.tensor([3 * 0.6, 3 * 0.7]))


def test_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = WEIGHTS / QUANTISED[0]
    if not path.is_file():
        pytest.skip(f"no {path}")
    monkeypatch.setattr(teacher, "_STAGES", teacher._STAGES[:-1])
    with pytest.raises(ValueError, match="53 convolutions"):
        load_teacher(path)
