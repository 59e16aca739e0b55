"""Reading maps of all kinds, pairing them by name, normalising them together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.data.images import read_map
from anomalyncd.detectors import map_store
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.detectors.ground_truth import GroundTruthDetector
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, Labels, Sample

IMAGE = Path(__file__)  # any file: maps are not made from it here


def write(path: Path, scores: NDArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".npy":
            np.save(path, scores)
        case ".npz":
            np.savez(path, scores)
        case ".tiff":
            tifffile.imwrite(path, scores)
        case _:
            Image.fromarray(scores).save(path)


def dataset_of(*ids: str) -> Dataset:
    """Samples of these names; their images are all one file."""
    return Dataset(tuple(Sample(name, IMAGE) for name in ids), None)


def collect(root: Path, dataset: Dataset, raw_range: tuple[float, float] | None = None) -> list:
    detector = FilesDetector(str(root / "maps"), "screw")
    cache = Cache(root / "cache")
    return list(map_store.collect(detector, dataset, "c", cache, settings={}, raw_range=raw_range))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tiff", ".png"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_format_gives_the_same_numbers(tmp_path: Path, suffix: str, dtype: type) -> None:
    if (suffix, dtype) == (".png", np.float32):
        return  # png holds integers only
    scores = (np.arange(12).reshape(3, 4) * 20).astype(dtype)
    write(tmp_path / f"a{suffix}", scores)
    np.testing.assert_array_equal(read_map(tmp_path / f"a{suffix}"), scores)


def test_maps_pair_by_type_and_stem(tmp_path: Path) -> None:
    names = ("bad type/a.b c", "good/a.b c", "bad type/ü_crop", "good/000")
    for level, name in enumerate(names):
        write(tmp_path / "maps" / "screw" / f"{name}.png", np.full((4, 4), level, np.uint8))
    found = collect(tmp_path, dataset_of(*reversed(names)))
    assert [int(scores[0, 0]) for scores in found] == [3, 2, 1, 0]


def test_the_category_folder_may_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "maps" / "good" / "1.npy", np.zeros((2, 2), np.uint8))
    assert len(collect(tmp_path, dataset_of("good/1"))) == 1


def test_floats_are_normalised_over_the_category_not_each_map(tmp_path: Path) -> None:
    low = np.linspace(-3, 1, 16, dtype=np.float32).reshape(4, 4)
    high = np.linspace(0, 7, 10, dtype=np.float32).reshape(2, 5)
    write(tmp_path / "maps" / "t" / "low.npy", low)
    write(tmp_path / "maps" / "t" / "high.npy", high)
    dataset = dataset_of("t/low", "t/high")
    found = collect(tmp_path, dataset)
    assert found[0].shape == (4, 4)
    assert found[1].shape == (2, 5)
    expected = (low.astype(float) + 3) / 10 * 255
    assert (np.abs(found[0] - np.floor(expected + 1e-9)) == 0).all()  # rounded down
    assert (found[0].min(), found[1].max()) == (0, 255)
    again = collect(tmp_path, dataset, raw_range=(-3, 2))
    assert again[1].max() == 255  # saturates
    assert again[0].max() == int(4 / 5 * 255)


def test_8_bit_maps_are_used_as_they_are(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).integers(3, 90, (5, 7)).astype(np.uint8)
    write(tmp_path / "maps" / "t" / "a.png", scores)
    np.testing.assert_array_equal(collect(tmp_path, dataset_of("t/a"))[0], scores)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([[0.1, np.nan]]), "NaN"),
        (np.array([[0.1, np.inf]]), "infinite"),
        (np.broadcast_to([1, 2, 3], (2, 3, 3)), "colour picture"),
        (np.zeros((2, 3, 5)), r"shape \(2, 3, 5\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.array([["a"]]), "expected numbers"),
    ],
)
def test_unusable_maps_are_named(tmp_path: Path, scores: NDArray, message: str) -> None:
    np.save(tmp_path / "a.npy", scores)
    with pytest.raises(InputError, match=rf"a\.npy.*{message}"):
        read_map(tmp_path / "a.npy")


def test_axes_of_length_one_are_dropped_only_around_a_map(tmp_path: Path) -> None:
    for shape in ((1, 2, 3), (2, 3, 1), (1, 1, 2, 3)):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        assert read_map(tmp_path / "a.npy").shape == (2, 3)
    np.save(tmp_path / "a.npy", np.zeros((1, 3)))
    assert read_map(tmp_path / "a.npy").shape == (1, 3)


def test_a_grey_map_saved_as_rgb_is_accepted(tmp_path: Path) -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    write(tmp_path / "a.png", np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_map(tmp_path / "a.png"), grey)


def test_the_indices_of_a_palette_are_not_scores(tmp_path: Path) -> None:
    """A grey map whose palette is reordered reads as its greys, not as indices."""
    indexed = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    indexed.putpalette([200, 200, 200, 10, 10, 10, 90, 90, 90])
    indexed.save(tmp_path / "p.png")
    assert read_map(tmp_path / "p.png").tolist() == [[200, 10], [90, 200]]
    indexed.putpalette([200, 0, 0, 10, 10, 10, 90, 90, 90])
    indexed.save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"c\.png: a colour picture"):
        read_map(tmp_path / "c.png")


def test_two_maps_of_one_image_are_refused(tmp_path: Path) -> None:
    for suffix in (".png", ".npy"):
        write(tmp_path / "maps" / "t" / f"a{suffix}", np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match=r"a\.png and a\.npy: two maps of one image"):
        collect(tmp_path, dataset_of("t/a"))


def test_maps_made_here_are_rescaled_to_a_models_range(tmp_path: Path) -> None:
    write(tmp_path / "maps" / "c" / "t" / "a.npy", np.array([[0.0, 5.0, 10.0]]))
    dataset = dataset_of("t/a")
    files = FilesDetector(str(tmp_path / "maps"), "c")
    made = map_store.collect(files, dataset, "c", Cache(tmp_path / "cache"), settings={})
    again = map_store.collect(
        FilesDetector(str(made.folder), "c"),
        dataset,
        "c",
        Cache(tmp_path / "cache"),
        settings={},
        raw_range=(0.0, 20.0),
    )
    assert again[0].tolist() == [[0, 63, 127]]


class Constant:
    """A detector whose key does not depend on anything."""

    def __init__(self, value: float) -> None:
        self.value = value

    def key(self, dataset: Dataset) -> int:
        return 1

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        for _ in dataset.samples:
            yield np.full((2, 2), self.value)


def test_other_images_or_options_are_other_maps(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    dataset = Dataset((Sample("t/a", tmp_path / "a.png"),), None)
    cache = Cache(tmp_path / "cache")

    def folder(value: float, **resources: float) -> Path:
        settings = {"value": value, **resources}
        return map_store.collect(Constant(value), dataset, "c", cache, settings=settings).folder

    first = folder(1)
    assert folder(1) == first
    assert folder(2) != first
    assert folder(1, memory_gb=0.1) == first
    write(tmp_path / "a.png", np.ones((2, 2), np.uint8))
    assert folder(1) != first
    trained = replace(dataset, train=(tmp_path / "a.png",))
    settings = {"value": 1}
    assert map_store.collect(Constant(1), trained, "c", cache, settings=settings).folder != folder(
        1
    )


@pytest.mark.parametrize("category", ["raw", "seal", "c.png"])
def test_a_category_of_any_name_has_its_maps(tmp_path: Path, category: str) -> None:
    write(tmp_path / "maps" / "t" / "a.npy", np.array([[0.0, 1.0]]))
    detector, dataset = FilesDetector(str(tmp_path / "maps"), category), dataset_of("t/a")
    cache = Cache(tmp_path / "cache")
    stored = map_store.collect(detector, dataset, category, cache, settings={})
    assert stored[0].tolist() == [[0, 255]]
    assert (stored.folder / category / "t" / "a.png").is_file()
    assert {p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()} == {stored.folder.name}


@pytest.mark.parametrize("category", ["maps.json", "entry.json"])
def test_a_category_with_the_name_of_a_file_of_the_cache_is_refused(
    tmp_path: Path, category: str
) -> None:
    write(tmp_path / "maps" / "t" / "a.npy", np.array([[0.0, 1.0]]))
    detector = FilesDetector(str(tmp_path / "maps"), category)
    with pytest.raises(InputError, match=f"category={category}: .* choose another name"):
        map_store.collect(
            detector, dataset_of("t/a"), category, Cache(tmp_path / "cache"), settings={}
        )


def test_a_detector_never_sees_labels(tmp_path: Path) -> None:
    seen = []

    class Spy:
        def key(self, dataset: Dataset) -> str:
            seen.append(dataset.labels)
            return "spy"

        def maps(self, dataset: Dataset) -> Iterator[NDArray]:
            seen.append(dataset.labels)
            yield np.zeros((2, 2), np.uint8)

    labelled = Dataset(dataset_of("t/a").samples, Labels(("t",), np.zeros(1, np.int64), None))
    map_store.collect(Spy(), labelled, "c", Cache(tmp_path), settings={})
    assert seen == [None, None]


def test_unreadable_maps_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "a.npy", "a.npz", "a.tiff"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(InputError, match=rf"{name}: cannot read this anomaly map"):
            read_map(tmp_path / name)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    with pytest.raises(
        InputError, match=r"o\.npy: an anomaly map of type object"
    ):  # a pickle, never opened
        read_map(tmp_path / "o.npy")


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    write(tmp_path / "maps" / "screw" / "t" / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match=r"no anomaly map for .*: looked for .*screw/t/b"):
        collect(tmp_path, dataset_of("t/a", "t/b"))
    with pytest.raises(InputError, match=r"detector\.path"):
        FilesDetector(str(tmp_path / "nowhere"), "screw")


def test_mixed_types_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "maps" / "t" / "a.npy", np.zeros((2, 2), np.uint8))
    write(tmp_path / "maps" / "t" / "b.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match="float32 and others are uint8"):
        collect(tmp_path, dataset_of("t/a", "t/b"))


def test_stored_maps_can_be_read_back_as_files(tmp_path: Path) -> None:
    """The cache holds the release's layout, with a note on how the maps were made."""
    rng = np.random.default_rng(0)
    for name in ("good/a.b", "ü x/1"):
        write(tmp_path / "maps" / "c" / f"{name}.npy", rng.normal(size=(5, 6)))
    dataset = dataset_of("good/a.b", "ü x/1")
    first = map_store.collect(
        FilesDetector(str(tmp_path / "maps"), "c"),
        dataset,
        "c",
        Cache(tmp_path / "cache"),
        settings={"kind": "files"},
    )
    note = json.loads((first.folder / "maps.json").read_text())
    assert note["settings"] == {"kind": "files"}
    assert note["raw_range"][0] < 0 < note["raw_range"][1]
    detector = FilesDetector(str(first.folder), "c")
    again = map_store.collect(detector, dataset, "c", Cache(tmp_path / "other"), settings={})
    assert again.raw_range == pytest.approx(first.raw_range)  # 8 bits, and what they stand for
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stored_maps_are_a_sequence(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / "maps" / "t" / f"{i}.png", np.full((2, 2 + i), i, np.uint8))
    dataset = dataset_of("t/0", "t/1", "t/2")
    detector = FilesDetector(str(tmp_path / "maps"), "c")
    stored = map_store.collect(detector, dataset, "c", Cache(tmp_path), settings={})
    assert stored[-1].shape == (2, 4)
    assert [scores.shape for scores in stored[1:]] == [(2, 3), (2, 4)]
    with pytest.raises(IndexError):
        stored[3]


