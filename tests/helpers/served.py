"""A service on a hand-made file, without a socket."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from anomalyncd.serving.app import Bounds, Service
from anomalyncd.serving.models import Answer, Limits, Model
from anomalyncd.serving.opening import opened
from tests.helpers import drawn_file

PORT = 8123
ORIGIN = f"http://127.0.0.1:{PORT}"
KEY = "a-key-that-nobody-knows"


def service(models: Mapping[str, Model], **given: Any) -> Service:
    bounds = Bounds(**{name: given.pop(name) for name in list(given) if hasattr(Bounds, name)})
    return Service(models, bounds, port=PORT, **given)


def client(of: Service, **given: Any) -> TestClient:
    return TestClient(of.app, base_url=ORIGIN, raise_server_exceptions=False, **given)


def file_model(folder: Path, **changed: Any) -> Model:
    return opened(drawn_file.write(folder / "tiles.onnx", **changed), Limits(threads=1))


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class Scripted:
    """A model that does what a test says, and remembers how many photographs it was given."""

    def __init__(self, answer: Any = None) -> None:
        self.card: dict[str, Any] = {"class_names": ["good"], "knows_regions": False}
        self.groups: list[int] = []
        self._answer = answer or (lambda photograph: {"class_name": "good", "regions": []})

    def answers(self, photographs: Sequence[Image.Image]) -> list[Answer]:
        self.groups.append(len(photographs))
        return [self._answer(one) for one in photographs]

    def known(self, region: int) -> bytes | None:
        return None
