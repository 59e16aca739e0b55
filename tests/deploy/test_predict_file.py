"""`predict FILE.onnx` reads and writes as `predict RUN` does; forged files are one message."""

from __future__ import annotations

import csv
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from anomalyncd.cli.main import main
from anomalyncd.errors import InputError
from anomalyncd.inference.unknown import Seen
from anomalyncd.runtime_onnx import container, load
from anomalyncd.runtime_onnx.card import DetectorCard
from tests.helpers import drawn_file
from tests.helpers.drawn_file import RED, WHITE, photograph


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return drawn_file.write(tmp_path / "tiles.onnx")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    root = tmp_path / "photographs"
    for place, colour in (("a/1", RED), ("a/b/2", WHITE), ("3", None)):
        path = root / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(colour)).save(path)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8", newline="")))


def test_folders_are_read_at_any_depth_and_bad_files_are_listed(
    file: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photographs / "a" / "cut.png").write_bytes((photographs / "3.png").read_bytes()[:90])
    output = tmp_path / "out"
    command = ["predict", str(file), str(photographs), "--output", str(output), "--overlays"]
    assert main(command) == 1
    assert "1 of 4 photographs could not be classified" in capsys.readouterr().err
    found = {row["id"]: row["class_name"] for row in rows(output / "predictions.csv")}
    assert found == {"a/1": "red", "a/b/2": "white", "3": "good"}
    assert all(row["true_class"] == "" for row in rows(output / "predictions.csv"))
    (bad,) = rows(output / "unreadable.csv")
    assert bad["image"].endswith("cut.png")
    assert "class" in (output / "report.html").read_text(encoding="utf-8")
    assert (output / "overlays" / "a" / "b" / "2.jpg").is_file()

    Image.fromarray(photograph(RED)).save(photographs / "a" / "cut.png")
    assert main(command) == 0
    assert "1 new; 3 were classified before." in capsys.readouterr().out
    assert len(rows(output / "predictions.csv")) == 4


def test_fail_on_and_a_wrong_file_have_their_status(
    file: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(file), str(photographs), "--output", str(tmp_path / "out")]
    assert main([*command, "--fail-on", "red"]) == 3
    assert main([*command, "--fail-on", "unknown"]) == 0
    other = drawn_file.write(tmp_path / "other.onnx", class_names=("a", "b", "c"))
    command[1] = str(other)
    assert main(command) == 1
    assert "made with another run" in capsys.readouterr().err


def seen(width: int) -> Seen:
    return Seen(np.ones((12, width), np.float32), np.arange(12))


DETECTOR = drawn_file.CARD.detector
assert DETECTOR is not None


@pytest.mark.parametrize(
    "forged",
    [
        {"class_names": ("good", "red")},
        {"image_size": 48},
        {"detector": replace(DETECTOR, image_sizes=(64,))},
        {"detector": DetectorCard((48, 48), (1.0, 1.0), ())},
        {"detector": replace(DETECTOR, members=("0" * 32,) * 5)},
        {"seen": (seen(7), seen(7))},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_a_card_that_does_not_belong_to_the_graphs_is_one_message(
    tmp_path: Path, forged: dict
) -> None:
    path = drawn_file.write(tmp_path / "forged.onnx", **forged)
    with pytest.raises(InputError, match="graphs do not fit its card") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_card_that_names_a_detector_which_is_missing_is_one_message(tmp_path: Path) -> None:
    path = drawn_file.write(tmp_path / "tiles.onnx")
    path.write_bytes(container.split(path)[0])
    with pytest.raises(InputError, match="names a detector that it lacks"):
        load(path)


# Of the page docs/deploy.md ----------------------------------------------------------------------


def code(word: str) -> str:
    """The block of Python on the page that holds a word."""
    text = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    (found,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.S) if word in c]
    return found


def test_the_camera_loop_classifies_what_comes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = code("while True")
    assert len(loop.strip().splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    shutil.copy(file, "screws.onnx")
    Path("camera").mkdir()
    Image.fromarray(photograph(RED)).save("camera/1.png")
    Path("camera/2.png").write_bytes(b"\x89PNG")

    def pause(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        exec(loop, {})
    said = capsys.readouterr().out
    assert "1.png red" in said and "2.png: cannot read" in said
    assert Path("camera/done/1.png").is_file() and Path("camera/2.png").is_file()


def test_the_model_for_triton_answers(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(file, tmp_path / "screws.onnx")
    given = SimpleNamespace(as_numpy=lambda: photograph(WHITE))
    stub = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: given,
        Tensor=lambda name, values: (name, values.tolist()),
        InferenceResponse=lambda tensors: dict(tensors),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stub)  # type: ignore[arg-type]
    names = {"__file__": str(tmp_path / "model.py"), "__name__": "model"}
    exec(code("triton_python_backend_utils"), names)
    model = names["TritonPythonModel"]()  # type: ignore[operator]
    model.initialize({})
    (answer,) = model.execute([None])
    assert answer["class_name"] == ["white"] and 0.5 < answer["confidence"][0] <= 1
