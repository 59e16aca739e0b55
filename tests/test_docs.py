"""The documentation is correct: its commands exist, its examples and recipes run."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import yaml
from PIL import Image

from anomalyncd.cli import main as command
from anomalyncd.cli.settings import entry
from anomalyncd.config import RENAMED, schemas

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
]
# The verb of each script.
SCRIPTS = {"train.py": "run", "predict.py": "predict", "scripts/anomaly_maps.py": "maps"}
OPTIONS_OF_HYDRA = {"-m", "--cfg", "--config-dir", "-p"}


# Commands ----------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each of our commands on a page, from the verb on."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for place, word in enumerate(words):
                if word == "anomalyncd" or word in SCRIPTS:
                    yield [*([SCRIPTS[word]] if word in SCRIPTS else []), *words[place + 1 :]]
                    break


def settings() -> set[str]:
    """The full names of all settings, of all options of each group."""

    def below(schema: type, prefix: str) -> Iterator[str]:
        hints = get_type_hints(schema)
        for field in fields(schema):
            name = f"{prefix}{field.name}"
            yield name
            kinds = getattr(hints[field.name], "__args__", (hints[field.name],))
            for kind in kinds:
                if is_dataclass(kind):
                    yield from below(kind, f"{name}.")

    found: set[str] = set()
    for group, _, schema in schemas():
        prefix = group.removeprefix("schema/")
        found |= set(below(schema, f"{prefix}." if prefix else ""))
    return found


SETTINGS = settings()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documented_commands_and_settings_exist(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, *words in commands(page):
        if verb.startswith("-"):
            continue
        assert verb in command.VERBS, f"{page.name}: anomalyncd {verb}"
        own = next((words[i + 1] for i, word in enumerate(words) if word == "--config-dir"), None)
        for word in words:
            key, equals, value = word.partition("=")
            if word.startswith("-"):
                if word not in OPTIONS_OF_HYDRA or verb not in ("run", "maps", "predict"):
                    assert key in help_of(verb, capsys), f"{page.name}: anomalyncd {verb} {word}"
            elif equals and not key.startswith(("hydra.", "+")):
                if (ROOT / "configs" / key).is_dir():
                    known = {path.stem for path in (ROOT / "configs" / key).glob("*.yaml")}
                    assert own or set(value.split(",")) <= known, f"{page.name}: {word}"
                else:
                    assert key in SETTINGS, f"{page.name}: {word}"


def test_pages_show_commands() -> None:
    """So that the test above is not empty."""
    assert sum(len(list(commands(page))) for page in PAGES) > 30


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with suppress(SystemExit):  # of argparse
        command.main([verb, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_named_in_a_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    groups = {name.partition(".")[0] for name in SETTINGS if "." in name}
    for name in re.findall(rf"`((?:{'|'.join(groups)})\.[\w.]+)", text):
        if not name.endswith((".py", ".csv")) and "options." not in name:
            assert name in SETTINGS, f"{page.name}: {name}"


def test_every_renamed_setting_is_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for old in RENAMED:
        assert f"`{old}" in text, old


def test_links_lead_to_files() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            generated = link.startswith(("_figures/", "_reference/"))
            written_later = link == "docs/reliability.md"  # by `make campaign`
            if not link.startswith("http") and not generated and not written_later:
                assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


def test_the_numbers_on_the_architecture_page_are_correct() -> None:
    """A few imports more or less do not matter; a page with other numbers does."""
    counted = runpy.run_path(str(ROOT / "docs" / "import_graph.py"))["counts"](ROOT / "anomalyncd")
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name, tolerance in (("rooms", 0), ("arrows between rooms", 12), ("files", 12)):
        (stated,) = re.findall(rf"^\| {name} \| \d+ \| (\d+) \|", text, re.M)
        assert abs(int(stated) - counted[name]) <= tolerance, f"{name}: {counted[name]}"
    assert not counted["rooms in circles"]


# Examples and recipes ----------------------------------------------------------------------------


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = ROOT / "docs" / "examples"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(examples))
    ordered = ("pure_functions", "discover", "predict", "own_detector")
    assert {path.stem for path in examples.glob("*.py")} == set(ordered)
    for name in ordered:
        runpy.run_path(str(examples / f"{name}.py"), run_name="__main__")
    assert len(list(Path("outputs").rglob("report.html"))) == 2


def test_the_recipes_for_contributors_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs_of_bolts: None
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = re.findall(
        r"`([\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)^```", text, re.M | re.S
    )
    expected = {"brightness.py", "own/detector/brightness.yaml", "bolts.py"}
    expected |= {"own/dataset/bolts.yaml", "own/backbone/deit_tiny.yaml"}
    assert {name for name, _ in files} == expected
    for name, content in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    (words,) = [words for words in commands(ROOT / "CONTRIBUTING.md") if "own" in words]
    small = ["train.epochs=1", "train.hidden=16", "train.heads=1", "quiet=true", "device=cpu"]
    monkeypatch.setattr("sys.argv", [])  # restores what the command changes in this process
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(entry, "_jobs_begun", False)
    assert command.main([*words, *small]) == 0
    (run,) = tmp_path.glob("outputs/custom/bolts/Brightness/deit_tiny_patch16_224-none-*/seed-*")
    assert (run / "report.html").is_file()


@pytest.fixture
def photographs_of_bolts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    for number in range(6):
        image = np.full((64, 64, 3), 60 + number, np.uint8)
        kind = ("good", "dent")[number % 2]
        if kind == "dent":
            image[20:44, 8 + number : 32 + number] = 200
        Image.fromarray(image).save(tmp_path / "photographs" / f"{number}-{kind}.png")


def test_hooks_are_the_tools_of_make_check() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    called = {hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]}
    recipe = re.search(r"^check:.*?\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe
    checked = {line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()}
    tools = {re.sub(r" (--check|\.)", "", line) for line in checked if "TEST" not in line}
    assert called == tools
