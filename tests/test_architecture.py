"""Rules that keep the code readable: allowed imports, and what the repository must not hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "anomalyncd"

# docs/architecture.md, "Who may import whom": a folder may import itself and those before it.
FLOORS = [
    {"types", "errors"},
    {"typed"},
    {"config"},
    {"storage"},
    {"runtime"},
    {"data"},
    {"models"},
    {"detectors", "training"},
    {"regions"},
    {"inference", "discovery"},
    {"decisions"},
    {"anomalib", "preparation"},
    {"evaluation"},
    {"results"},
    {"inputs"},
    {"experiment", "anomaly_maps", "runtime_onnx"},
    {"prediction"},
    {"search"},
    {"review"},
    {"run", "deploy", "serving"},
    {"extension"},
    {"learning"},
    {"cli"},
    {"api", "__main__"},
]
# The method itself: these import no other module of ours but `types` and each other.
PURE = {
    *("regions/mebin", "regions/mebin_torch", "regions/boxes", "training/losses"),
    *("regions/ranking", "regions/plain_ranking"),
    *("regions/gate", "regions/refinement"),
    *(
        "inference/fusion",
        "inference/similarity",
        "evaluation/metrics",
        "models/heads",
        "models/mask_guided_vit",
    ),
    *("detectors/mutual_scoring", "detectors/reference/memory_bank"),
    *("detectors/reference/subspace", "detectors/reference/panel"),
}
# Only these may know these libraries.
KNOWN_ONLY_TO = {
    "hydra": {"cli", "api"},
    "wandb": {"runtime/tracking"},
    "anomalib": {"anomalib", "detectors/anomalib_models"},
    "jinja2": {"results/pages", "review/page/app"},
    "fastapi": {"review/page/app", "serving/app"},
    "uvicorn": {"review/page/serve", "serving/server"},
    "onnx": {"deploy"},
    "onnxruntime": {"runtime_onnx/engines", "deploy/precision"},
    "openvino": {"runtime_onnx/engines", "deploy/export"},
}
# Where labels of novel images may be named: what reads them, and where they meet predictions.
LABELS = {
    *("types", "data/datasets", "data/custom", "evaluation/metrics", "evaluation/scoring"),
    *("results/report", "results/csv_files"),
}
# Where they may be reached through the dataset that carries them, besides: to count classes, to
# require truth masks, to say whether there are any, and to hand them on to what is above.
HANDING_LABELS_ON = {
    *(
        "inputs",
        "experiment",
        "evaluation/map_quality",
        "results/run_results",
    ),
}
# `base.labels`, `batch.labels` and a training set's own `self.labels` are of the base set.
REACHING_LABELS = re.compile(r"(?<!\bbase)(?<!\bbatch)(?<!\bself)\.(?:labels|targets)\b")
MAX_FILES, MAX_LINES = 12, 400


def module_of(path: Path) -> str:
    """`training/losses` of anomalyncd/training/losses.py; a package is its folder."""
    return str(path.relative_to(PACKAGE).with_suffix("").as_posix()).removesuffix("/__init__")


def room_of(module: str) -> str:
    return module.partition("/")[0]


def imports_of(path: Path) -> set[str]:
    """Dotted names of all that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path) -> set[str]:
    """Modules of the package that a file imports, as `module_of` names them."""
    found = set()
    for name in imports_of(path):
        if not name.startswith("anomalyncd."):
            continue
        parts = name.split(".")[1:]
        while parts and not is_module(parts):
            parts.pop()
        if parts:
            found.add("/".join(parts))
    return found - {module_of(path)}


def is_module(parts: list[str]) -> bool:
    place = PACKAGE.joinpath(*parts)
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


SOURCES = sorted(PACKAGE.rglob("*.py"))


def floor_of(module: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room_of(module) in rooms)


