"""The cache: an entry that does not match what was written is made again."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalyncd.config import DemoConfig, DrawnBaseConfig, MebinConfig, RegionsConfig
from anomalyncd.data import datasets
from anomalyncd.detectors import map_store
from anomalyncd.detectors.simulated import SimulatedDetector
from anomalyncd.errors import InputError
from anomalyncd.evaluation import map_quality
from anomalyncd.regions import cropping
from anomalyncd.storage import cache as cache_module
from anomalyncd.storage.cache import SEAL, Cache, digest_files

FILES = {"index.json": b'{"n": 1}', "images.u8": bytes(range(200)), "a/b/map.png": b"picture"}


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garble(path: Path) -> None:
    """Other content of the same size, and time stamps as before: only a digest reveals it."""
    times = path.stat()
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def break_json(path: Path) -> None:
    path.write_bytes(b'{"n": [1, 2')


DAMAGES: list[Callable[[Path], None]] = [remove, truncate, empty, garble, break_json]


def build(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def never(folder: Path) -> None:
    raise AssertionError("built again")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*FILES, SEAL])
def test_a_damaged_file_is_made_again_with_one_line(
    name: str, damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    place = cache.entry("kind", 1, build)
    sound = content(place)
    damage(place / name)
    assert cache.entry("kind", 1, build) == place
    assert content(place) == sound
    (line,) = caplog.messages
    assert place.name in line
    assert Path(name).name in line
    cache.entry("kind", 1, never)
    assert {p.name for p in tmp_path.iterdir()} <= {place.name, f".{place.name}.lock"}


@pytest.mark.parametrize(
    "seal",
    [
        "null",
        "[" * 100_000,
        '{"entry": 1, "files": []}',
        '{"entry": "kind-x", "files": [["a", [1, "b"]]]}',
        '{"entry": "NAME", "files": [["/dev/zero", [0, ""]]]}',
        '{"entry": "NAME", "files": [["a\\u0000", [0, ""]]]}',
        '{"entry": "NAME", "files": {"a": 1}}',
        '{"entry": "NAME"}',
        '{"entry": "NAME", "files": [["a", [Infinity, ""]]]}',
    ],
)
def test_no_seal_of_another_shape_is_trusted(seal: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    place = cache.entry("kind", 1, build)
    sound = content(place)
    (place / SEAL).write_text(seal.replace("NAME", place.name))
    cache.entry("kind", 1, build)
    assert content(place) == sound


def test_an_entry_in_the_place_of_another_is_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first, second = cache.entry("kind", 1, build), cache.entry("kind", 2, build)
    (first / SEAL).write_bytes((second / SEAL).read_bytes())
    cache.entry("kind", 1, build)
    assert json.loads((first / SEAL).read_text())["entry"] == first.name


def test_a_file_in_the_place_of_an_entry_is_moved_away(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    place = cache.entry("kind", 1, build)
    sound = content(place)
    place.rename(tmp_path / "away")
    place.write_text("a file of that name")
    assert content(cache.entry("kind", 1, build)) == sound
    (kept,) = tmp_path.glob(".*.damaged-1")
    assert kept.read_text() == "a file of that name"


def test_foreign_files_are_ignored_and_kept_when_an_entry_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    place = cache.entry("kind", 1, build)
    (place / "a" / "my notes.txt").write_text("keep me")
    cache.entry("kind", 1, never)
    garble(place / "images.u8")
    cache.entry("kind", 1, build)
    (kept,) = tmp_path.glob(".*.damaged-*")
    assert content(kept) == {"a/my notes.txt": b"keep me"}
    assert "kept here" in caplog.messages[-1]


def test_a_process_that_reads_a_damaged_entry_keeps_its_files(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    place = cache.entry("kind", 1, build)
    mapped = np.memmap(place / "images.u8", np.uint8, mode="r")
    remove(place / "index.json")
    cache.entry("kind", 1, build)
    assert bytes(mapped) == FILES["images.u8"]


def test_a_failed_build_keeps_the_old_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    place = cache.entry("kind", 1, build)
    remove(place / "index.json")
    damaged = content(place)

    def fail(folder: Path) -> None:
        raise InputError("no")

    with pytest.raises(InputError):
        cache.entry("kind", 1, fail)
    assert content(place) == damaged
    assert not list(tmp_path.glob(".*.building"))


def test_a_damaged_entry_is_made_again_only_once_by_many_threads(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    garble(cache.entry("kind", 1, build) / "images.u8")
    made: list[int] = []

    def counted(folder: Path) -> None:
        made.append(1)
        build(folder)

    threads = [threading.Thread(target=cache.entry, args=("kind", 1, counted)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_seal_is_written_after_everything_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(cache_module, "sync", synced.append)
    place = Cache(tmp_path).entry("kind", 1, build)
    names = [path.name for path in synced]
    assert set(names[: len(FILES)]) == {Path(name).name for name in FILES}
    assert names[len(FILES)] == SEAL
    assert names[-1] == tmp_path.name, "the rename itself"
    assert {"a", "b", f".{place.name}.building"} <= set(names)


def test_a_settled_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    monkeypatch.setattr(cache_module, "_SETTLED", -1)
    known = digest_files([path])
    monkeypatch.setattr(cache_module.hashlib, "file_digest", None)  # would fail if called
    assert digest_files([path]) == known
    path.write_bytes(b"two!")
    with pytest.raises(TypeError):
        digest_files([path])


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path) -> None:
    """Two writes within a clock's tick leave equal time stamps."""
    path = tmp_path / "a"
    found = set()
    for i in range(50):
        path.write_bytes(b"%02d" % i)
        found.update(digest_files([path]))
    assert len(found) == 50


