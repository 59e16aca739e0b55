"""Mistyped settings are explained in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from omegaconf.errors import OmegaConfBaseException

from anomalyncd.cli.settings import entry, override_errors
from anomalyncd.config import Config, PredictConfig
from anomalyncd.errors import InputError
from tests.helpers.runs import command

CONFIGS = Path(__file__).parents[2] / "configs"
entry.register_schemas()


def reported(*overrides: str, script: str = "train") -> str:
    """The message for a command line; empty if it is correct."""
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            entry.validated(compose(script, list(overrides)))
    except InputError as error:
        return str(error)
    except (CompactHydraException, OmegaConfBaseException, ValueError) as error:
        schema = Config if script == "train" else PredictConfig
        return override_errors.explained(error, schema, overrides)
    return ""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datasett=mvtec", "datasett: no such setting; did you mean dataset?"),
        ("train.epohcs=3", "train.epohcs: no such setting; did you mean train.epochs?"),
        ("epochs=3", "did you mean train.epochs or detector.epochs?"),
        ("step=2", "step: no such setting; did you mean mebin.step?"),
        ("path=x", "did you mean dataset.path, base.path or detector.path?"),
        ("experimnt=x", "did you mean experiment?"),
        ("nothing.like=it", "nothing: no such setting; see anomalyncd/config.py"),
        ("+train.foo=1", "train.foo: no such setting; see anomalyncd/config.py"),
        ("+train.epohcs=3", "train.epohcs: no such setting; did you mean train.epochs?"),
        ("+foo=1", "foo: no such setting"),
        ("+detector.backbone.foo=1", "detector.backbone.foo: no such setting"),
        ("detector.path=x", "detector.path: is a setting of detector=files; select that"),
        (
            "dataset=mvtecc",
            "no such option; did you mean mvtec? options: custom, demo, folder, mtd or",
        ),
        ("+experiment=mvtec_musc", "experiment: already has a value; write it without +"),
        ("+train.epochs=3", "train.epochs: already has a value; write it without +"),
        ("train.epochs=abc", "train.epochs=abc: Value 'abc' of type 'str' could not be converted"),
        ("seed=1,2", "seed=1,2: several values; add -m to run one after the other"),
        ("seed", "seed: expected key=value"),
        ("category=Größe", "inner quotes"),
        ("category=${nowhere}", "Interpolation key 'nowhere' not found"),
        ("~train.foo", "Could not delete from config. 'train.foo' does not exist."),
    ],
)
def test_a_mistake_is_reported_in_one_line(override: str, message: str) -> None:
    found = reported(override)
    assert message in found
    assert "\n" not in found


def test_a_number_instead_of_an_option_is_named() -> None:
    assert reported("seed=3", "dataset=3").startswith("dataset=3: expected the name of an option")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=3", "train: no such setting; see anomalyncd/config.py"),
        ("seed=1", "seed: no such setting"),
        ("dataset=folder", "dataset: no such setting"),
        ("detector.model=x", "detector.model: is a setting of detector=anomalib"),
        ("pathh=x", "did you mean path"),
        ("run=x", "not set: detector.path, path; add detector.path=… path=…"),
    ],
)
def test_predict_knows_its_own_settings(override: str, message: str) -> None:
    assert message in reported(override, script="predict")


def test_a_new_key_of_a_dictionary_needs_a_plus() -> None:
    needed = "detector.options.size: a new key needs a +: +detector.options.size=…"
    assert reported("detector=patchcore", "detector.options.size=3") == needed


def test_a_dictionary_accepts_new_keys() -> None:
    assert reported("detector=patchcore", "+detector.options.num_neighbors=3") == ""


def test_groups_without_a_schema_are_known() -> None:
    there = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    settings = {"dataset", "base", "detector", "backbone", "tracker"}
    assert there == {*override_errors.GROUPS} | settings


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=1,2"], ["seed=1,2", "--multirun"]])
def test_a_command_with_a_mistyped_key_ends_with_one_line(sweep: list[str]) -> None:
    done = command(*sweep, "train.epohcs=3")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: train.epohcs: no such setting; did you mean train.epochs? see anomalyncd/config.py"
    ]


# Sends Ctrl-C to itself at the given moment: at an import, or when a function is called.
INTERRUPTED = """
import os, runpy, signal, sys
script, moment, *arguments = sys.argv[1:]

class AtImport:
    def find_spec(self, name, *_):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

def at_call(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)

if ":" in moment:
    import importlib
    module, _, path = moment.partition(":")
    owner, _, function = path.rpartition(".")
    setattr(getattr(importlib.import_module(module), owner), function, at_call)
else:
    sys.meta_path.insert(0, AtImport())
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("script", "moment", "arguments"),
    [
        ("train.py", "hydra", []),
        ("train.py", "omegaconf.errors", []),
        ("predict.py", "hydra", []),
        ("scripts/anomaly_maps.py", "hydra", []),
        ("scripts/status.py", "rich.live", ["outputs"]),
        ("scripts/table.py", "rich.text", ["outputs"]),
        ("train.py", "hydra._internal.hydra:Hydra.compose_config", []),
        ("train.py", "anomalyncd.config", []),
        ("train.py", "hydra._internal.hydra:Hydra.compose_config", ["-m", "seed=1,2"]),
        ("train.py", "hydra.core.override_parser.overrides_parser:OverridesParser.create", ["-m"]),
        ("train.py", "anomalyncd.experiment", []),
    ],
)
def test_an_interrupt_is_one_line_at_any_time(
    script: str, moment: str, arguments: list[str], tmp_path: Path
) -> None:
    root = CONFIGS.parent
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(root / script), moment, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.split("\n") == [
        "",
        "Interrupted; run the same command again to resume: finished stages and epochs are kept.",
        "",
    ]
    assert done.returncode == 130
    assert not list(tmp_path.rglob("seed-*")), "no run has started"


@pytest.mark.parametrize("sweep", [["hydra.run.dir={}"], ["-m", "seed=1,2", "hydra.sweep.dir={}"]])
def test_a_folder_that_cannot_be_created_is_reported_in_one_line(
    sweep: list[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    place = tmp_path / "taken" / "below"
    done = command(*(override.format(place) for override in sweep))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {place}: Not a directory; set hydra.run.dir and hydra.sweep.dir to writable "
        "folders, or do not set them"
    ]


def test_hydra_full_error_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert "Traceback" in command("train.epohcs=3").stderr
