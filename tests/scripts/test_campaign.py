"""The reliability campaign itself: a miniature of it runs and finds only the faulty case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys, time
from pathlib import Path
from scripts.campaign import bad_input, cases, kills, process, products, tampering, trials

process.prepare()
scratch = Path(sys.argv[1])
products.draw(scratch / "whole" / "product")
product = products.Product(Path("product"))
recipe = kills.Recipe("usual", (*trials.usual(product), "train.epochs=1"))
whole = kills.whole(recipe, product, scratch / "whole")

there = products.Product(scratch / "whole" / "product")  # from any folder
elsewhere = kills.Recipe("usual", (*trials.usual(there), "train.epochs=1"), predicts=False)

def found(kind, name):
    return next(
        trial for trial in (*bad_input.trials(), *tampering.trials())
        if (trial.kind, trial.name) == (kind, name)
    )

cut = found("image", "PNG cut in half")
wrong = trials.Trial("image", "expected to be fine", cut.spoil, expected="finished")
at = {"workers": 2, "until": time.monotonic() + 100}
"""


def in_a_separate_process(code: str, folder: Path) -> str:
    """A new process, because this one has threads and cannot be forked."""
    done = subprocess.run(
        [sys.executable, "-c", CODE + code, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_miniature_of_the_campaign_finds_only_the_faulty_case(tmp_path: Path) -> None:
    """One kill, two trials, and one whose expectation is wrong; only that one is a fault."""
    printed = in_a_separate_process(
        """
undisturbed = kills.whole(elsewhere, there, scratch / "undisturbed")
plan = kills.Plan(0, undisturbed, False, "no", False, False, False, kills=1, seed=5)
gone = found("model file", "gone")
some = [plan.case(there), *(trials.case("t", trial, whole) for trial in (cut, gone, wrong))]
rows = cases.spread(some, scratch / "cases", **at)
print(*(f"{row.name}={row.status}/{row.named}/{row.fault}" for row in rows), sep="\\n")
""",
        tmp_path,
    )
    kill, cut, gone, wrong = printed.splitlines()[-4:]
    assert kill.endswith("=0/None/")
    assert cut == "PNG cut in half=1/True/"
    assert gone == "gone=1/True/"
    assert wrong.startswith("expected to be fine=1/None/status 1: error: product/photos/dent/1.png")
    assert "killed in: " in printed
    assert not list((tmp_path / "cases").iterdir()), "scratch is removed"
