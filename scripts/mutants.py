"""Check that the tests can fail: faults are put into copies of the package and must be caught.

    python scripts/mutants.py              all of tests/mutants/list.yaml
    python scripts/mutants.py train boxes  those of some files of the package
    python scripts/mutants.py 12 40-45     some by their number

It ends with status 1 if a fault survives.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tests" / "mutants" / "list.yaml"
COPIED = ("anomalyncd", "configs", "scripts", "tests", "pyproject.toml", "train.py", "predict.py")
WHOLE = "whole"  # the copy without a mutation
KILLED, SURVIVED, BROKEN, SLOW = "killed", "SURVIVED", "broken", "too slow"


@dataclass(frozen=True)
class Mutant:
    """A fault in one line."""

    file: str  # in anomalyncd/
    was: str  # stands in the file exactly once
    becomes: str
    why: str  # what fault it stands for
    test: str  # file in tests/, or file::test, that must kill it

    @property
    def path(self) -> Path:
        return Path("anomalyncd", self.file)

    @property
    def test_file(self) -> Path:
        return Path("tests", self.test.partition("::")[0])

    def put_into(self, root: Path) -> None:
        """Change the line in a copy of the repository.

        Raises:
            ValueError: the line does not occur exactly once.
        """
        path = root / self.path
        text = path.read_text(encoding="utf-8")
        if text.count(self.was) != 1:
            raise ValueError(
                f"{self.file} holds {self.was!r} {text.count(self.was)} times, not once"
            )
        mutated = text.replace(self.was, self.becomes)
        compile(mutated, str(path), "exec")
        path.write_text(mutated, encoding="utf-8")


def mutants() -> list[Mutant]:
    return [Mutant(**entry) for entry in yaml.safe_load(LIST.read_text(encoding="utf-8"))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", nargs="*", help="names of files, numbers or ranges; none: all")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at a time")
    parser.add_argument("--seconds", type=int, default=300, help="that a mutant's test may take")
    options = parser.parse_args()
    chosen = [(n, m) for n, m in enumerate(mutants(), 1) if _is_chosen(options.which, n, m)]
    if not chosen:
        sys.exit(f"no mutant is meant by {' '.join(options.which)}; see {LIST.relative_to(ROOT)}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as workspace:
        _require_passing(Path(workspace), sorted({m.test for _, m in chosen}))
        results = []
        with ThreadPoolExecutor(options.jobs) as pool:
            tries = [(n, m, pool.submit(_try, Path(workspace), n, m, options)) for n, m in chosen]
            for n, mutant, future in tries:
                result, seconds = future.result()
                results.append(result)
                print(
                    f"{n:3} {result:8} {seconds:4.0f} s  {mutant.file:28} {mutant.why}", flush=True
                )
    killed = results.count(KILLED)
    print(f"{killed} of {len(results)} killed")
    sys.exit(killed < len(results))


def _is_chosen(which: Sequence[str], number: int, mutant: Mutant) -> bool:
    def is_meant(word: str) -> bool:
        first, _, last = word.partition("-")
        if first.isdigit():
            return int(first) <= number <= int(last or first)
        name = mutant.file.removesuffix(".py")
        return word.removesuffix(".py") in (name, name.rpartition("/")[2])

    return not which or any(map(is_meant, which))


def _copy(source: Path, root: Path) -> Path:
    """The repository's code, and what was compiled of it."""
    root.mkdir()
    for part in COPIED:
        copy = shutil.copytree if (source / part).is_dir() else shutil.copy2
        copy(source / part, root / part)
    return root


def _pytest(root: Path, *arguments: str, seconds: float | None = None) -> tuple[int, str]:
    """Its exit status and what it said."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=seconds
    )
    return done.returncode, done.stdout + done.stderr


def _require_passing(workspace: Path, tests: Sequence[str]) -> None:
    """A test that fails without a fault shows nothing."""
    print(f"without a mutation: {len(tests)} tests or files of tests", flush=True)
    root = _copy(ROOT, workspace / WHOLE)
    status, output = _pytest(root, *(f"tests/{test}" for test in tests))
    if status:
        sys.exit(f"{output}\nthese tests must pass without a mutation")


def _try(
    workspace: Path, number: int, mutant: Mutant, options: argparse.Namespace
) -> tuple[str, float]:
    start = time.monotonic()
    root = _copy(workspace / WHOLE, workspace / str(number))  # numba's compiled files along
    try:
        mutant.put_into(root)
        status, _ = _pytest(root, f"tests/{mutant.test}", seconds=options.seconds)
        result = {0: SURVIVED, 1: KILLED}.get(status, BROKEN)  # 2: the tests cannot be imported
    except (SyntaxError, ValueError) as error:
        print(f"{number}: {error}", file=sys.stderr)
        result = BROKEN
    except subprocess.TimeoutExpired:
        result = SLOW
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return result, time.monotonic() - start


if __name__ == "__main__":
    main()
