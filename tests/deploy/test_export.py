"""Exported files predict as the run does with torch; a file that cannot be used is one message."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.cli.main import main
from anomalyncd.deploy import export as exporting
from anomalyncd.deploy import tracing
from anomalyncd.deploy.export import Exported, export
from anomalyncd.deploy.graphs import PanelGraph
from anomalyncd.detectors.reference.panel import Panel
from anomalyncd.errors import InputError
from anomalyncd.inference.predicted import Prediction
from anomalyncd.inference.unknown import Seen
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.runtime_onnx import container, load
from anomalyncd.runtime_onnx.card import Card, DetectorCard, as_metadata, from_metadata
from anomalyncd.serving.models import Limits
from anomalyncd.serving.opening import opened
from tests.helpers import drawn_file
from tests.helpers.runs import run
from tests.helpers.served import client, service
from tests.helpers.settings import SMALL

ROOT = Path(__file__).parents[2]
SPOT = (slice(40, 56), slice(56, 72))
# What a camera beside a production line does without.
FORBIDDEN = ("torch", "timm", "kornia", "hydra", "sklearn", "scipy", "numba", "onnx")
WITHOUT_TORCH = f"""
import sys
for name in {FORBIDDEN!r}:
    sys.modules[name] = None  # importing it fails
from anomalyncd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def photograph(seed: int, defect: bool) -> NDArray[np.uint8]:
    """A striped tile; the defect is a smooth patch."""
    rng = np.random.default_rng(seed)
    stripes = 90 + 40 * np.sin(np.arange(96) / 3 + rng.uniform(0, 6))
    pixels = stripes[None, :, None] + rng.normal(0, 6, (96, 96, 3))
    if defect:
        pixels[SPOT] = 190
    return pixels.clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Finished:
    folder: Path
    photographs: list[Path]


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """Tracing is most of the time of an export; the same network is traced once here."""
    traced: dict[Any, onnx.ModelProto] = {}

    def once(module: torch.nn.Module, *given: Any, **named: Any) -> onnx.ModelProto:
        key = type(module), sum(float(p.double().sum()) for p in module.parameters())
        if key not in traced:
            traced[key] = tracing.traced(module, *given, **named)
        return traced[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "traced", once)
        patch.setattr(exporting, "_CALIBRATED", 3)
        yield


