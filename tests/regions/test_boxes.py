"""Cropping against the official release's boxes, scores and pixels, and by what must hold."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.regions.boxes import ResizeMode, crop, find_boxes, score_boxes
from anomalyncd.types import Box

GOLDEN = Path(__file__).parents[1] / "golden"
CROPS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "crops.json").read_text())
MEBIN = np.load(GOLDEN / "mebin_default.npz")
LO, HI = int(MEBIN["min_th"]), int(MEBIN["max_th"])
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def golden_mask(key: str) -> np.ndarray:
    """(H, W) uint8 0 or 255, at the image's resolution."""
    shape = MEBIN[f"map_{key}"].shape
    mask = np.unpackbits(MEBIN[f"mask_{key}"], count=shape[0] * shape[1]).reshape(shape)
    size = (CROPS[key]["width"], CROPS[key]["height"])
    return cv2.resize(mask * 255, size, interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("key", CROPS)
def test_equals_the_release(key: str) -> None:
    expected = CROPS[key]
    mask = golden_mask(key)
    boxes = find_boxes(mask, expected["count"])
    assert boxes == [tuple(round(edge) for edge in box) for box in expected["boxes_ltrb"]]
    sizes = [[box.right - box.left, box.bottom - box.top] for box in boxes]
    assert sizes == expected["crop_sizes"]

    scores = score_boxes(MEBIN[f"map_{key}"], boxes, LO, HI, mask.shape)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected["score"], rtol=1e-5)

    image = np.zeros((*mask.shape, 3), np.uint8)
    areas = [crop(image, mask, box, 32, "compat")[2] for box in boxes]
    assert areas == expected["mask_area"]


@pytest.mark.parametrize("i", range(200))
def test_merged_boxes_equal_the_release(i: int) -> None:
    with np.load(GOLDEN / "merged_boxes.npz") as golden:
        shape = tuple(golden[f"shape_{i:03d}"])
        mask = np.unpackbits(golden[f"mask_{i:03d}"], count=shape[0] * shape[1]).reshape(shape)
        boxes = find_boxes(mask, int(golden[f"count_{i:03d}"]))
        np.testing.assert_array_equal(boxes, golden[f"boxes_{i:03d}"])


@pytest.mark.parametrize("i", range(6))
def test_pixels_equal_the_release(i: int) -> None:
    with np.load(GOLDEN / "transform.npz") as golden:
        image, mask = golden[f"image_{i}"], golden[f"maskimg_{i}"]
        whole = Box(0, 0, image.shape[1], image.shape[0])
        image, mask, _ = crop(image, mask, whole, 256, "compat")
        view = (image[16:240, 16:240].astype(np.float32) / 255 - MEAN) / STD
        # float16 is how the values are stored
        np.testing.assert_array_equal(view.transpose(2, 0, 1).astype(np.float16), golden[f"x_{i}"])
        np.testing.assert_array_equal(
            (mask[16:240, 16:240].astype(np.float32) / 255).astype(np.float16),
            golden[f"mask_{i}"][0],
        )


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Rectangles, apart or not, in an image of any shape."""
    height, width = draw(st.tuples(st.integers(1, 200), st.integers(1, 200)))
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(0, 12))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        h, w = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
        mask[y : y + h, x : x + w] = True
    return mask


@given(masks(), st.integers(0, 12))
def test_boxes_are_few_and_the_largest_come_first(mask: np.ndarray, count: int) -> None:
    boxes = find_boxes(mask, count)
    assert 1 <= len(boxes) <= count + 1
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in boxes]
    sides = [edge for box in boxes for edge in (box.right - box.left, box.bottom - box.top)]
    assert min(sides) > 0
    # sorted before rounding, which may move either edge by half a pixel
    assert all(a >= b - 2 * max(sides) for a, b in pairwise(areas))
    assert boxes == find_boxes(mask, 1000)[: count + 1]
    assert all(isinstance(edge, int) for box in boxes for edge in box)


@given(masks())
def test_every_component_is_covered_by_a_square(mask: np.ndarray) -> None:
    boxes = find_boxes(mask, 1000)
    if not mask.any():
        return
    for box in boxes:
        assert abs((box.right - box.left) - (box.bottom - box.top)) <= 1
    # nested components have no contour of their own, but then the outer one's centre is covered
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for x, y, w, h in map(cv2.boundingRect, contours):
        centre_x, centre_y = int(x + w / 2), int(y + h / 2)
        assert any(
            box.left <= centre_x <= box.right and box.top <= centre_y <= box.bottom for box in boxes
        )


@given(st.integers(10, 300), st.integers(10, 300), st.data())
def test_a_single_box_extends_only_beyond_a_short_image(
    height: int, width: int, data: st.DataObject
) -> None:
    mask = np.zeros((height, width), bool)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask[y, x] = True
    (box,) = find_boxes(mask, 1)
    side = box.right - box.left
    assert side == box.bottom - box.top == 2 * int(0.1 * max(height, width))
    assert side > width or (box.left >= 0 and box.right <= width)
    assert side > height or (box.top >= 0 and box.bottom <= height)
    assert box.left <= x <= box.right
    assert box.top <= y <= box.bottom


def test_an_empty_mask_is_the_whole_image_and_a_full_one_is_not_black() -> None:
    assert find_boxes(np.zeros((30, 50), bool), 0) == [Box(0, 0, 50, 30)]
    full = np.full((40, 40), 255, np.uint8)
    (box,) = find_boxes(full, 1)
    assert box == Box(0, 0, 40, 40)
    _, mask, area = crop(np.zeros((40, 40, 3), np.uint8), full, box, 16, "compat")
    assert area == 1600
    assert mask.min() == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_boxes_do_not_depend_on_the_type_of_the_mask(dtype: type, order: str) -> None:
    mask = np.zeros((100, 120), bool)
    mask[10:30, 50:70] = mask[80:90, 5:25] = True
    odd = np.asarray(mask * dtype(255), order=order)  # type: ignore[call-overload]
    assert find_boxes(odd, 2) == find_boxes(mask, 2)
    assert len(find_boxes(odd, 2)) == 2


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (1, [Box(50, 90, 111, 150)]),  # 61 wide, so grown to 89.5 … 150.5, which rounds to even
        (2, [Box(50, 105, 80, 135), Box(82, 105, 112, 135)]),
    ],
)
def test_boxes_closer_than_the_distance_are_merged(gap: int, expected: list[Box]) -> None:
    mask = np.zeros((200, 200), bool)
    mask[120, 65] = mask[120, 65 + 30 + gap] = True
    boxes = find_boxes(mask, 5, min_size=0.075, merge_distance=0.01)
    assert boxes == expected


def test_groups_overlap_where_boxes_form_a_chain() -> None:
    """The ends of a chain of three do not touch, but the middle one's group holds them all."""
    mask = np.zeros((400, 400), bool)
    mask[200, [100, 170, 240]] = True
    (box,) = find_boxes(mask, 5)
    assert (box.left, box.right) == (60, 280)
    # a chain of four: the middle two each have a group of three
    mask[200, 310] = True
    first, second = find_boxes(mask, 5)
    assert {(first.left, first.right), (second.left, second.right)} == {(60, 280), (130, 350)}


