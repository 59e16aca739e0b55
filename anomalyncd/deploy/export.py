"""A finished run → one ONNX file, or OpenVINO's pair of files."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import onnx
import torch
from onnx import helper

from anomalyncd.data.images import read_header
from anomalyncd.deploy import graphs
from anomalyncd.deploy.tracing import traced
from anomalyncd.detectors.reference import LearnedReference
from anomalyncd.detectors.reference.photographs import evenly
from anomalyncd.detectors.reference.pile import Pile
from anomalyncd.errors import InputError
from anomalyncd.models import embedded
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.results import known_regions
from anomalyncd.runtime.versions import versions
from anomalyncd.runtime_onnx import container, engines
from anomalyncd.runtime_onnx.card import FORMAT, Card, DetectorCard, Precision, as_metadata
from anomalyncd.runtime_onnx.deployed import Deployed
from anomalyncd.storage import foreign, run_record
from anomalyncd.storage.atomic import atomic_write, copy
from anomalyncd.storage.cache import digest

Target = Literal["onnx", "openvino"]
TARGETS: tuple[Target, ...] = get_args(Target)
SUFFIXES: dict[Target, str] = {"onnx": ".onnx", "openvino": ".xml"}

_INPUTS_BYTES = 1_000_000_000  # the digests of millions of photographs
_CALIBRATED = 32  # photographs that the ranges of 8-bit activations are measured on


@dataclass(frozen=True)
class Exported:
    """What has been written."""

    files: tuple[Path, ...]
    card: Card


@dataclass(frozen=True)
class _Models:
    network: onnx.ModelProto
    detector: onnx.ModelProto | None


def export(
    run: str | Path,
    output: str | Path,
    *,
    to: Target = "onnx",
    precision: Precision = "fp32",
    weights: str | Path | None = None,
) -> Exported:
    """Write a finished run as a file that runs without torch.

    A detector that needs more than one new image is left out: then `predict` needs maps.

    Args:
        run: its folder.
        output: the file to write, ending in .onnx, or in .xml for OpenVINO.
        to: the engine.
        precision: of the weights. int8 needs the photographs of the run where they were.
        weights: the backbone's weights file, if it has been moved.

    Raises:
        InputError: the run is not finished or damaged; the output exists already or has another
            ending; or photographs for int8 are missing.
    """
    run, output = Path(run), Path(output)
    _require_free(output, to)
    classifier = Classifier(run, weights=weights, device="cpu", unknown_share=0)
    classifier.network.vit.precision = torch.float32
    learned = classifier.kept_detector
    seen = known_regions.read_seen(run, classifier.network.vit.width)
    photographs = known_regions.photographs(run)
    card = _card(classifier, learned, precision, photographs)
    models = _Models(_network(classifier), None if learned is None else _detector(learned))
    metadata = as_metadata(card, seen)
    if precision == "fp16":
        from anomalyncd.deploy.precision import halved

        models = _Models(halved(models.network), models.detector and halved(models.detector))
    elif precision == "int8":
        half = len(classifier.network.vit.blocks) // 2
        models = _in_8_bits(models, metadata, photographs, half)
    if to == "openvino":
        return Exported(_write_openvino(output, models, metadata), card)
    with atomic_write(output) as draft:
        draft.write_bytes(_as_file(models, metadata))
    return Exported((output,), card)


def _require_free(output: Path, to: Target) -> None:
    if output.suffix != SUFFIXES[to]:
        raise InputError(
            f"--output {output}: expected a file ending in {SUFFIXES[to]} for --to {to}"
        )
    for path in (output, output.with_suffix(".bin") if to == "openvino" else output):
        if path.exists():
            raise InputError(f"{path} exists already; give another --output")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: {error.strerror}; give another path") from error


def _card(
    classifier: Classifier,
    learned: LearnedReference | None,
    precision: Precision,
    photographs: Sequence[Path],
) -> Card:
    metadata, run = classifier.metadata, classifier.run
    shown, _ = run_record.read_metrics(run / run_record.METRICS)
    name = metadata.backbone.name
    of_weights = (
        "MIT (anomalyncd and its embedded backbone)"
        if name == embedded.NAME
        else f"MIT (anomalyncd); the backbone {name} has its own, see its model card"
    )
    return Card(
        format=FORMAT,
        class_names=classifier.class_names,
        image_size=metadata.backbone.image_size,
        mebin=metadata.mebin,
        regions=metadata.regions,
        fusion=metadata.fusion,
        raw_range=metadata.raw_range,
        detector=None if learned is None else _detector_card(learned),
        precision=precision,
        photograph_size=_usual_size(photographs),
        dataset=shown.dataset,
        category=shown.category,
        data=digest(foreign.read_json(run / "inputs.json", _INPUTS_BYTES)),
        scores=dict(shown.scores),
        licence=of_weights,
        versions=versions() | {"onnx": onnx.__version__},
    )


def _usual_size(photographs: Sequence[Path]) -> tuple[int, int]:
    """Width and height; zeros where the photographs have been moved."""
    found = [path for path in evenly(photographs, _CALIBRATED) if path.is_file()]
    sizes = Counter((header.width, header.height) for header in map(read_header, found))
    return sizes.most_common(1)[0][0] if sizes else (0, 0)


def _detector_card(learned: LearnedReference) -> DetectorCard:
    what = learned.learned
    if isinstance(what, Pile):
        return DetectorCard((what.image_size,), (1.0,), tuple(what.members))
    scales = what.scales
    sizes, peaks = zip(*((scale.image_size, scale.peak) for scale in scales), strict=True)
    return DetectorCard(sizes, peaks, ())


def _network(classifier: Classifier) -> onnx.ModelProto:
    metadata = classifier.metadata
    size = metadata.backbone.image_size
    graph = graphs.NetworkGraph(
        classifier.network,
        metadata.head,
        metadata.train.student_temperature,
        classifier.naming.into,
    )
    inputs = {
        engines.VIEWS: torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8),
        engines.MASKS: torch.full((2, size, size), 255, dtype=torch.uint8),
    }
    outputs = (engines.PROBABILITIES, engines.APPEARANCE, engines.TOKENS)
    return traced(graph, inputs, outputs, batched=True)


def _detector(learned: LearnedReference) -> onnx.ModelProto:
    what, card = learned.learned, _detector_card(learned)
    inputs = {
        engines.PHOTOGRAPH.format(i): torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
        for i, size in enumerate(card.image_sizes)
    }
    outputs = [engines.SCORES.format(i) for i in range(len(card.image_sizes))]
    if isinstance(what, Pile):
        inputs[engines.LEFT_OUT] = torch.zeros(len(card.members), dtype=torch.bool)
        return traced(graphs.PileGraph(what), inputs, outputs)
    return traced(graphs.KnownGoodGraph(what), inputs, outputs)


def _as_file(models: _Models, metadata: Mapping[str, str]) -> bytes:
    network = onnx.ModelProto()
    network.CopyFrom(models.network)
    helper.set_model_props(network, dict(metadata))
    outer = network.SerializeToString()
    if models.detector is None:
        return outer
    return container.joined(outer, models.detector.SerializeToString())


def _in_8_bits(
    models: _Models, metadata: Mapping[str, str], photographs: Sequence[Path], first: int
) -> _Models:
    """The network's blocks from the `first` on in 8 bits, all else with weights in half precision.

    In 8 bits, the detector's distances grow by a tenth of the scale of its maps, and what the
    blocks before say of how a region looks is as far from the run's as another product is.
    """
    from anomalyncd.deploy.precision import halved, quantized

    chosen = evenly([path for path in photographs if path.is_file()], _CALIBRATED)
    if not chosen or models.detector is None:
        raise InputError(
            "int8 measures activations on photographs of the run: found "
            + ("no detector that could be exported" if chosen else "none where they were")
            + "; use --precision fp16"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(_as_file(models, metadata))
        exact = Deployed(path)
        views = [exact.views([one]) for one in exact.looked_at(chosen)]
    part = re.compile(rf"/blocks\.(?!(?:{'|'.join(map(str, range(first)))})/)")
    return _Models(halved(quantized(models.network, views, part)), halved(models.detector))


def _write_openvino(
    output: Path, models: _Models, metadata: Mapping[str, str]
) -> tuple[Path, Path]:
    import openvino

    core = openvino.Core()  # reads ONNX itself; its converter would report what it converts
    parts = [
        core.read_model(part.SerializeToString())
        for part in (models.network, models.detector)
        if part is not None
    ]
    both = openvino.Model(
        [result for part in parts for result in part.get_results()],
        [parameter for part in parts for parameter in part.get_parameters()],
        "anomalyncd",
    )
    for key, text in metadata.items():
        both.set_rt_info(text, ["anomalyncd", key])
    weights = output.with_suffix(".bin")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.xml")
        openvino.save_model(both, path, compress_to_fp16=False)  # weights are halved already
        copy(path.with_suffix(".bin"), weights)
        copy(path, output)
    return output, weights
