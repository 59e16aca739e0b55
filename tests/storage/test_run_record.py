"""Run folders from others, damaged or forged: one line each, and all other runs are shown."""

from __future__ import annotations

import copy
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from anomalyncd.cli import status
from anomalyncd.cli.settings import entry
from anomalyncd.config import FilesDetectorConfig
from anomalyncd.errors import InputError
from anomalyncd.results.aggregate import gather, ungrouped
from anomalyncd.results.paper_tables import as_csv, grids, latex, markdown, show
from anomalyncd.runtime import console, local_gpus
from anomalyncd.runtime.console import printable
from anomalyncd.storage import foreign, run_record
from anomalyncd.storage.cache import SEAL
from anomalyncd.storage.jobs import find

SETTINGS: dict[str, Any] = {
    "dataset": {"kind": "mvtec", "leave_out": [], "unscored": [], "path": "data"},
    "base": {"kind": "folder", "path": "data/aebad"},
    "detector": {"kind": "files", "path": "maps/musc"},
    "backbone": {"name": "vit", "pretrained": True, "checkpoint": None, "image_size": 224},
    "tracker": {"kind": "none"},
    "train": {"epochs": 50},
    "category": "tile",
    "seed": 1,
    "compat": "none",
}
METRICS: dict[str, Any] = {
    "dataset": "mvtec",
    "category": "tile",
    "scores": {"image": {"nmi": 0.5, "ari": 0.4, "f1": 0.3}, "region": None},
    "detection": {"image_auroc": 0.9, "pixel_auroc": None, "aupro": None, "fpr": 0, "fnr": 0.1},
    "normal_recall": {"image": 0.75, "region": None},
}
PROGRESS = {
    "stage": "train",
    "unit": "epoch",
    "done": 1,
    "total": 3,
    "seconds_left": 5.0,
    "at": 9.0,
}
LISTED = {"folder": "../a/seed-7", "launcher": "basic", "detector": "x", "settings": SETTINGS}
LAUGHS = "a: &a [x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def changed(data: Any, path: str, value: Any) -> Any:
    """A copy with one value replaced, or removed where it is `...`."""
    data = copy.deepcopy(data)
    *above, last = path.split(".")
    group = data
    for key in above:
        group = group[key]
    if value is ...:
        del group[last]
    else:
        group[last] = value
    return data


def write(folder: Path, settings: Any, metrics: Any = None, progress: Any = None) -> Path:
    folder.mkdir(parents=True)
    for name, data in (("metrics.json", metrics), ("progress.json", progress)):
        if data is not None:
            (folder / name).write_text(data if isinstance(data, str) else json.dumps(data))
    text = settings if isinstance(settings, str) else yaml.safe_dump(settings)
    (folder / "config.yaml").write_text(text)
    return folder


