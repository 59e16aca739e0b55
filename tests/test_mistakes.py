"""What the person who mistyped something is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from omegaconf.errors import OmegaConfBaseException

from anomalyncd import entry, mistakes
from anomalyncd.errors import InputError
from tests.test_run import command

CONFIGS = Path(__file__).parent.parent / "configs"
entry.register_schemas()


def told(*overrides: str) -> str:
    """What is said of a command line, as `entry` would say it."""
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            entry.validated(compose("train", list(overrides)))
    except InputError as error:
        return str(error)
    except (CompactHydraException, OmegaConfBaseException) as error:
        return mistakes.explained(error)
    return ""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datasett=mvtec", "datasett: there is no such setting; did you mean dataset?"),
        ("fit.epohcs=3", "fit.epohcs: there is no such setting; did you mean fit.epochs?"),
        ("epochs=3", "did you mean fit.epochs or detector.epochs?"),
        ("step=2", "step: there is no such setting; did you mean mebin.step?"),
        ("experimnt=x", "did you mean experiment?"),
        ("nothing.like=it", "nothing: there is no such setting; python train.py --help"),
        ("+fit.foo=1", "fit.foo: there is no such setting; python train.py --help lists all"),
        ("+fit.epohcs=3", "fit.epohcs: there is no such setting; did you mean fit.epochs?"),
        ("+foo=1", "foo: there is no such setting"),
        ("+detector.backbone.foo=1", "detector.backbone.foo: there is no such setting"),
        ("detector.path=x", "detector.path: is a setting of detector=files; choose that"),
        ("dataset=mvtecc", "there is no such option; expected demo, folder, mtd or mvtec"),
        ("fit.epochs=abc", "fit.epochs=abc: Value 'abc' of type 'str' could not be converted"),
        ("seed=1,2", "seed=1,2: several values; add -m to run them one after the other, or quote"),
        ("seed", "seed: expected key=value"),
        ("category=Größe", "inner quotes"),
        ("category=${nowhere}", "Interpolation key 'nowhere' not found"),
        ("~fit.foo", "Could not delete from config. 'fit.foo' does not exist."),
    ],
)
def test_a_mistake_is_told_in_one_line(override: str, message: str) -> None:
    found = told(override)
    assert message in found
    assert "\n" not in found


def test_a_dictionary_takes_keys_of_its_own() -> None:
    assert told("detector=patchcore", "+detector.options.num_neighbors=3") == ""


def test_groups_without_a_schema_are_known() -> None:
    there = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    settings = {"dataset", "base", "detector", "backbone", "tracker"}
    assert there == {*mistakes.GROUPS} | settings


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=1,2"]])
def test_a_command_with_a_mistyped_key_ends_with_one_line(sweep: list[str]) -> None:
    done = command(*sweep, "fit.epohcs=3")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: fit.epohcs: there is no such setting; did you mean fit.epochs? "
        "python train.py --help lists all"
    ]


def test_hydra_tells_all_to_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert "Traceback" in command("fit.epohcs=3").stderr
