"""The `anomalyncd` command: its verbs, its help, and mistyped verbs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from anomalyncd import __version__
from anomalyncd.cli.main import OF_A_FINISHED_RUN, VERBS, main

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "timm", "hydra", "omegaconf", "numpy", "cv2", "PIL"}
WATCHED = f"""
import sys
from anomalyncd.cli.main import main
status = main(sys.argv[1:])
loaded = {HEAVY!r} & sys.modules.keys()
print(*sorted(loaded), file=sys.stderr)
sys.exit(status)
"""


def watched(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command in a separate process; its last line names the heavy modules it loaded."""
    return subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], ["--version"], ["-V"]])
def test_help_and_version_load_no_heavy_modules(arguments: list[str]) -> None:
    done = watched(*arguments)
    assert done.returncode == 0
    assert done.stderr.split() == []
    if arguments[0] in ("--version", "-V"):
        assert done.stdout == f"anomalyncd {__version__}\n"
    else:
        assert "anomalyncd discover PHOTOS" in done.stdout
        assert all(f"  {verb} " in done.stdout for verb in VERBS)
        assert len(done.stdout.splitlines()) < 30


def test_without_a_verb_there_is_help_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: anomalyncd VERB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["predit"], "'predit' is not a verb; did you mean predict? verbs: discover, run, "),
        (["photographs"], "'photographs' is not a verb; verbs: discover, run, maps"),
        (
            ["dataset=mvtec"],
            "'dataset=mvtec' is a setting, not a verb; did you mean: anomalyncd run dataset=mvtec",
        ),
        (["-m"], "'-m' is not a verb; "),
    ],
)
def test_an_unknown_verb_is_reported_in_one_line(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 2
    out, message_shown = capsys.readouterr()
    assert message_shown.startswith(f"error: {message}")
    assert not out and message_shown.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_calls_its_module(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def watched_main() -> int:
        called.append(list(sys.argv))
        return 7

    monkeypatch.setattr(sys, "argv", ["pytest"])
    room = "cli.finished" if verb in OF_A_FINISHED_RUN else "cli"
    monkeypatch.setattr(import_module(f"anomalyncd.{room}.{verb}"), "main", watched_main)
    assert main([verb, "a", "b=c"]) == 7
    assert called == [[f"anomalyncd {verb}", "a", "b=c"]]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_torch(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    try:
        status = main([verb, "--help"])
    except SystemExit as ended:  # argparse
        status = int(ended.code or 0)
    assert status == 0
    shown = capsys.readouterr().out
    assert f"anomalyncd {verb}" in shown
    assert len(shown.splitlines()) < 50


def test_an_option_that_predict_does_not_have_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert main(["predict", "--ovrlays", "run", "photos"]) == 2
    shown = capsys.readouterr().err
    assert shown == "error: --ovrlays: no such option; did you mean --overlays?\n"
    assert main(["predict", "run", "photos", "--jsonl=true"]) == 2
    assert "did you mean --jsonl?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["predict", "extend", "similar"])
def test_swapped_arguments_are_recognised(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, photographs = tmp_path / "run", tmp_path / "photographs"
    for folder in (run, photographs):
        folder.mkdir()
    (run / "config.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert main([verb, str(photographs), str(run)]) == 1
    shown = capsys.readouterr().err
    assert f"the run comes first: anomalyncd {verb} {run} {photographs}" in shown
    assert shown.count("\n") == 1
