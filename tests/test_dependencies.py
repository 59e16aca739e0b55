"""All imports are declared, and set-up installs only packages with a locked hash."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = {"anomalyncd", "scripts", "tests", "oracles"}
# Modules that may import the packages of an extra. All others need only the dependencies.
EXTRA_FOR = {
    "anomalyncd/detectors/anomalib_models.py": ["anomalib"],
    "anomalyncd/anomalib/": ["anomalib"],
    "anomalyncd/deploy/": ["deploy"],
    "anomalyncd/review/page/": ["review"],
    "anomalyncd/runtime_onnx/engines.py": ["deploy"],
    "anomalyncd/search/": ["search"],
    "anomalyncd/serving/": ["deploy"],
    "scripts/review_limits.py": ["review", "dev"],
    "scripts/load_service.py": ["dev"],
    "scripts/pretraining/": ["dev"],
    "scripts/benchmark/": ["anomalib", "deploy", "dev"],
    "tests/": ["anomalib", "cluster", "deploy", "tensorboard", "search", "review", "dev"],
}
# Declared, but not imported here.
NOT_IMPORTED = {
    "python-multipart": "starlette reads forms with it",
    "submitit": "hydra-submitit-launcher starts jobs with it, and would take older ones",
    "pytest-xdist": "an option of pytest",
    "ruff": "a command",
    "sphinx": "make docs",
    "myst-parser": "docs/conf.py names it",
    "furo": "docs/conf.py names it",
    "mypy": "a command",
}
SOURCES = [ROOT / "train.py", ROOT / "predict.py"] + [
    path for folder in ("anomalyncd", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
]
DISTRIBUTIONS = packages_distributions()
LOCKS = ("requirements.lock", "requirements-build.lock", "requirements-serve.lock")


def declared(*extras: str) -> set[str]:
    listed = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {canonicalize_name(Requirement(line).name) for line in listed}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Other libraries that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=aliases):
                found = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module), level=0):
                found = [module]
            case ast.Call(
                func=ast.Attribute(attr="importorskip"), args=[ast.Constant(value=str(module)), *_]
            ):
                found = [module]
            case _:
                continue
        for name in {name.split(".")[0] for name in found}:
            if name not in OURS | sys.stdlib_module_names:
                yield name, node.lineno


def distributions_of(package: str) -> set[str]:
    """Whose it is; the package's own name where nothing that is installed has it."""
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(package, [package])}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_imported_library_is_declared(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    extras = [
        extra for start, named in EXTRA_FOR.items() if place.startswith(start) for extra in named
    ]
    allowed = declared(*extras)
    for package, line in imports(path):
        assert distributions_of(package) & allowed, f"{place}:{line} imports {package}, undeclared"


def test_every_declared_library_is_imported() -> None:
    imported = set().union(
        *(distributions_of(package) for path in SOURCES for package, _ in imports(path))
    )
    assert declared(*EXTRAS) - imported == NOT_IMPORTED.keys()


def test_every_dependency_has_a_lower_bound() -> None:
    for line in [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]:
        assert ">=" in [one.operator for one in Requirement(line).specifier], line


# What set-up installs ----------------------------------------------------------------------------


def locked(name: str) -> dict[str, tuple[Version, str]]:
    """Version and hashes of each package in a lock."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        package, version, rest = re.fullmatch(r"([\w.-]+)==(\S+)(.*)", line).groups()
        found[canonicalize_name(package)] = (Version(version), rest)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_all_that_is_locked_has_a_hash(name: str) -> None:
    for package, (_, rest) in locked(name).items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", rest), package


def test_the_locks_are_those_of_the_declared_dependencies() -> None:
    everything = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    groups = PYPROJECT["dependency-groups"]
    tools = [*groups["build"], *PYPROJECT["build-system"]["requires"]]
    for name, lines in zip(LOCKS, (everything, tools, groups["serve"]), strict=True):
        pinned = locked(name)
        for requirement in map(Requirement, lines):
            version, _ = pinned[canonicalize_name(requirement.name)]
            assert version in requirement.specifier, f"{requirement}: run make lock"


def test_the_locks_agree() -> None:
    """Tools must not be exchanged between their installation and what they build."""
    packages, *others = map(locked, LOCKS)
    for other in others:
        for name in packages.keys() & other.keys():
            assert packages[name] == other[name], f"{name}: run make lock"


def test_a_service_installs_only_what_is_declared_and_no_torch() -> None:
    names = {canonicalize_name(name) for name in PYPROJECT["dependency-groups"]["serve"]}
    assert names <= declared("deploy")
    assert not {"torch", "timm", "hydra-core", "scipy", "numba"} & locked(LOCKS[2]).keys()


@pytest.mark.parametrize("name", ["Makefile", "README.md", "Dockerfile"])
def test_set_up_downloads_nothing_without_a_hash(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?:\bpip|\$\(UV\)) install (.*)", text)
    assert commands
    for command in commands:
        if "--resolution lowest-direct" in command:  # has no lock, by its nature
            continue
        own = "--no-deps -e ." in command
        assert own or "--require-hashes" in command, command
        # What builds a package is fetched without hashes, unless …
        assert "--no-build-isolation" in command or "--only-binary :all:" in command, command
