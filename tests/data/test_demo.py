from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import SeedSequence
from PIL import Image

from anomalyncd.data import demo
from anomalyncd.data.demo.flange import FLANGE
from anomalyncd.data.demo.panel import PANEL
from anomalyncd.data.demo.rendering import VISIBLE, Product, picture
from anomalyncd.detectors.simulated import simulated_map

SIDE = 96
COUNTS = {"train": 1, "good": 2, "per_class": 2, "combined": 3}
ALL_KINDS = [(product, kind) for product in (FLANGE, PANEL) for kind in product.defects]


def contents(root: Path) -> dict[str, bytes]:
    """Every file below `root` by its relative name."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def draw_all(root: Path, seed: int = 0) -> Path:
    demo.draw(root / "product", seed=seed, side=SIDE, **COUNTS)
    demo.draw_base(root / "base", seed=seed, side=SIDE, per_class=2)
    return root


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_all(tmp_path_factory.mktemp("demo"))


def test_layout_of_the_product_is_that_of_mvtec(drawn: Path):
    expected = {"train/good/000.png", "test/good/000.png", "test/good/001.png"}
    for folder, count in [*((kind, 2) for kind in FLANGE.defects), ("combined", 3)]:
        for i in range(count):
            expected |= {f"test/{folder}/{i:03d}.png", f"ground_truth/{folder}/{i:03d}_mask.png"}
    assert set(contents(drawn / "product")) == expected
    assert len(FLANGE.defects) >= 5


def test_layout_of_the_base_set(drawn: Path):
    assert set(contents(drawn / "base")) == {
        f"{folder}/{kind}/{i:03d}.png"
        for folder in ("images", "masks")
        for kind in PANEL.defects
        for i in range(2)
    }


def test_base_set_has_kinds_of_its_own():
    assert len(PANEL.defects) >= 4
    assert not PANEL.defects.keys() & FLANGE.defects.keys()


def test_pictures_are_rgb_and_masks_are_black_and_white(drawn: Path):
    for path in drawn.rglob("*.png"):
        image = np.array(Image.open(path))
        if path.parent.parent.name in ("ground_truth", "masks"):
            assert image.shape == (SIDE, SIDE)
            assert set(np.unique(image)) == {0, 255}, path
        else:
            assert image.shape == (SIDE, SIDE, 3)


def test_channels_are_not_swapped(drawn: Path):
    flange = np.array(Image.open(drawn / "product/test/good/000.png")).astype(int)
    assert (flange[..., 2] - flange[..., 0]).max() > 60, "the enamel is blue, not red"
    cloth = np.array(Image.open(drawn / "base/images/dent/000.png"))[:8].astype(int)
    assert (cloth[..., 2] - cloth[..., 0]).mean() > 4, "the cloth is bluish"


def test_same_seed_same_bytes(drawn: Path, tmp_path: Path):
    assert contents(draw_all(tmp_path)) == contents(drawn)


def test_other_seed_other_pictures(drawn: Path, tmp_path: Path):
    before, after = contents(drawn), contents(draw_all(tmp_path, seed=1))
    assert all(before[name] != after[name] for name in before)


def test_all_pictures_differ(drawn: Path):
    assert len(set(contents(drawn).values())) == len(contents(drawn))


def test_other_counts_leave_the_remaining_pictures_alone(drawn: Path, tmp_path: Path):
    demo.draw(tmp_path / "product", side=SIDE, train=0, good=1, per_class=1, combined=2)
    demo.draw_base(tmp_path / "base", side=SIDE, per_class=1)
    before, after = contents(drawn), contents(tmp_path)
    assert len(after) < len(before)
    assert after.items() <= before.items()


@pytest.mark.parametrize(("product", "kind"), ALL_KINDS, ids=[kind for _, kind in ALL_KINDS])
def test_mask_is_where_the_defect_changed_the_picture(product: Product, kind: str):
    for seed in range(12):
        streams = SeedSequence(seed).spawn(2)
        sound, nothing = picture(product, streams, (), SIDE)
        image, truth = picture(product, streams, (kind,), SIDE)
        change = np.abs(image.astype(int) - sound).max(axis=2)
        assert not nothing.any()
        assert 0.001 < truth.mean() < 0.12, f"seed {seed}"
        assert change[truth].mean() > 12, f"seed {seed}: hardly visible"
        assert change[~truth].max() <= VISIBLE * 255 + 1, f"seed {seed}"


def test_same_part_under_every_defect_but_not_the_same_defect():
    part, one, other = SeedSequence(5).spawn(3)
    truths = [picture(FLANGE, (part, defects), ("hole",), SIDE)[1] for defects in (one, other)]
    images = [picture(FLANGE, (part, defects), (), SIDE)[0] for defects in (one, other)]
    assert np.array_equal(*images)
    assert not np.array_equal(*truths)


def test_combined_adds_a_second_defect_elsewhere():
    for seed in range(6):
        streams = SeedSequence(seed).spawn(2)
        _, one = picture(FLANGE, streams, ("chip",), SIDE)
        _, both = picture(FLANGE, streams, ("chip", "crack"), SIDE)
        assert both[one].all()
        added = both & ~one
        assert added.sum() > 10
        away = cv2.distanceTransform((~one).astype(np.uint8), cv2.DIST_L2, 5)
        assert away[added].min() > 0.05 * SIDE


@given(st.sampled_from(ALL_KINDS), st.integers(0, 2**32), st.integers(64, 97))
def test_any_kind_seed_and_side(case: tuple[Product, str], seed: int, side: int):
    product, kind = case
    image, truth = picture(product, SeedSequence(seed).spawn(2), (kind,), side)
    assert image.shape == (side, side, 3)
    assert image.dtype == np.uint8
    assert truth.shape == (side, side)
    assert truth.any()


@pytest.fixture(scope="module")
def truths() -> list[np.ndarray]:
    return [
        picture(FLANGE, SeedSequence([seed, 1]).spawn(2), (kind,), SIDE)[1]
        for kind in FLANGE.defects
        for seed in range(4)
    ]


def test_simulated_detector_is_good_but_fallible(truths: list[np.ndarray]):
    rng = np.random.default_rng(0)
    defective = [simulated_map(truth, rng, side=56) for truth in truths * 10]
    good = [simulated_map(None, rng, side=56) for _ in defective]
    peaks, good_peaks = (np.array([m.max() for m in maps]) for maps in (defective, good))
    auroc = (peaks[:, None] > good_peaks).mean()
    assert 0.94 < auroc < 0.99

    on_defect = [
        cv2.dilate(truth.astype(np.uint8), np.ones((9, 9)))[
            tuple(np.array(np.unravel_index(m.argmax(), m.shape)) * SIDE // 56)
        ]
        for truth, m in zip(truths * 10, defective, strict=True)
    ]
    assert 0.85 < np.mean(on_defect) < 1


def test_simulated_map_has_the_asked_form_and_follows_its_generator(truths: list[np.ndarray]):
    one, again, other = (
        simulated_map(truths[0], np.random.default_rng(seed), side=50) for seed in (1, 1, 2)
    )
    assert one.shape == (50, 50)
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    as_bytes = truths[0].astype(np.uint8) * 255
    assert np.array_equal(one, simulated_map(as_bytes, np.random.default_rng(1), side=50))