def stages(cache: Cache) -> list[Any]:
    """All that is cached, as later stages see it."""
    settings = DemoConfig(train=0, good=1, per_class=1, combined=0)
    dataset = datasets.load(settings, "demo", cache)
    base = datasets.load_base(DrawnBaseConfig(per_class=1), cache)
    assert base
    stored = map_store.collect(SimulatedDetector(0), dataset, "demo", cache, settings={})
    cut = cropping.crop_novel(dataset.samples, stored, MebinConfig(), RegionsConfig(), 32, cache)
    base_regions = cropping.crop_base(base.samples, RegionsConfig(), 32, cache)
    quality = map_quality.evaluate_maps(dataset, stored, cache)
    return [
        digest_files(sample.image for sample in dataset.samples),
        [scores.tobytes() for scores in stored],
        *(cut.regions.images.tobytes(), cut.regions.masks.tobytes(), cut.regions.boxes.tolist()),
        *(cut.counts.tolist(), cut.thresholds.tolist(), cut.search_range),
        *(base_regions.images.tobytes(), base_regions.masks.tobytes()),
        quality,
    ]


def test_any_damage_to_any_kind_of_entry_changes_no_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    fresh = stages(cache)
    entries = {path.name.rpartition("-")[0]: path for path in tmp_path.glob("[a-z]*-*")}
    assert set(entries) == {"demo", "demo-base", "maps", "regions", "base-regions", "map-quality"}
    for number, damage in enumerate(DAMAGES):
        for place in entries.values():
            files = sorted(p for p in place.rglob("*") if p.is_file() and p.stat().st_size)
            damage(files[number % len(files)])
        caplog.clear()
        assert stages(cache) == fresh
        assert len(caplog.messages) == len(entries)
        for place in entries.values():
            assert any(f"{place.name} is damaged" in line for line in caplog.messages)


def test_an_entry_without_a_seal_is_made_again(tmp_path: Path) -> None:
    """As earlier versions left them."""
    cache = Cache(tmp_path)
    place = cache.entry("kind", 1, build)
    sound = content(place)
    (place / SEAL).unlink()
    garble(place / "images.u8")
    cache.entry("kind", 1, build)
    assert content(place) == sound
    assert json.loads(sound[SEAL])["entry"] == place.name
