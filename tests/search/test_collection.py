"""Collections find what comparing everything finds, and keep what they were given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from anomalyncd.errors import InputError
from anomalyncd.search import server
from anomalyncd.search.collection import Collection, Entry, Wanted, entry_of
from anomalyncd.search.embedded import EmbeddedCollection
from anomalyncd.search.server import ServerCollection

WIDTH = 12
ENTRY = Entry("runs/a", "v1", 0, "screw", "photos/a.png", (1, 2, 30, 40), "class 1", 0.75)


def entries(n: int) -> list[Entry]:
    return [
        replace(
            ENTRY,
            run=f"runs/{'ab'[i % 2]}",
            number=i,
            product=("screw", "tile")[i % 2],
            image=f"photos/{i}.png",
            class_name=f"class {i % 3}",
        )
        for i in range(n)
    ]


@pytest.fixture(params=["embedded", "server"])
def collection(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Collection]:
    made: Collection
    if request.param == "embedded":
        made = EmbeddedCollection(tmp_path / "collection", WIDTH)
    else:  # the same requests, answered in this process
        monkeypatch.setattr(server, "client", lambda url: QdrantClient(":memory:"))
        made = ServerCollection("http://localhost:6333", "regions", WIDTH)
    yield made
    made.close()


@pytest.mark.parametrize("wanted", [Wanted(), Wanted("class 1"), Wanted("class 1", "tile")])
def test_the_nearest_are_those_of_comparing_everything(
    collection: Collection, wanted: Wanted
) -> None:
    known, rng = entries(300), np.random.default_rng(0)
    features = rng.normal(size=(300, WIDTH)).astype(np.float32)
    collection.add(known, features)
    one = rng.normal(size=WIDTH).astype(np.float32)
    found = collection.nearest(one, 7, wanted)
    cosines = features @ one / np.linalg.norm(features, axis=1) / np.linalg.norm(one)
    allowed = [
        i
        for i, entry in enumerate(known)
        if wanted.class_name in (None, entry.class_name) and wanted.product in (None, entry.product)
    ]
    best = sorted(allowed, key=lambda i: -cosines[i])[:7]
    assert [hit.entry for hit in found] == [known[i] for i in best]
    assert [hit.score for hit in found] == pytest.approx(cosines[best], abs=1e-5)


def test_regions_added_again_are_there_once(collection: Collection) -> None:
    known, features = entries(40), np.eye(40, WIDTH, dtype=np.float32) + 1
    collection.add(known, features)
    collection.add(known[:20], features[:20])
    assert collection.count({}) == 40
    assert collection.count({"run": "runs/a", "version": "v1"}) == 20


def test_another_version_replaces_only_its_own_run(collection: Collection) -> None:
    known, features = entries(40), np.eye(40, WIDTH, dtype=np.float32) + 1
    collection.add(known, features)
    renamed = [replace(e, version="v2", class_name="dent") for e in known if e.run == "runs/a"]
    collection.add(renamed, features[:20])
    collection.remove_others("runs/a", "v2")
    assert collection.count({"run": "runs/a"}) == 20
    assert collection.count({"run": "runs/b"}) == 20
    assert collection.count({"class_name": "dent"}) == 20


def test_a_folder_keeps_what_was_added(tmp_path: Path) -> None:
    first = EmbeddedCollection(tmp_path / "c", WIDTH)
    first.add([ENTRY], np.ones((1, WIDTH), np.float32))
    first.close()
    again = EmbeddedCollection(tmp_path / "c", WIDTH)
    (found,) = again.nearest(np.ones(WIDTH, np.float32), 5, Wanted())
    assert found.entry == ENTRY
    again.close()


def test_a_path_that_is_not_unicode_is_kept_as_far_as_it_is(collection: Collection) -> None:
    collection.add([replace(ENTRY, image="photos/caf\udce9.png")], np.ones((1, WIDTH), np.float32))
    (found,) = collection.nearest(np.ones(WIDTH, np.float32), 1, Wanted())
    assert found.entry.image == "photos/caf?.png"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = EmbeddedCollection(tmp_path / "c", WIDTH)
    with pytest.raises(InputError, match="another process uses this collection"):
        EmbeddedCollection(tmp_path / "c", WIDTH)
    first.close()
    EmbeddedCollection(tmp_path / "c", WIDTH).close()


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("of the user")
    with pytest.raises(InputError, match="holds other files"):
        EmbeddedCollection(tmp_path, WIDTH)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_features_of_another_width_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EmbeddedCollection(tmp_path / "c", WIDTH).close()
    with pytest.raises(InputError, match=r"not a collection of these features.*search\.path="):
        EmbeddedCollection(tmp_path / "c", WIDTH + 1)
    local = QdrantClient(":memory:")
    monkeypatch.setattr(server, "client", lambda url: local)
    ServerCollection("http://localhost:6333", "regions", WIDTH)
    with pytest.raises(InputError, match="12 values; expected 13"):
        ServerCollection("http://localhost:6333", "regions", WIDTH + 1)


def test_a_damaged_folder_is_one_message(tmp_path: Path) -> None:
    EmbeddedCollection(tmp_path / "c", WIDTH).close()
    (tmp_path / "c" / "edge_config.json").write_text("{")
    with pytest.raises(InputError, match="or damaged") as refused:
        EmbeddedCollection(tmp_path / "c", WIDTH)
    assert "\n" not in str(refused.value)


def test_a_server_that_does_not_answer_is_one_message() -> None:
    with pytest.raises(InputError, match="check that the server runs") as refused:
        ServerCollection("http://127.0.0.1:9", "regions", WIDTH)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("box", [1, 2, 3]),
        ("box", [5, 5, 5, 9]),
        ("box", [5, 9, 8, 9]),
        ("image", 7),
        ("confidence", float("nan")),
        ("number", "x"),
        ("more", 1),
    ],
)
def test_a_payload_that_others_wrote_is_checked(key: str, value: object) -> None:
    with pytest.raises(InputError, match="the server"):
        entry_of({**ENTRY.payload(), key: value}, "the server")
    assert entry_of(ENTRY.payload(), "the server") == ENTRY
    outside = replace(ENTRY, box=(-2, 276, 242, 520))  # as boxes at the edge of a photograph
    assert entry_of(outside.payload(), "the server") == outside


def test_other_collections_of_a_server_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    local = QdrantClient(":memory:")
    params = models.VectorParams(size=3, distance=models.Distance.DOT)
    local.create_collection("others", vectors_config=params)
    monkeypatch.setattr(server, "client", lambda url: local)
    made = ServerCollection("http://localhost:6333", "regions", WIDTH)
    made.add([ENTRY], np.ones((1, WIDTH), np.float32))
    assert {c.name for c in local.get_collections().collections} == {"others", "regions"}
    assert local.count("others").count == 0
