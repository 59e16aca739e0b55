"""From images and maps to packed regions: content, pairing, caching, refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalyncd.config import MebinConfig, RegionsConfig
from anomalyncd.errors import InputError
from anomalyncd.regions import cropping
from anomalyncd.regions.binarization import binarize_one
from anomalyncd.regions.gate import find_gate
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Sample
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


def test_what_was_found_of_each_image_comes_back(tmp_path: Path) -> None:
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
def test_the_settings_of_regions_are_obeyed(
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


def test_a_given_search_range_takes_the_place_of_the_maps_own(tmp_path: Path) -> None:
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


def test_a_mask_all_over_is_kept_or_lost_as_by_the_release(tmp_path: Path) -> None:
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
    assert cropping.stored_size(224) == 256