@pytest.fixture(scope="module", params=["pile", "known good"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("product")
    for folder, count, defect in (("known", 8, False), ("new/ok", 6, False), ("new/dent", 6, True)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            pixels = photograph(100 * len(folder) + number, defect)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    own = [o for o in SMALL if not o.startswith(("dataset.", "base.", "detector="))]
    good = [f"dataset.good={root / 'known'}"] if request.param == "known good" else []
    overrides = [
        *("dataset=folder", f"dataset.path={root / 'new'}", "base=none", *good),
        *("backbone=embedded", f"output_root={root / 'runs'}", "mebin.method=adaptive"),
        *("detector=reference", "detector.backbone.image_size=96", "detector.bank_size=150"),
        *("detector.map_size=48", "novel_classes=2", *own),
    ]
    return Finished(run(overrides).folder, sorted(root.glob("new/*/*.png")))


@pytest.fixture(scope="module")
def exact(finished: Finished) -> list[Prediction]:
    classifier = Classifier(finished.folder, device="cpu")
    classifier.network.vit.precision = torch.float32
    return classifier.predict(finished.photographs)


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(finished.folder, tmp_path_factory.mktemp("files") / "model.onnx")


def assert_alike(found: list[Prediction], exact: list[Prediction], tolerance: float) -> None:
    """Maps are rounded down to 8 bits, so the last bit of a score can move the edge of a region:
    at most once here, with the same class. All else is equal."""
    assert [one.class_id for one in found] == [one.class_id for one in exact]
    pairs = list(zip(found, exact, strict=True))
    alike = [pair for pair in pairs if cut(pair[0]) == cut(pair[1])]
    assert len(alike) >= len(pairs) - 1
    for one, other in alike:
        assert one.confidence == pytest.approx(other.confidence, abs=tolerance)
        assert one.scope_score == pytest.approx(other.scope_score, abs=10 * tolerance)
        assert one.nearest_class == other.nearest_class
        for region, expected in zip(one.regions, other.regions, strict=True):
            assert region.class_id == expected.class_id
            assert region.confidence == pytest.approx(expected.confidence, abs=tolerance)
            assert region.unknown_score == pytest.approx(expected.unknown_score, abs=10 * tolerance)


def cut(one: Prediction) -> list[tuple[Any, int]]:
    return [(region.box, region.area) for region in one.regions]


def test_onnx_gives_the_classes_and_probabilities_of_torch(
    finished: Finished, exact: list[Prediction], exported: Exported
) -> None:
    (file,) = exported.files
    assert len({one.confidence for one in exact}) > 3, "predictions differ at all"
    assert_alike(load(file).predict(finished.photographs), exact, 1e-4)
    one_by_one = [load(file).predict([np.asarray(Image.open(p))]) for p in finished.photographs[:3]]
    assert_alike([one for (one,) in one_by_one], exact[:3], 1e-4)


def test_openvino_gives_the_classes_and_probabilities_of_torch(
    finished: Finished, exact: list[Prediction], tmp_path: Path
) -> None:
    done = export(finished.folder, tmp_path / "model.xml", to="openvino")
    assert [path.name for path in done.files] == ["model.xml", "model.bin"]
    assert_alike(load(done.files[0]).predict(finished.photographs), exact, 1e-4)


@pytest.mark.parametrize(
    ("precision", "to"),
    [("fp16", "onnx"), ("int8", "onnx"), ("fp16", "openvino"), ("int8", "openvino")],
)
def test_smaller_weights_agree_and_make_the_file_smaller(
    finished: Finished,
    exact: list[Prediction],
    exported: Exported,
    tmp_path: Path,
    precision: str,
    to: str,
) -> None:
    path = tmp_path / ("model.onnx" if to == "onnx" else "model.xml")
    files = export(finished.folder, path, to=to, precision=precision).files
    found = load(files[0]).predict(finished.photographs)
    same = [
        (one.class_id, one.nearest_class) == (other.class_id, other.nearest_class)
        for one, other in zip(found, exact, strict=True)
    ]
    assert sum(same) >= len(same) - 2
    size = sum(file.stat().st_size for file in files)
    # OpenVINO describes the graph in some MB of text, whatever the weights are.
    share = 0.55 if to == "onnx" else 0.75
    assert size < share * exported.files[0].stat().st_size


def test_the_command_predicts_where_torch_is_not_installed(
    finished: Finished, exact: list[Prediction], exported: Exported, tmp_path: Path
) -> None:
    folder = finished.photographs[0].parents[1]
    output = tmp_path / "tables"
    arguments = ["predict", str(exported.files[0]), str(folder), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((output / "predictions.csv").open(encoding="utf-8", newline="")))
    assert [row["class_name"] for row in rows] == [one.class_name for one in exact]
    for table in ("predictions.csv", "regions.csv"):
        columns = [
            (place / table).read_text().splitlines()[0] for place in (output, finished.folder)
        ]
        assert columns[0] == columns[1]


def test_a_run_is_served_with_its_known_regions(
    finished: Finished, exact: list[Prediction]
) -> None:
    made = service({"run": opened(finished.folder, Limits())})
    web = client(made)
    files = [("file", (path.name, path.read_bytes())) for path in finished.photographs[-2:]]
    found = web.post("/predict", files=files).json()["photographs"]
    assert [one["class_name"] for one in found] == [one.class_name for one in exact[-2:]]
    (similar, *_) = found[-1]["regions"][0]["similar"]
    assert similar["cosine"] > 0.99, "it is a photograph of the run"
    answer = web.get(f"/known?region={similar['region']}")
    assert Image.open(io.BytesIO(answer.content)).size == (80, 80)
    assert web.get("/known?region=9999").status_code == 404
    made.close()


def test_the_card_says_what_the_model_is(finished: Finished, exported: Exported) -> None:
    model = onnx.load(exported.files[0])
    onnx.checker.check_model(model)
    (text,) = [prop.value for prop in model.metadata_props if prop.key == "anomalyncd"]
    card = json.loads(text)
    assert card["photograph_size"] == [96, 96]
    assert card["licence"].startswith("MIT") and card["data"] and card["versions"]["onnx"]
    shown = json.loads((finished.folder / "metrics.json").read_text())
    assert card["scores"]["nmi"] == shown["scores"]["image"]["nmi"]
    assert load(exported.files[0]).card == exported.card


def test_a_photograph_of_the_panel_is_not_compared_with_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    panel = torch.nn.functional.normalize(torch.randn(12, 6, 5, generator=generator), dim=-1)
    patches = torch.nn.functional.normalize(torch.randn(9, 5, generator=generator), dim=-1)
    for members in ([], [3], [0, 5, 11], list(range(2, 12)), list(range(11))):
        left_out = torch.zeros(12, dtype=torch.bool)
        left_out[members] = True
        found = PanelGraph(Panel(panel))(patches, left_out)
        assert found.tolist() == pytest.approx(
            Panel(panel).scores(patches, members).tolist(), abs=1e-5
        )


def test_a_run_without_an_exportable_detector_needs_maps(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classifier, "kept_detector", None)
    done = export(finished.folder, tmp_path / "model.onnx")
    classifier, (path, *_) = load(done.files[0]), finished.photographs
    with pytest.raises(InputError, match=r"holds no detector.*--maps"):
        classifier.predict([path])
    low, high = classifier.card.raw_range
    scores = np.full((48, 48), low, np.float32)
    scores[20:28, 28:36] = high
    assert len(classifier.predict([path], [scores])[0].regions) == 1
    with pytest.raises(InputError, match="8-bit, normalised already"):
        classifier.predict([path], [scores.astype(np.uint8)])
    with pytest.raises(InputError, match="2 maps for 1 images"):
        classifier.predict([path], [scores, scores])
    with pytest.raises(InputError, match="no detector that could be exported"):
        export(finished.folder, tmp_path / "small.onnx", precision="int8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:2000], "damaged|cannot load"),
        (lambda content: b"", "cannot load"),
        (lambda content: b"PK\x03\x04" + content, "not an ONNX model|cannot load"),
        (lambda content: content.replace(b'"format": 1', b'"format": 7'), "format 7; this version"),
        (lambda content: content.replace(b'"image_size": ', b'"image_side": ', 1), "image_side"),
        (lambda content: content.replace(b'"precision": "fp32"', b'"precision": "fp99"'), "fp99"),
    ],
)
def test_a_damaged_file_is_reported(
    exported: Exported, tmp_path: Path, change: object, message: str
) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(change(exported.files[0].read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        load(path)


def test_a_file_of_another_program_is_reported(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out]
    )
    path = tmp_path / "other.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=8), path)
    with pytest.raises(InputError, match="not written by anomalyncd export"):
        load(path)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.onnx")


def test_the_inner_model_is_found_again_and_readers_skip_it(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    outer = onnx.helper.make_model(graph).SerializeToString()
    path = tmp_path / "both.onnx"
    for inner in (b"", b"x" * 127, b"y" * 20_000):
        path.write_bytes(container.joined(outer, inner))
        assert container.split(path) == (outer, inner)
        assert onnx.load(path).graph.name == "g"
    path.write_bytes(outer)
    assert container.split(path) == (outer, None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_names": ["good", "\ud800"]}, "class 1 has no usable name"),
        ({"class_names": ["good", " "]}, "class 1 has no usable name"),
        ({"class_names": ["good", "red\x1b[2J"]}, "class 1 has no usable name"),
        ({"class_names": ["good", "unknown"]}, "'unknown', which is a verdict"),
        ({"class_names": ["good", "good"]}, "two classes have the name 'good'"),
        ({"dataset": "\udc80"}, "a text that cannot be encoded"),
    ],
)
def test_texts_of_a_card_that_cannot_be_shown_are_refused(
    changed: dict[str, object], message: str
) -> None:
    texts = as_metadata(drawn_file.CARD, None)
    forged = {**json.loads(texts["anomalyncd"]), **changed}
    with pytest.raises(InputError, match=f"m.onnx: .*{message}"):
        from_metadata({"anomalyncd": json.dumps(forged)}, "m.onnx")


@pytest.mark.parametrize(("number", "width"), [(2**63, 4), (0, 3)])
def test_features_of_a_card_that_do_not_fit_are_refused(number: int, width: int) -> None:
    """`number` of an image, `width` of the features of images; those of regions have 4."""
    seen = Seen(np.zeros((2, 4), np.float32), np.arange(2))
    texts = as_metadata(
        drawn_file.CARD, (seen, Seen(np.zeros((2, width), np.float32), seen.images))
    )
    kept = json.loads(texts["anomalyncd_seen"])
    kept["images"]["images"][0] = number
    with pytest.raises(InputError, match="anomalyncd_seen: damaged"):
        from_metadata({**texts, "anomalyncd_seen": json.dumps(kept)}, "m.onnx")


def test_the_card_rejects_peaks_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="peaks"):
        DetectorCard((96, 48), (1.0,), ())
    with pytest.raises(InputError, match="above 0"):
        DetectorCard((96,), (0.0,), ())
    assert Card.__doc__


def test_the_command_reports_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exported: Exported, finished: Finished
) -> None:
    (file,) = exported.files
    for arguments, message in (
        (["export", str(finished.folder), "--output", str(tmp_path / "m.txt")], "ending in .onnx"),
        (["export", str(finished.folder), "--output", str(file)], "exists already"),
        (["export", str(tmp_path), "--output", str(tmp_path / "m.onnx")], "no such file"),
        (["predict", "none.onnx", str(tmp_path), "--output", str(tmp_path)], "no such file"),
    ):
        assert main(arguments) == 1
        shown = capsys.readouterr().err
        assert shown.startswith("error: ") and shown.count("\n") == 1 and message in shown