# What replaces a value of the settings, and of the figures of a finished run.
ODD_SETTINGS: list[tuple[str, Any]] = [
    *(("category", value) for value in (..., None, 5, True, ["a"], {"a": 1}, "x" * 20_000)),
    *(("seed", value) for value in (..., "1", 1.5, True, 2**63, 10**400, None)),
    *(("dataset", value) for value in (..., "mvtec", [], {}, {"kind": 3})),
    *(("base", value) for value in (..., "none", {"kind": None}, {"kind": "folder", "path": 1})),
    *(("detector", value) for value in (..., "musc", {"kind": "no"}, {"kind": ["musc"]})),
    *(("detector.path", value) for value in (..., 5, None, {"a": 1}, ["a"])),
    ("detector.from_the_future", 1),
    ("backbone.image_size", "224"),
    ("backbone.image_size", 10**9),
    ("backbone.name", None),
    ("backbone.checkpoint", 1),
    ("compat", 1),
    ("train.epochs", float("nan")),
    ("train.epochs", float("inf")),
    ("train.epochs", 2**64),
]
ODD_METRICS: list[tuple[str, Any]] = [
    *(("scores", value) for value in (..., None, [], "good")),
    *(("scores.image", value) for value in ([1, 2, 3], "0.5", 1, {})),
    *(("scores.image.nmi", v) for v in (..., "0.5", True, None, float("nan"), 7, 10**400, [1])),
    *(("scores.region", value) for value in ({"nmi": 1}, "none")),
    *(("detection", value) for value in (..., None, [0.5])),
    *(("detection.fpr", value) for value in ("0.1", float("inf"), {}, True)),
    *(("normal_recall", value) for value in (..., 0.5)),
    ("normal_recall.image", "all"),
    ("category", 3),
    ("dataset", ...),
]
ODD_PROGRESS = [
    *("[]", "5", "null", '"text"', "{", "", "[" * 100_000, '{"at": NaN}', '{"at": 1e400}'),
    *('{"at": "now"}', '{"at": -5}', '{"done": true}', '{"done": 1.5}', '{"unit": 3}'),
    *('{"seconds_left": 1e300}', '{"seconds_left": [1]}', '{"failed": 7}', '{"failed": ["a"]}'),
    *('{"stage": null}', '{"percent": 5}', '{"total": 123456789012345678901234567890}'),
]
ODD_CONFIGS = [
    *("", "[]", "5", "text", "{", "a: [", "\ta: b", "? [a]\n: b", "1: 2", "a: 2001-13-45"),
    *("a: !!python/object/apply:os.system ['true']", "a: !!timestamp x", "a: !!int ''"),
    *("a: !!binary aGk=", "a: !!set {b}", "a: 2001-01-01", "&a [*a]", "[" * 100_000),
    *("{a: " * 100_000, "- " * 100_000, LAUGHS, "x: 1\n" * 300_000, "a: \0", "a: \x1b[31m"),
]
ODD_JOBS = [
    *("", "{", "{}", "5", "null", "[5]", "[null]", "[[]]", "[{}]", "[" * 100_000, "[NaN]"),
    *(json.dumps([changed(LISTED, key, ...)]) for key in LISTED),
    *(json.dumps([changed(LISTED, key, 5)]) for key in LISTED),
    *(json.dumps([changed(LISTED, "folder", f)]) for f in ("..", "/etc", "a\0b", "\ud800")),
    *(json.dumps([changed(LISTED, "settings." + key, v)]) for key, v in ODD_SETTINGS[:1]),
    json.dumps([{"failed": 5, "overrides": "seed=1"}]),
    json.dumps([{"failed": "no"}]),
    json.dumps([{"failed": "no", "overrides": ["seed=1"]}]),
]


def special(kind: str, folder: Path) -> Path:
    """A folder whose config.yaml is not a regular file."""
    config = write(folder, SETTINGS, METRICS) / "config.yaml"
    config.unlink()
    match kind:
        case "a folder":
            config.mkdir()
        case "a pipe":
            os.mkfifo(config)
        case "a device":
            config.symlink_to("/dev/zero")
        case "a loop":
            config.symlink_to(config)
        case "dangling":
            config.symlink_to("nowhere")
        case "not UTF-8":
            config.write_bytes(b"category: caf\xe9")
        case "absent":
            pass
    return folder


SPECIAL = ["a folder", "a pipe", "a device", "a loop", "dangling", "not UTF-8", "absent"]


def shown(root: Path) -> str:
    """Everything that status.py, table.py and its files show of these folders."""
    jobs = find([root])
    blocks, others = gather(jobs), ungrouped(jobs)
    made = grids(blocks, others)
    out = Console(file=io.StringIO(), width=10_000, highlight=False)
    out.print(status.view(jobs, 0.0))
    show(made, out)
    assert markdown(made) and latex(made) and as_csv(blocks, others)
    return out.file.getvalue()  # type: ignore[attr-defined]


def reported_line(tmp_path: Path, odd: Path) -> str:
    """The line on the odd folder; the good run beside it is still shown."""
    write(tmp_path / "out" / "good" / "seed-1", changed(SETTINGS, "category", "wood"), METRICS)
    text = shown(tmp_path / "out")
    assert re.search(r"mvtec/wood +files-musc +1 +done +0\.500 0\.400 0\.300", text)
    assert re.search(r"\bwood +0\.500 ", text)
    lines = [line for line in text.splitlines() if str(odd) in line]
    assert len(lines) == 2, "one of status.py, and one of table.py"
    assert "cannot be read (" in lines[0]
    return lines[0]


@pytest.mark.parametrize(("key", "value"), ODD_SETTINGS)
def test_odd_settings_are_one_line(tmp_path: Path, key: str, value: Any) -> None:
    odd = write(tmp_path / "out" / "odd" / "seed-2", changed(SETTINGS, key, value), METRICS)
    assert "config.yaml" in reported_line(tmp_path, odd)


@pytest.mark.parametrize(("key", "value"), ODD_METRICS)
def test_odd_figures_are_one_line(tmp_path: Path, key: str, value: Any) -> None:
    odd = write(tmp_path / "out" / "odd" / "seed-2", SETTINGS, changed(METRICS, key, value))
    assert "metrics.json" in reported_line(tmp_path, odd)