def test_scores_do_not_depend_on_the_part_that_is_enlarged() -> None:
    rng = np.random.default_rng(0)
    anomaly_map = rng.random((33, 47)).astype(np.float32)
    height, width = 211, 83
    assert width * (47 / width) > 47  # where rounding would reach beyond the map
    parts = [Box(0, 0, 41, 100), Box(41, 0, 83, 100), Box(-5, 100, 83, 230)]
    whole = score_boxes(anomaly_map, [Box(0, 0, width, height)], 0.2, 0.9, (height, width))
    scores = score_boxes(anomaly_map, parts, 0.2, 0.9, (height, width))
    np.testing.assert_allclose(scores.max(), whole[0], rtol=1e-6)


def test_what_lies_below_the_range_scores_nothing_and_what_lies_above_more_than_one() -> None:
    levels = np.full((4, 8), 10, np.uint8)
    levels[:, 4:] = 150
    boxes = [Box(0, 0, 4, 8), Box(12, 0, 16, 8)]
    assert score_boxes(levels, boxes, 50, 100, (8, 16)).tolist() == pytest.approx([0, 2])


@pytest.mark.parametrize(("gap", "merge_distance", "n"), [(0, 0.0, 2), (-1, 0.0, 1), (0, 0.01, 1)])
def test_boxes_that_only_touch_are_no_overlap(gap: int, merge_distance: float, n: int) -> None:
    mask = np.zeros((200, 200), bool)
    mask[100, 65] = mask[100, 65 + 40 + gap] = True
    assert len(find_boxes(mask, 5, merge_distance=merge_distance)) == n


def test_a_range_without_width_scores_nothing() -> None:
    box = Box(0, 0, 8, 8)
    assert score_boxes(np.full((4, 4), 7, np.uint8), [box], 7, 7, (8, 8)).tolist() == [0]


@given(
    st.tuples(st.integers(-30, 20), st.integers(-30, 20)),
    st.integers(1, 70),
    st.sampled_from(get_args(ResizeMode)),
)
def test_a_square_crop_is_the_same_in_every_mode(
    corner: tuple[int, int], size: int, mode: ResizeMode
) -> None:
    rng = np.random.default_rng(size)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    mask = rng.integers(0, 2, (40, 50), np.uint8) * 255
    left, top = corner
    box = Box(left, top, left + size, top + size)
    result = crop(image, mask, box, 24, mode)
    for got, expected in zip(result, crop(image, mask, box, 24, "stretch"), strict=True):
        np.testing.assert_array_equal(got, expected)
    padded = np.pad(mask, 80)[top + 80 : top + 80 + size, left + 80 : left + 80 + size]
    assert result[2] == (padded > 0).sum()


def test_outside_the_image_is_black() -> None:
    white = np.full((10, 10, 3), 255, np.uint8)
    mask = np.full((10, 10), 255, np.uint8)
    image, mask, area = crop(white, mask, Box(-10, -10, 10, 10), 20, "stretch")
    assert area == 100
    for result in (image[..., 0], mask):
        assert result[10:, 10:].min() == 255
        assert result[:10].max() == result[:, :10].max() == 0


@pytest.mark.parametrize("transpose", [False, True])
def test_the_part_of_a_long_image_that_each_mode_keeps(transpose: bool) -> None:
    """Left half black, right half white, twice as wide as high."""
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = 255
    if transpose:
        image = np.ascontiguousarray(image.transpose(1, 0, 2))
    mask = image[..., 0].copy()
    whole = Box(0, 0, mask.shape[1], mask.shape[0])

    seen = {mode: crop(image, mask, whole, 40, mode) for mode in get_args(ResizeMode)}
    for mode, (picture, _, area) in seen.items():
        assert picture.shape == (40, 40, 3), mode
        assert area == 1600
    white = {m: (soft if not transpose else soft.T) > 127 for m, (_, soft, _) in seen.items()}
    assert not white["compat"].any()
    assert white["stretch"][:, 20:].all()
    assert not white["stretch"][:, :20].any()
    assert white["letterbox"][10:30, 20:].all()
    assert white["letterbox"].sum() == 20 * 20
