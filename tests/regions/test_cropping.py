"""From images and maps to packed regions: content, pairing, caching, refusal."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalyncd.config import MebinConfig, RegionsConfig
from anomalyncd.errors import InputError
from anomalyncd.regions import cropping, image_crops
from anomalyncd.regions.binarization import binarize_one
from anomalyncd.regions.boxes import crop
from anomalyncd.regions.gate import find_gate
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Box, ResizeMode, Sample
from tests.helpers.product import cut, product, save, stored_maps


def folders_of_regions(root: Path) -> set[str]:
    """Names of the cache's folders of regions, finished or not."""
    return {p.name for p in (root / "cache").iterdir() if p.is_dir() and "regions" in p.name}


def test_regions_hold_the_defect_and_its_mask(tmp_path: Path) -> None:
    found = cut(tmp_path, product(tmp_path))
    regions = found.regions
    assert found.search_range == (20, 202)
    assert regions.image_index.tolist() == [0, 1, 2, 3]
    assert found.counts.tolist() == [1, 1, 1, 0]
    assert regions.images.shape == (4, 64, 64, 3)
    assert regions.image_sizes.tolist() == [[120, 160]] * 4
    for i in range(3):
        inside, outside = regions.masks[i] == 255, regions.masks[i] == 0
        assert inside.any()
        assert (regions.images[i][inside][:, 0] > 200).all()  # red where the mask is
        assert (regions.images[i][outside][:, 0] < 200).any()
    assert not regions.masks[3].any()
    assert regions.areas[3] == 0
    assert regions.boxes[3].tolist() == [0, 0, 160, 120]
    assert regions.scores[:3] == pytest.approx(1, abs=0.2)  # bicubic overshoot
    assert regions.scores[3] < 0.01