@pytest.mark.parametrize("text", ODD_CONFIGS, ids=lambda text: text[:20].encode().hex())
def test_odd_configurations_are_one_line(tmp_path: Path, text: str) -> None:
    odd = write(tmp_path / "out" / "odd" / "seed-2", text, METRICS)
    reported_line(tmp_path, odd)


@pytest.mark.parametrize("text", ODD_PROGRESS, ids=lambda text: text[:20])
def test_odd_progress_is_one_line(tmp_path: Path, text: str) -> None:
    odd = write(tmp_path / "out" / "odd" / "seed-2", SETTINGS, progress=text)
    assert "progress.json" in reported_line(tmp_path, odd)


@pytest.mark.parametrize("text", ODD_JOBS, ids=lambda text: text[:20])
def test_odd_sweeps_are_one_line(tmp_path: Path, text: str) -> None:
    sweep = tmp_path / "out" / "sweeps" / "2026-01-01"
    sweep.mkdir(parents=True)
    (sweep / "jobs.json").write_text(text)
    assert "jobs.json" in reported_line(tmp_path, sweep)


@pytest.mark.parametrize("kind", SPECIAL)
def test_anything_but_a_file_is_one_line(tmp_path: Path, kind: str) -> None:
    reported_line(tmp_path, special(kind, tmp_path / "out" / "odd" / "seed-2"))


def test_a_folder_that_may_not_be_listed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = write(tmp_path / "out" / "odd" / "seed-2", SETTINGS, METRICS)
    listing = os.scandir

    def denied(path: Any) -> Any:  # root can read every folder
        if Path(path) == odd:
            raise PermissionError(13, "Permission denied", str(odd))
        return listing(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "Permission denied" in reported_line(tmp_path, odd)


def test_only_what_is_an_entry_of_the_cache_is_not_searched(tmp_path: Path) -> None:
    """A run on maps of the cache has their digest in its own path."""
    run = tmp_path / "out" / "folder" / "photos" / f"files-maps-{'0' * 20}" / "v" / "seed-2"
    write(run, SETTINGS, METRICS)
    entry = tmp_path / "out" / "cache" / "maps-1"
    write(entry / "seed-3", SETTINGS, METRICS)
    (entry / SEAL).write_text("{}")
    assert [job.name for job in find([tmp_path / "out"])] == [str(run)]


def test_a_run_that_was_read_by_others_is_not_written(tmp_path: Path) -> None:
    folder = write(tmp_path / "out" / "odd" / "seed-2", SETTINGS, METRICS)
    lock = folder.with_name(".seed-2.lock")
    lock.write_text("a file of somebody")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    shown_text = shown(tmp_path / "out")
    assert "0.500" in shown_text
    assert lock.read_text() == "a file of somebody"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_interpolations_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OmegaConf.has_resolver("own_gpu"), "what nobody knows cannot be resolved"
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.setattr(local_gpus, "take", lambda *_: pytest.fail("resolved"))
    settings = changed(SETTINGS, "detector.path", "maps/${oc.env:SECRET}")
    settings["category"] = "${own_gpu:1,made}"
    write(tmp_path / "out" / "odd" / "seed-2", settings, METRICS)
    text = shown(tmp_path / "out")
    assert "files-${oc.env:SECRET}" in text and "${own_gpu:1,made}" in text
    assert "hunter2" not in text
    assert not (tmp_path / "made").exists()


CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\u202etxt.exe\u2066\x9b31m[bold]"


@pytest.mark.parametrize(
    "place", ["category", "detector", "train", "failed", "overrides", "folder"]
)
def test_control_characters_never_reach_the_terminal(tmp_path: Path, place: str) -> None:
    settings, progress, name = copy.deepcopy(SETTINGS), None, "odd"
    match place:
        case "category":
            settings["category"] = HOSTILE
        case "detector":
            settings["detector"]["path"] = HOSTILE
        case "train":
            settings["train"]["epochs"] = HOSTILE
        case "failed":
            progress = {"failed": HOSTILE}
        case "overrides":
            (tmp_path / "out" / "sweep").mkdir(parents=True)
            listed = json.dumps([{"overrides": HOSTILE, "failed": HOSTILE}])
            (tmp_path / "out" / "sweep" / "jobs.json").write_text(listed)
        case "folder":
            name, settings = HOSTILE.replace("/", ""), {}
    write(tmp_path / "out" / "good" / "seed-1", SETTINGS, METRICS)
    write(tmp_path / "out" / name / "seed-2", settings, None if progress else METRICS, progress)
    text = shown(tmp_path / "out")
    assert r"\x1b" in text and "[bold]" in text
    assert not CONTROLS.search(text)


def test_messages_are_one_line_on_the_terminal_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "failures", [])
    hostile = HOSTILE + "\udce9"  # a file name that is not Unicode
    with console.logging_to(tmp_path / "log.txt", quiet=False):
        console.log.info("%s: read", hostile)
    console.say(hostile)
    with entry.one_line_errors(debug=False):
        raise InputError(hostile)
    console.show_sweep([], [hostile])
    console.show_result(Path(hostile), run_record.Metrics(hostile, hostile, {}))
    captured = capsys.readouterr()
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert len(log.splitlines()) == 1
    assert len(captured.err.splitlines()) == 3
    for text in (log, captured.err, captured.out):
        assert r"\x1b" in text and r"\udce9" in text
        assert not CONTROLS.search(text)


