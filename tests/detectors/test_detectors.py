"""Adding a detector: one file, no change to the package."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from anomalyncd import detectors
from anomalyncd.config import AnomalibDetectorConfig, CustomDetectorConfig
from anomalyncd.detectors import map_store
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, Sample
from tests.helpers.runs import run

OWN_DETECTOR = '''
"""The difference of an image from the median of all."""
import numpy as np
from anomalyncd.data.images import read_image
from anomalyncd.storage.cache import digest_files


class MedianDifference:
    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def key(self, dataset):
        return self.power, digest_files(sample.image for sample in dataset.samples)

    def maps(self, dataset):
        grey = [read_image(sample.image).mean(axis=2) for sample in dataset.samples]
        usual = np.median(grey, axis=0)
        for image in grey:
            yield np.abs(image - usual) ** self.power
'''


@pytest.fixture
def own_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    assert len(OWN_DETECTOR.splitlines()) < 30
    (tmp_path / "median_difference.py").write_text(OWN_DETECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    return "median_difference:MedianDifference"


def test_a_custom_detector_runs(
    own_detector: str,
    photographs: Path,
    overrides: list[str],
) -> None:
    (photographs / "photos" / "animated.gif").touch()
    general = [o for o in overrides if not o.startswith(("dataset.", "base.", "detector="))]
    outcome = run(
        [
            *("dataset=folder", f"dataset.path={photographs / 'photos'}", "novel_classes=2"),
            *("detector=custom", f"detector.target={own_detector}", "+detector.options.power=2.0"),
            *("backbone=vit_tiny_untrained", *general),
        ]
    )
    assert outcome.metrics["detector"] == "MedianDifference"
    assert any("1 .gif file not read" in warning for warning in outcome.metrics["warnings"])
    assert outcome.metrics["counts"]["images_without_defect_found"] < 6
    cache = next(o for o in overrides if o.startswith("cache_root=")).partition("=")[2]
    notes = [json.loads(path.read_text()) for path in Path(cache).glob("maps-*/maps.json")]
    assert any(note["settings"].get("options") == {"power": 2.0} for note in notes)


class Yielding:
    """A custom detector that yields what a test passes to it."""

    def __init__(self, *made: Any, key: Any = "own") -> None:
        self.made = made
        self.own_key = key

    def key(self, dataset: Dataset) -> Any:
        return self.own_key

    def maps(self, dataset: Dataset) -> Iterator[Any]:
        yield from self.made


def collected(folder: Path, detector: Any) -> list[NDArray]:
    """The stored maps of two images, `t/a` and `t/b`."""
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "x.png")
    samples = tuple(Sample(name, folder / "x.png") for name in ("t/a", "t/b"))
    cache = Cache(folder / "cache")
    return list(map_store.collect(detector, Dataset(samples, None), "c", cache, settings={}))


GOOD = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([GOOD], "Yielding: 1 maps; expected one map for each of 2 images"),
        ([], "Yielding: 0 maps; expected one map for each of 2 images"),
        ([GOOD] * 3, "Yielding: more than 2 maps; expected one map for each of 2 images"),
        ([GOOD, GOOD * np.nan], "Yielding, map of t/b: .* NaN or infinite"),
        ([GOOD, np.where(GOOD > 0.9, np.inf, GOOD)], "Yielding, map of t/b: .* NaN or infinite"),
        ([GOOD[None], GOOD[None]], r"map of t/a: an array of shape \(1, 4, 4\); expected \(height"),
        ([GOOD, np.float32(1)], "map of t/b: float32; expected a NumPy array or a tensor"),
        ([GOOD, GOOD[:0]], r"map of t/b: an array of shape \(0, 4\)"),
        ([GOOD.tolist()], "map of t/a: list; expected a NumPy array or a tensor"),
        ([None], "map of t/a: NoneType; expected"),
        ([GOOD > 0.5], "map of t/a: an anomaly map of type bool; expected numbers"),
        ([GOOD.astype(complex)], "map of t/a: an anomaly map of type complex128"),
        ([GOOD.astype(object)], "map of t/a: an anomaly map of type object"),
        (
            [GOOD.astype(float) * 1e308],
            r"map of t/a: .* values up to 1e\+308; expected at most 3\.4e\+38",
        ),
        ([torch.zeros(4, 4, device="meta")], r"map of t/a: a tensor of .* on meta.*\.cpu\(\)"),
        ([torch.zeros(4, 4, dtype=torch.bfloat16)], r"map of t/a: .*bfloat16.*\.float\(\)"),
        ([GOOD, GOOD.astype(np.float64)], "map of t/b is float64 and others are float32"),
    ],
)
def test_invalid_maps_of_a_detector_are_reported(
    made: list[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        collected(tmp_path, Yielding(*made))
    assert not list((tmp_path / "cache").glob("maps-*"))


def test_tensors_on_the_cpu_are_accepted_as_arrays(tmp_path: Path) -> None:
    tensors = [torch.from_numpy(GOOD), torch.from_numpy(GOOD / 2).requires_grad_()]
    (tmp_path / "arrays").mkdir()
    arrays = collected(tmp_path / "arrays", Yielding(GOOD, GOOD / 2))
    assert arrays[0].max() == 255
    np.testing.assert_array_equal(collected(tmp_path, Yielding(*tensors)), arrays)


def test_a_detector_that_returns_nothing_is_reported(tmp_path: Path) -> None:
    class Forgot(Yielding):
        def maps(self, dataset: Dataset) -> Any:
            return None

    with pytest.raises(
        InputError, match=r"Forgot: its maps\(\) returned NoneType; expected one map"
    ):
        collected(tmp_path, Forgot())


@pytest.mark.parametrize("key", [GOOD, {1, 2}, {"a": Path("b")}, {"a": 1, 2: 3}])
def test_a_key_that_is_not_json_is_reported(key: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Yielding: its key\(\) returns data that is not JSON"):
        collected(tmp_path, Yielding(GOOD, GOOD, key=key))


@pytest.mark.parametrize("span", [5e-324, 1e-310, 0.0])
def test_a_range_too_small_to_divide_by_counts_as_none(span: float, tmp_path: Path) -> None:
    flat = np.zeros((4, 4))
    assert not np.any(collected(tmp_path, Yielding(flat, np.where(GOOD > 0.5, span, flat))))


def test_a_class_without_the_methods_of_a_detector_is_reported(
    own_detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.py").write_text("class Half:\n    def key(self, dataset): return 1\n")
    config = CustomDetectorConfig(target="half:Half")
    with pytest.raises(InputError, match=r"target=half:Half: it has no method maps\(dataset\)"):
        detectors.create(config, "c", torch.device("cpu"), tmp_path)


@pytest.mark.parametrize(
    "target", ["nowhere:X", "median_difference:X", "median_difference", ":", "os:getcwd"]
)
def test_a_wrong_target_is_reported(own_detector: str, target: str, tmp_path: Path) -> None:
    config = CustomDetectorConfig(target=target, options={"speed": 1})
    with pytest.raises(InputError, match=rf"detector\.target={target}"):
        detectors.create(config, "c", torch.device("cpu"), tmp_path)


def test_a_full_disk_is_not_an_error_of_the_detector(tmp_path: Path) -> None:
    """As such, its message would neither name a folder nor say what to do."""

    class Storing(Yielding):
        def maps(self, dataset: Dataset) -> Iterator[Any]:
            raise OSError(errno.ENOSPC, "No space left on device")
            yield

    with pytest.raises(OSError, match="No space left") as raised:
        collected(tmp_path, Storing())
    assert raised.value.filename == str(tmp_path / "cache")


def test_training_images_with_the_same_name_are_distinguished(tmp_path: Path) -> None:
    paths = [tmp_path / "train" / name for name in ("left/0.png", "right/0.png")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"one")
    dataset = Dataset((), None, train=tuple(paths))
    config = AnomalibDetectorConfig(model="padim")
    before = detectors.inputs(config, "c", dataset)["training image"]
    assert set(before) == {"left/0.png", "right/0.png"}
    paths[0].write_bytes(b"other")
    assert detectors.inputs(config, "c", dataset)["training image"] != before


def test_pictures_behind_broken_links_are_reported_not_dropped(tmp_path: Path) -> None:
    (tmp_path / "0.png").symlink_to(tmp_path / "store" / "0.png")
    config = AnomalibDetectorConfig(model="efficientad", options={"imagenet_dir": str(tmp_path)})
    with pytest.raises(InputError, match=r"0\.png: a link to a file that is missing"):
        detectors.inputs(config, "c", Dataset((), None))
