"""Private parts of other libraries: each is named here, with the versions it was checked with.

Such a part may change in any release without a word. A version outside the range fails here, before
anything else can go wrong in silence: run the tests that are named, then widen the range.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "train.py", ROOT / "predict.py"] + [
    path for folder in ("anomalyncd", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
]
OURS = {"anomalyncd", "scripts", "tests", "oracles"}
# Documented, whatever their underscore: of named tuples, and os._exit.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_make", "_exit"}
PRIVATE = re.compile(r"_[A-Za-z]\w*")  # not __dunder__


@dataclass(frozen=True)
class Part:
    library: str  # its distribution
    name: str
    lowest: str  # of the versions it was checked with
    highest: str
    tests: str  # that fail where it changes
    why: str  # it is used all the same


PARTS = [
    Part(
        "timm",
        "_pos_embed",
        *("1.0.28", "1.0.31"),
        "tests/models/test_mask_guided_vit.py",
        "tokens before the first block, which each kind of ViT makes in its own way",
    ),
    Part(
        "anomalib",
        "_checkpoint_config_keys",
        *("2.7.0", "2.7.0"),
        "tests/detectors/test_anomalib_models.py",
        "a post-processor has no public way to keep its settings in a checkpoint",
    ),
    Part(
        "torch",
        "torch._subclasses.fake_tensor",
        *("2.13.0", "2.15.0"),
        "tests/training/test_fake_gpu.py",
        "tensors on a GPU that is not there, in tests only",
    ),
    Part(
        "torch",
        "_to_copy",
        *("2.13.0", "2.15.0"),
        "tests/training/test_fake_gpu.py",
        "the operation by which a tensor moves to another device, in tests only",
    ),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.library}: {part.name}")
def test_the_installed_version_is_one_that_was_checked(part: Part) -> None:
    try:
        installed = version(part.library)
    except PackageNotFoundError:
        pytest.skip(f"{part.library} is not installed")
    assert numbers(part.lowest) <= numbers(installed) <= numbers(part.highest), (
        f"{part.library} {installed}: its private {part.name} was checked with {part.lowest} to "
        f"{part.highest}; run {part.tests}, then widen the range in {Path(__file__).name}"
    )


def numbers(release: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", release)[:3])


def test_no_other_private_part_is_used() -> None:
    known = {part.name for part in PARTS}
    own = set().union(*(defined_in(tree(path)) for path in SOURCES))
    found = {
        name: f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for name, line in private_parts(tree(path), own)
    }
    unknown = {where: name for name, where in found.items() if name not in known}
    assert not unknown, f"use a public part, or name it in {Path(__file__).name}: {unknown}"
    assert found.keys() == known, f"no longer used: {known - found.keys()}"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from hydra._internal.callbacks import Callbacks", ["hydra._internal.callbacks"]),
        ("import torch._dynamo as d", ["torch._dynamo"]),
        ("from timm.layers import _create", ["timm.layers._create"]),
        ("torch.cpu._is_avx2_supported()", ["_is_avx2_supported"]),
        ("getattr(vit, '_intermediate')", ["_intermediate"]),
        ("monkeypatch.setattr(vit, '_intermediate', 1)", ["_intermediate"]),
        ("class A(B):\n def f(self):\n  return self._inherited", ["_inherited"]),
        ("class A(B):\n def _f(self):\n  return super()._f", ["_f"]),
        ("class A:\n def __init__(self):\n  self._x = 1\n  self._x.__len__()", []),
        ("from anomalyncd import _mine\npoint._replace(x=1)\n_mine._held", ["_held"]),
    ],
)
def test_private_parts_are_recognised(code: str, found: list[str]) -> None:
    parsed = ast.parse(code)
    assert [name for name, _ in private_parts(parsed, defined_in(parsed))] == found


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def defined_in(parsed: ast.Module) -> set[str]:
    """Private names that the code defines itself: functions, classes, variables, attributes."""
    names = set()
    for node in ast.walk(parsed):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    return {name for name in names if PRIVATE.fullmatch(name)}


def private_parts(parsed: ast.Module, own: set[str]) -> Iterator[tuple[str, int]]:
    """Private parts of other libraries that the code names, and where.

    A name that we define ourselves is taken for ours wherever it is used, but after `super()`.
    """
    for node in ast.walk(parsed):
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    if is_foreign(alias.name):
                        yield alias.name, node.lineno
            case ast.ImportFrom(module=str(module), level=0, names=aliases):
                if is_foreign(module):
                    yield module, node.lineno
                else:
                    for alias in aliases:
                        if is_foreign(f"{module}.{alias.name}"):
                            yield f"{module}.{alias.name}", node.lineno
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                if PRIVATE.fullmatch(name):
                    yield name, node.lineno
            case ast.Attribute(attr=name):
                if is_private(name, own):
                    yield name, node.lineno
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr") | ast.Attribute(attr="setattr"),
                args=[_, ast.Constant(value=str(name)), *_],
            ):
                if is_private(name, own):
                    yield name, node.lineno


def is_foreign(dotted: str) -> bool:
    first, *rest = dotted.split(".")
    return first not in OURS and any(PRIVATE.fullmatch(name) for name in rest)


def is_private(name: str, own: set[str]) -> bool:
    return PRIVATE.fullmatch(name) is not None and name not in own | DOCUMENTED