@given(st.text(st.characters(codec=None)))
def test_printable_characters_stay_and_others_are_escaped(text: str) -> None:
    shown_text = printable(text)
    assert all(sign.isprintable() or sign.isspace() for sign in shown_text)
    assert not set(shown_text) & set("\n\r\t\x0b\x0c\x85\u2028\u2029")
    assert printable(shown_text) == shown_text
    shown_text.encode("utf-8")
    plain = "".join(sign for sign in text if sign.isprintable())
    assert printable(plain) == plain


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*SETTINGS, *METRICS, *PROGRESS, *LISTED, "kind", "path", "image", "nmi"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@st.composite
def tampered(draw: st.DrawFn) -> Any:
    """A file of ours in which something at a random place is replaced."""
    data: Any = copy.deepcopy(draw(st.sampled_from([SETTINGS, METRICS, PROGRESS, [LISTED]])))
    at, where, group = data, None, data
    while isinstance(at, dict | list) and at and (where is None or draw(st.booleans())):
        group = at
        where = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        at = group[where]
    group[where] = draw(PLAIN)
    return data


def fault(read: Callable[[Path], Any], folder: Path) -> str:
    """Why a reader rejects a file; empty if it accepts it."""
    try:
        read(folder)
    except InputError as error:
        return str(error)
    return ""


READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("config.yaml", run_record.read_settings),
    ("metrics.json", lambda folder: run_record.read_metrics(folder / "metrics.json")),
    ("progress.json", run_record.read_progress),
    ("jobs.json", run_record.read_jobs),
]


@given(PLAIN | tampered())
def test_a_reader_gives_a_record_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    for name, read in READERS:
        text = yaml.safe_dump(data) if name.endswith("yaml") else json.dumps(data)
        (folder / name).write_text(text)
        shown_text = fault(read, folder)
        assert not shown_text or name in shown_text


@given(st.binary(max_size=200) | st.text("{}[]&*:-!?|>%@,'\"# \nab1", max_size=60).map(str.encode))
def test_any_bytes_give_a_record_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    for name, read in READERS:
        (folder / name).write_bytes(content)
        shown_text = fault(read, folder)
        assert not shown_text or name in shown_text


def test_the_records_of_a_run_are_read_back(tmp_path: Path) -> None:
    folder = write(tmp_path / "seed-1", SETTINGS, METRICS, PROGRESS)
    (folder / "jobs.json").write_text(json.dumps([LISTED, {"overrides": "a=1", "failed": "no"}]))
    found = run_record.read_settings(folder)
    assert found == run_record.Settings(SETTINGS, FilesDetectorConfig(path="maps/musc"))
    assert found.detector == "files-musc"
    metrics, whole = run_record.read_metrics(folder / "metrics.json")
    assert whole == METRICS
    expected = {"nmi": 0.5, "ari": 0.4, "f1": 0.3, "image_auroc": 0.9, "fpr": 0.0, "fnr": 0.1}
    assert metrics == run_record.Metrics("mvtec", "tile", {**expected, "normal_recall": 0.75})
    assert run_record.read_progress(folder).seconds_left == 5
    first, second = run_record.read_jobs(folder)
    assert first.folder == tmp_path / "a" / "seed-7" and first.settings
    assert (second.overrides, second.failed) == ("a=1", "no")


def test_a_file_beyond_any_of_ours_is_not_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "metrics.json").open("wb") as file:
        file.truncate(10**12)  # sparse
    with pytest.raises(InputError, match="larger than 1,000,000 bytes"):
        foreign.read_json(tmp_path / "metrics.json")