def test_ground_truth_is_the_mask_or_nothing(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    write(image, np.zeros((3, 5), np.uint8))
    truth = tmp_path / "mask.png"
    write(truth, np.array([[0, 127, 128, 255, 0]] * 3, np.uint8))
    dataset = Dataset((Sample("t/a", image, truth), Sample("good/a", image)), None)
    a, b = map_store.collect(
        GroundTruthDetector(), dataset, "c", Cache(tmp_path / "cache"), settings={}
    )
    assert a.tolist() == [[0, 0, 255, 255, 0]] * 3  # in-between greys count from 128
    assert b.shape == (3, 5)
    assert not b.any()
    with pytest.raises(InputError, match="no truth mask for any of 1 images"):
        GroundTruthDetector().key(Dataset(dataset.samples[1:], None))


NOT_OURS = ["[]", "[1, 2]", '"text"', "null", "7", "{}", '{"name": "another program"}']
DAMAGED = [
    *("", "{", "nonsense", "[" * 100_000, '{"raw_range": [0, 1' + "0" * 5000 + "]}"),
    *('{"files": []}', '{"raw_range": "0 1"}', '{"raw_range": [0]}', '{"raw_range": [0, 1, 2]}'),
    *('{"raw_range": [1, 0]}', '{"raw_range": [NaN, 1]}', '{"raw_range": [0, Infinity]}'),
    *('{"raw_range": [0, 1e400]}', '{"raw_range": [0, 1e300]}', '{"raw_range": [false, true]}'),
    *('{"raw_range": [0, "1"]}', '{"raw_range": [[0], [1]]}', '{"raw_range": {"0": 1}}'),
    '{"raw_range": ' + "[" * 500 + "]" * 500 + "}",
]


@pytest.mark.parametrize("text", NOT_OURS)
def test_a_note_of_another_program_does_not_stop_plain_maps(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = np.arange(4, dtype=np.uint8).reshape(2, 2)
    write(tmp_path / "maps" / "t" / "a.png", scores)
    (tmp_path / "maps" / "maps.json").write_text(text)
    np.testing.assert_array_equal(collect(tmp_path, dataset_of("t/a"))[0], scores)
    assert "maps.json: not written by this program, so it is not used" in caplog.text


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:28])
@pytest.mark.parametrize("place", ["maps.json", "screw/maps.json"])
def test_a_damaged_note_is_reported_in_one_line(text: str, place: str, tmp_path: Path) -> None:
    write(tmp_path / "maps" / "screw" / "t" / "a.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "maps" / place).write_text(text)
    with pytest.raises(
        InputError, match=rf"^.*{place}: expected the file .*; make the maps again.*$"
    ):
        collect(tmp_path, dataset_of("t/a"))


def test_a_note_that_is_not_text_or_too_large_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "maps" / "t" / "a.png", np.zeros((2, 2), np.uint8))
    note = tmp_path / "maps" / "maps.json"
    note.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"maps\.json: expected .*; found no readable JSON"):
        collect(tmp_path, dataset_of("t/a"))
    with note.open("wb") as file:
        file.truncate(200_000_000)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(InputError, match=r"maps\.json: expected .*; found more than 100,000,000"):
        collect(tmp_path, dataset_of("t/a"))


