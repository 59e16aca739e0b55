"""What a finished run left, without what may differ: two runs are equal if these are."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

# Times, and what tells how a run was called or that it was interrupted.
_NOT_RESULTS = ("seconds", "resumed_after_epochs")
_NOT_RESULTS_IN_REPORT = (
    r"^rerun: \w+$",  # of the configuration: the same run, once called with rerun=true
    r"<li>Times are of the last call.*?</li>",
    r"<div><dt>time</dt>.*?</div>",
    r"<tr><td>[^<]*</td><td>[^\n]*</td><td class=\"number\">[^\n]*(?:\d s|\d min)[^\n]*</td></tr>",
    r"<tr><td><b>total</b></td>.*?</tr>",
    r"<ul class=\"notes\">\s*</ul>",
)


def of_run(folder: Path, case: Path) -> dict[str, str]:
    """Digest of each result in a run's folder; `absent` for what is missing.

    Args:
        folder: of the run.
        case: the folder it worked in, whose own name does not count.
    """
    found = of_prediction(folder, case)
    found["model.safetensors"] = _digest(folder / "model.safetensors")
    metrics, report = folder / "metrics.json", folder / "report.html"
    if metrics.is_file():
        figures = json.loads(metrics.read_text(encoding="utf-8"))
        found["metrics.json"] = json.dumps(
            {key: value for key, value in figures.items() if key not in _NOT_RESULTS}
        )
    else:
        found["metrics.json"] = "absent"
    if report.is_file():
        page = report.read_text(encoding="utf-8").replace(str(case), "CASE")
        for pattern in _NOT_RESULTS_IN_REPORT:
            page = re.sub(pattern, "", page, flags=re.DOTALL | re.MULTILINE)
        found["report.html"] = hashlib.blake2b(re.sub(r"\s+", " ", page).encode()).hexdigest()
    else:
        found["report.html"] = "absent"
    return found


def of_prediction(folder: Path, case: Path) -> dict[str, str]:
    """Digest of both tables; arguments as of `of_run`."""
    return {name: _digest(folder / name, case) for name in ("predictions.csv", "regions.csv")}


def differences(found: dict[str, str], expected: dict[str, str]) -> str:
    """The files that differ, in words; empty if none does."""
    return ", ".join(
        f"{name} is absent" if found[name] == "absent" else f"{name} differs"
        for name in expected
        if found[name] != expected[name]
    )


def difference_of_only_run(case: Path, expected: dict[str, str]) -> str:
    """As `differences`, of the one run below a case's folder."""
    found = run_folders(case)
    if len(found) != 1:
        return f"{len(found)} run folders"
    return differences(of_run(found[0], case), expected)


def run_folders(case: Path) -> list[Path]:
    """Run folders below a case's folder, those that were set aside left out."""
    return sorted(path for path in case.rglob("seed-*") if re.fullmatch(r"seed-\d+", path.name))


def _digest(path: Path, case: Path | None = None) -> str:
    if not path.is_file():
        return "absent"
    content = path.read_bytes()
    if case is not None:  # drawn images lie in the case's own cache, and tables name them
        content = content.replace(os.fsencode(case), b"CASE")
    return hashlib.blake2b(content).hexdigest()