def test_every_module_has_its_place() -> None:
    assert {room_of(module_of(path)) for path in SOURCES} - {"__init__"} == set().union(*FLOORS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    module = module_of(path)
    if module == "__init__":  # the public interface, which imports lazily
        return
    for other in ours(path):
        same = room_of(other) == room_of(module)
        assert same or floor_of(other) < floor_of(module), f"{module} imports {other}"
        if module in PURE:
            assert other in {"types", *PURE}, f"{module} is mathematics and imports {other}"


def test_imports_have_no_circle() -> None:
    graph = {module_of(path): ours(path) for path in SOURCES}
    while free := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert not graph, f"a circle among {sorted(graph)}"


@pytest.mark.parametrize("library", KNOWN_ONLY_TO)
def test_only_one_place_knows(library: str) -> None:
    knowing = {
        module_of(path)
        for path in SOURCES
        if any(name.split(".")[0] == library for name in imports_of(path))
    }
    allowed = KNOWN_ONLY_TO[library]
    assert {module for module in knowing if not {module, room_of(module)} & allowed} == set()


def test_labels_of_novel_images_reach_only_scoring_and_what_shows_it() -> None:
    """Training, cropping and classifying cannot see them: they do not even name their type."""
    naming = {
        module_of(path)
        for path in SOURCES
        if re.search(r"\bLabels\b", path.read_text(encoding="utf-8"))
        and module_of(path) != "__init__"  # only re-exports the public names
    }
    assert naming <= LABELS


def test_labels_of_novel_images_are_reached_by_nothing_that_learns_or_predicts() -> None:
    """A dataset carries them, so that a module could take them without naming their type."""
    for line in ("y = dataset.labels", "x = data.labels.targets", "labels.targets[i]"):
        assert REACHING_LABELS.search(line), line
    for line in ("base.labels.classes", "batch.labels[:n]", "self.labels = y", "labels[rows]"):
        assert not REACHING_LABELS.search(line), line
    reaching = {
        module_of(path)
        for path in SOURCES
        if REACHING_LABELS.search(path.read_text(encoding="utf-8"))
    }
    assert reaching == HANDING_LABELS_ON | LABELS - {"types"}


def test_rooms_and_files_are_small() -> None:
    """A folder can be surveyed at a glance, and a file read at once."""
    for folder in {path.parent for path in SOURCES}:
        assert len(list(folder.glob("*.py"))) - 1 <= MAX_FILES, folder
    for path in SOURCES:
        if module_of(path) != "config":  # the reference of all settings
            assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, path


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_nothing_names_a_package_host_or_a_machine() -> None:
    marks = ("https?://[^ ]+/simple", "index" + "-url", r"files\." + "pythonhosted")
    forbidden = re.compile("|".join((*marks, r"/(?:home|Users|root)/\w")))
    for path in tracked_files():
        if path.suffix in (".npz", ".png", ".jpg", ".safetensors") or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not forbidden.search(line), f"{path.relative_to(ROOT)}:{number}"


def test_no_large_file_no_real_data_no_pickle() -> None:
    for path in tracked_files():
        limit = 12_000_000 if path.name == "embedded.safetensors" else 3_000_000
        assert path.stat().st_size < limit, path
        assert not re.search(r"MT_\w+/|mtd_train_filenames|\.pkl$|\.pth?$|uv\.lock$", str(path))
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bpickle\.|torch\.(?:load|save)\(|allow_pickle=True", text), path


def test_no_dead_code_is_left() -> None:
    marks = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|^\s*breakpoint\(", re.MULTILINE)
    for path in SOURCES:
        assert not marks.search(path.read_text(encoding="utf-8")), path


def test_modules_are_light_to_validate_with() -> None:
    """A wrong key must be reported at once, not after torch has loaded."""
    code = (
        "import sys, anomalyncd.cli.settings.entry\n"
        "assert not {'torch', 'timm', 'cv2'} & sys.modules.keys()\n"
        "import anomalyncd.prediction.predict; assert not {'torch', 'timm'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_test_file_imports_another() -> None:
    """Shared code is in tests/helpers or conftest.py, so each file can be run or removed alone."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert not {n for n in imports_of(path) if n.startswith("tests.test_")}, path