def test_a_note_is_for_8_bit_maps_only(tmp_path: Path) -> None:
    write(tmp_path / "maps" / "t" / "a.npy", np.zeros((2, 2), np.float32))
    (tmp_path / "maps" / "maps.json").write_text('{"raw_range": [0, 9], "files": []}')
    with pytest.raises(InputError, match=r"a\.npy: an anomaly map of type float32, but maps"):
        collect(tmp_path, dataset_of("t/a"))


@pytest.mark.parametrize("missing", ["maps", "maps/screw", "maps/screw/t/b.png", "maps/maps.json"])
def test_broken_links_among_maps_are_reported(missing: str, tmp_path: Path) -> None:
    if missing in ("maps/maps.json", "maps/screw/t/b.png"):
        write(tmp_path / "maps" / "screw" / "t" / "a.png", np.zeros((2, 2), np.uint8))
    (tmp_path / missing).parent.mkdir(exist_ok=True)
    (tmp_path / missing).symlink_to(tmp_path / "store")
    with pytest.raises(InputError, match=rf"{missing}: a link to a file that is missing; fetch"):
        collect(tmp_path, dataset_of("t/a", "t/b"))


def test_for_an_unreadable_folder_of_maps_the_message_advises_to_make_it_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(InputError, match=r"maps: cannot be read \(Permission denied\); make it re"):
        FilesDetector(str(tmp_path / "maps"), "screw")


def test_maps_beyond_float32_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "maps" / "t" / "a.npy", np.array([[0.0, 1e308]]))
    with pytest.raises(InputError, match=r"a\.npy: the anomaly map holds values up to 1e\+308"):
        collect(tmp_path, dataset_of("t/a"))
    highest = float(np.finfo(np.float32).max)
    write(tmp_path / "maps" / "t" / "a.npy", np.array([[-highest, 0, highest]]))
    assert collect(tmp_path, dataset_of("t/a"))[0].tolist() == [[0, 127, 255]]


def test_a_map_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "maps" / "t" / "a.npy", np.zeros((2000, 1001), np.uint8))
    detector = FilesDetector(str(tmp_path / "maps"), "c", max_megapixels=2)
    with pytest.raises(InputError, match=r"a\.npy: .*expected at most 2; .* max_megapixels=3"):
        map_store.collect(detector, dataset_of("t/a"), "c", Cache(tmp_path / "cache"), settings={})