def test_counts_and_thresholds_of_each_image_are_returned(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    found = cut(tmp_path, dataset)
    expected = [binarize_one(m, 20, 202, MebinConfig()) for m in stored_maps(tmp_path, dataset)]
    assert found.thresholds.tolist() == [one.threshold for one in expected]
    assert found.counts.tolist() == [one.count for one in expected]
    (folder,) = folders_of_regions(tmp_path)
    assert found.regions.name == folder, "so that training knows what it learns from"


def test_a_mask_has_the_corners_of_its_map(tmp_path: Path) -> None:
    """Enlarged without grey levels between: at twice the side, four times the pixels."""
    found = cut(tmp_path, product(tmp_path), min_size=0.5)
    maps = stored_maps(tmp_path, product(tmp_path))
    for area, one in zip(found.regions.areas[:3], maps, strict=False):
        assert area == 4 * binarize_one(one, 20, 202, MebinConfig()).mask.sum()


@pytest.mark.parametrize(
    ("setting", "side"), [({"padding": 0.5}, 20), ({"min_size": 0.2}, 64), ({"min_size": 0.5}, 160)]
)
def test_the_settings_of_regions_are_used(
    setting: dict[str, float], side: int, tmp_path: Path
) -> None:
    """Of 12 pixels of the map the erosion leaves 7, which are 14 of the image."""
    boxes = cut(tmp_path, product(tmp_path), **({"min_size": 0} | setting)).regions.boxes[:3]
    assert (boxes[:, 2:] - boxes[:, :2]).tolist() == [[side, side]] * 3


def test_near_boxes_are_merged_as_the_settings_say(tmp_path: Path) -> None:
    dataset = product(tmp_path, n=2)
    scores = np.full((60, 80), 20, np.uint8)
    scores[20:32, 10:22] = scores[20:32, 40:52] = 200
    save(tmp_path / "maps" / "t" / "0.png", scores)
    assert cut(tmp_path, dataset).regions.image_index.tolist() == [0, 0, 1]
    merged = cut(tmp_path, dataset, merge_distance=0.5).regions
    assert merged.image_index.tolist() == [0, 1]


def test_a_given_search_range_replaces_that_of_the_maps(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    stored = stored_maps(tmp_path, dataset)
    cache = Cache(tmp_path / "cache")
    config = MebinConfig(search_range=[150.0, 250.0])
    found = cropping.crop_novel(dataset.samples, stored, config, RegionsConfig(), 56, cache)
    assert found.search_range == (150, 250)
    expected = [binarize_one(m, 150, 250, config).threshold for m in stored]
    assert found.thresholds.tolist() == expected
    assert found.regions.scores[0] == pytest.approx(0.5, abs=0.1)  # 200 in 150 … 250


def test_one_image_alone_is_cut_as_in_its_pile_by_the_numbers_that_were_kept(
    tmp_path: Path,
) -> None:
    dataset, config = product(tmp_path, n=6), MebinConfig(method="adaptive")
    stored, cache = stored_maps(tmp_path, dataset), Cache(tmp_path / "cache")
    pile = cropping.crop_novel(dataset.samples, stored, config, RegionsConfig(), 56, cache)
    assert pile.gate == find_gate(stored)
    assert pile.counts.tolist() == [1] * 5 + [0]
    kept = replace(config, search_range=list(pile.search_range), gate=pile.gate)
    for i, sample in enumerate(dataset.samples):
        one = replace(dataset, samples=(sample,))
        maps = stored_maps(tmp_path, one)
        alone = cropping.crop_novel(one.samples, maps, kept, RegionsConfig(), 56, cache).regions
        in_pile = pile.regions.image_index == i
        np.testing.assert_array_equal(alone.masks, pile.regions.masks[in_pile])
        np.testing.assert_array_equal(alone.images, pile.regions.images[in_pile])
        np.testing.assert_array_equal(alone.scores, pile.regions.scores[in_pile])


def test_the_adaptive_mask_is_made_with_the_image(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    for i in range(3):
        path = tmp_path / "maps" / "t" / f"{i}.png"
        save(path, cv2.GaussianBlur(np.asarray(Image.open(path)), (0, 0), 3))
    stored, cache = stored_maps(tmp_path, dataset), Cache(tmp_path / "cache")
    config = MebinConfig(method="adaptive", gate=60)
    found = cropping.crop_novel(dataset.samples, stored, config, RegionsConfig(), 56, cache)
    for i in range(3):
        image = np.asarray(Image.open(dataset.samples[i].image))
        refined, plain = (
            binarize_one(stored[i], 0, 255, config, picture).mask for picture in (image, None)
        )
        assert found.regions.areas[i] == 4 * refined.sum() != 4 * plain.sum()


def test_scores_of_an_adaptive_cut_are_one_half_at_the_gate(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    stored, cache = stored_maps(tmp_path, dataset), Cache(tmp_path / "cache")
    config = MebinConfig(method="adaptive", gate=110, search_range=[0, 220])
    found = cropping.crop_novel(dataset.samples, stored, config, RegionsConfig(), 56, cache)
    assert found.gate == 110
    assert found.regions.scores[3] == pytest.approx(20 / 220, abs=0.01)
    config = MebinConfig(method="adaptive", gate=30, search_range=[0, 220])
    found = cropping.crop_novel(dataset.samples, stored, config, RegionsConfig(), 56, cache)
    assert found.regions.scores[3] == pytest.approx(0.5 * 20 / 30, abs=0.01)


def test_arrays_are_mapped_not_loaded(tmp_path: Path) -> None:
    regions = cut(tmp_path, product(tmp_path)).regions
    assert isinstance(regions.images, np.memmap)
    assert isinstance(regions.masks, np.memmap)


def test_cropping_again_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = product(tmp_path)
    first = cut(tmp_path, dataset)
    monkeypatch.setattr(cropping, "read_image", None)  # would fail if called
    second = cut(tmp_path, dataset)
    np.testing.assert_array_equal(first.regions.images, second.regions.images)
    with pytest.raises(TypeError):
        cut(tmp_path, dataset, padding=0.2)


@pytest.mark.parametrize(
    "other",
    [
        *({"mebin": MebinConfig(erosion=3)}, {"mebin": MebinConfig(step=5)}),
        *({"regions": RegionsConfig(resize_mode="stretch")}, {"image_size": 63}),
        *({"regions": RegionsConfig(full_mask="empty")}, {"regions": RegionsConfig(padding=0.3)}),
    ],
    ids=str,
)
def test_regions_of_other_settings_are_others(other: dict[str, Any], tmp_path: Path) -> None:
    """In one and the same cache."""
    dataset = product(tmp_path)
    stored, cache = stored_maps(tmp_path, dataset), Cache(tmp_path / "cache")

    def cropped(mebin: Any = None, regions: Any = None, image_size: int = 56) -> cropping.Cropped:
        settings = (mebin or MebinConfig(), regions or RegionsConfig(), image_size)
        return cropping.crop_novel(dataset.samples, stored, *settings, cache)

    first, second = cropped(), cropped(**other)
    assert first.regions.name != second.regions.name
    assert len(second.regions) == 4
    base = [replace(dataset.samples[0], truth_mask=tmp_path / "truth.png")]
    truth = np.zeros((120, 160), np.uint8)
    truth[30:50, 40:70] = 255
    save(tmp_path / "truth.png", truth)

    def of_base(mebin: Any = None, regions: Any = None, image_size: int = 56) -> str:
        return cropping.crop_base(base, regions or RegionsConfig(), image_size, cache).name

    known = of_base()
    assert (of_base(**other) != known) == ("mebin" not in other)
    truth[30:50, 70:80] = 255
    save(tmp_path / "truth.png", truth)
    assert of_base() != known, "a changed mask"


def test_other_maps_of_the_same_images_are_cropped_again(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    first = cut(tmp_path, dataset).regions
    scores = np.full((60, 80), 20, np.uint8)
    scores[40:52, 60:72] = 200
    save(tmp_path / "maps" / "t" / "0.png", scores)
    second = cut(tmp_path, dataset).regions
    assert first.boxes[0].tolist() != second.boxes[0].tolist()
    assert first.boxes[1:].tolist() == second.boxes[1:].tolist()


@pytest.mark.parametrize("mode", get_args(ResizeMode))
def test_an_image_without_a_defect_is_resized_as_the_settings_say(
    mode: ResizeMode, tmp_path: Path
) -> None:
    dataset = product(tmp_path)
    image = np.asarray(Image.open(dataset.samples[3].image)).copy()
    image[:, 80:] = 200
    save(dataset.samples[3].image, image)
    found = cut(tmp_path, dataset, resize_mode=mode).regions.images[3]
    whole = Box(0, 0, 160, 120)
    expected = crop(image, np.zeros((120, 160), np.uint8), whole, 64, mode)[0]
    np.testing.assert_array_equal(found, expected)


def test_a_base_image_with_nothing_marked_is_reported(tmp_path: Path) -> None:
    blank = np.zeros((40, 40), np.uint8)
    image, mask = save(tmp_path / "0.png", np.dstack([blank] * 3)), save(tmp_path / "m.png", blank)
    with pytest.raises(InputError, match=r"m\.png: an empty mask"):
        cropping.crop_base([Sample("a", image, mask)], RegionsConfig(), 56, Cache(tmp_path / "c"))


def test_opencv_has_its_threads_back(tmp_path: Path) -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        cut(tmp_path, product(tmp_path))
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(threads)


def test_a_changed_image_is_cropped_again(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    cut(tmp_path, dataset)
    save(dataset.samples[0].image, np.full((120, 160, 3), 7, np.uint8))
    assert (cut(tmp_path, dataset).regions.images[0] == 7).all()


def test_a_square_map_covers_an_oblong_image_but_another_ratio_is_refused(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    for i in range(4):
        path = tmp_path / "maps" / "t" / f"{i}.png"
        Image.open(path).resize((64, 64)).save(path)
    assert len(cut(tmp_path, dataset).regions) == 4
    with Image.open(tmp_path / "maps" / "t" / "2.png") as scores:
        scores.resize((90, 50)).save(tmp_path / "maps" / "t" / "2.png")
    before = folders_of_regions(tmp_path)
    assert len(before) == 1
    with pytest.raises(InputError, match=r"2\.png\) is 90 × 50 for an image of 160 × 120"):
        cut(tmp_path, dataset)
    assert folders_of_regions(tmp_path) == before, "nothing half-written is left"


@pytest.mark.parametrize(
    ("of_map", "of_image", "fits"),
    [
        *(((50, 52), (100, 100), True), ((50, 53), (100, 100), False)),
        *(((52, 50), (100, 100), True), ((53, 50), (100, 100), False)),
        *(((60, 82), (120, 160), True), ((60, 83), (120, 160), False)),
        *(((60, 78), (120, 160), True), ((60, 77), (120, 160), False)),
        *(((64, 64), (10, 1000), True), ((64, 65), (10, 1000), False)),
    ],
)
def test_a_map_may_be_off_by_two_of_its_pixels(
    of_map: tuple[int, int], of_image: tuple[int, int], fits: bool
) -> None:
    """Detectors round the side that follows from the other; a square covers any image."""
    with nullcontext() if fits else pytest.raises(InputError, match="expected the same aspect"):
        image_crops.require_same_aspect("a (a.png)", of_map, of_image)


@pytest.mark.parametrize("level", [0, 77])
def test_constant_maps_have_no_main_element(tmp_path: Path, level: int) -> None:
    dataset = product(tmp_path)
    for i in range(4):
        save(tmp_path / "maps" / "t" / f"{i}.png", np.full((60, 80), level, np.uint8))
    found = cut(tmp_path, dataset)
    assert found.search_range == (level, level)
    assert found.counts.tolist() == [0, 0, 0, 0]
    assert np.isfinite(found.regions.scores).all()


def test_one_constant_map_is_an_image_without_defect(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    save(tmp_path / "maps" / "t" / "0.png", np.full((60, 80), 20, np.uint8))
    assert cut(tmp_path, dataset).counts.tolist() == [0, 1, 1, 0]


def test_a_mask_of_the_whole_image_is_kept_or_emptied_as_in_the_release(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    save(tmp_path / "maps" / "t" / "0.png", np.full((60, 80), 220, np.uint8))
    for full_mask, level, area in (("keep", 255, 120 * 160), ("empty", 0, 0)):
        found = cut(tmp_path, dataset, full_mask=full_mask)
        regions = found.regions
        assert regions.areas[0] == area
        assert regions.masks[0, 32, 32] == level
        assert regions.masks[1].any()  # others are as they were
        assert found.counts.tolist() == [1, 1, 1, 0]
    assert regions.boxes[0].tolist() == [0, 0, 160, 120]


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    broken = dataset.samples[1].image
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(InputError, match=r"1\.png: cannot read this image"):
        cut(tmp_path, dataset)


def test_base_regions_are_cropped_around_its_masks(tmp_path: Path) -> None:
    image, truth = np.full((90, 90, 3), 50, np.uint8), np.zeros((90, 90), np.uint8)
    for corner in (5, 40, 70):
        image[corner : corner + 8, corner : corner + 8] = 250
        truth[corner : corner + 8, corner : corner + 8] = 255
    sample = Sample("a/0", save(tmp_path / "0.png", image), save(tmp_path / "m.png", truth))
    cache = Cache(tmp_path / "cache")
    found = cropping.crop_base([sample], RegionsConfig(), 56, cache)
    assert len(found) == 2  # n + 1 with n = 1
    assert (found.masks.max(axis=(1, 2)) == 255).all()
    assert found.scores.tolist() == [1, 1]  # surely anomalous
    save(tmp_path / "m.png", truth[:80])
    with pytest.raises(InputError, match=r"m\.png: a mask of 90 × 80 pixels for an image of 90"):
        cropping.crop_base([sample], RegionsConfig(), 56, cache)


def test_stored_side_leaves_room_for_random_crops() -> None:
    assert image_crops.stored_size(224) == 256
