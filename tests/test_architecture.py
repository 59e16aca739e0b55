"""The rules that keep the code readable: who may import whom, and what never enters the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "anomalyncd"

# docs/architecture.md, "Who may import whom": a module may import from lower tiers and its own.
TIERS = [
    {"types", "config", "errors"},
    {"mebin", "mebin_torch", "regions", "losses", "fusion", "metrics", "heads", "vit", "musc"},
    {
        *(
            "catalog",
            "folders",
            "demo",
            "detectors",
            "images",
            "maps",
            "cutting",
            "binarization",
            "views",
            "cache",
            "identity",
        ),
        "local_gpus",
        *("backbone", "model", "checkpoint", "tracking", "console", "run_folder"),
        "training_progress",
        *("overlay", "report", "devices", "atomic", "anomalib", "receptive_field", "versions"),
        *("embedded", "training_set", "distributed", "preparation", "jobs", "published"),
        *("foreign", "run_record", "interrupt"),
    },
    {"exact", "bank", "fit", "classify", "tables", "detection", "gather", "result_tables"},
    {"experiment", "prediction"},
]
ENTRY = ("entry", "mistakes")  # above all tiers
PURE = TIERS[1]
# Only these may know these libraries.
KNOWN_ONLY_TO = {
    "hydra": {"entry", "mistakes"},
    "wandb": {"tracking"},
    "anomalib": {"anomalib"},
    "jinja2": {"report"},
}


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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
    """Modules of the package that a file imports."""
    found = {name.split(".")[1] for name in imports_of(path) if name.startswith("anomalyncd.")}
    return found - {"__version__", module_of(path)}


SOURCES = sorted(PACKAGE.rglob("*.py"))


def tier_of(module: str) -> int:
    return next(level for level, modules in enumerate(TIERS) if module in modules)


def test_every_module_has_its_place() -> None:
    modules = {module_of(path) for path in SOURCES} - {"__init__", *ENTRY}
    assert modules == set().union(*TIERS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    module = module_of(path)
    if module in ("__init__", *ENTRY):
        return
    for other in ours(path):
        assert tier_of(other) <= tier_of(module), f"{module} imports {other}"
        if module in PURE:
            assert tier_of(other) == 0, f"{module} is mathematics and imports {other}"


def test_imports_have_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(module_of(path), set()).update(ours(path))
    while free := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert not graph, f"a cycle among {sorted(graph)}"


@pytest.mark.parametrize("library", KNOWN_ONLY_TO)
def test_only_one_place_knows(library: str) -> None:
    knowing = {
        module_of(path)
        for path in SOURCES
        if any(name.split(".")[0] == library for name in imports_of(path))
    }
    assert knowing <= KNOWN_ONLY_TO[library]


def test_labels_of_novel_images_reach_only_scoring_and_what_shows_it() -> None:
    """Training, cutting and classifying cannot see them: they do not even name their type."""
    naming = {
        module_of(path)
        for path in SOURCES
        if re.search(r"\bLabels\b", path.read_text(encoding="utf-8"))
    }
    assert naming <= {"types", "catalog", "metrics", "report", "tables", "experiment"}


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


def test_code_is_not_left_behind() -> None:
    marks = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|^\s*breakpoint\(", re.MULTILINE)
    for path in SOURCES:
        assert not marks.search(path.read_text(encoding="utf-8")), path


def test_modules_are_light_to_validate_with() -> None:
    """A wrong key must be told at once, not after torch has loaded."""
    code = (
        "import sys, anomalyncd.cli.entry; assert not {'torch', 'timm', 'cv2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_test_file_imports_another() -> None:
    """What several need is in tests/helpers or conftest.py: each file can be run, or go, alone."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert not {n for n in imports_of(path) if n.startswith("tests.test_")}, path
