"""Anomaly-centred cropping: from a mask to square regions, one around each defect.

Geometry as in the release: where the boxes lie, how anomalous each is, and what is cropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.types import Box, ResizeMode


def find_boxes(
    mask: np.ndarray,
    count: int,
    *,
    padding: float = 0.1,
    min_size: float = 0.1,
    merge_distance: float = 0.01,
) -> list[Box]:
    """Boxes around the mask's components, largest first, at most `count` + 1.

    An empty mask gives the whole image. All other boxes are square (to within the pixel that
    rounding may cost). A box sticks out of the image where the image is too short for it or
    where merging grew it; `crop` fills that part with black.

    Args:
        mask: (H, W) at the image's resolution, of any numeric type, non-zero = anomalous.
        count: number of components that the mask is estimated to have.
        padding: how much larger than its component a box is, as a fraction of it.
        min_size: least half side of a box, as a fraction of the image's longer side.
        merge_distance: boxes with a gap below this fraction of the longer side are merged.

    Example:
        >>> mask = np.zeros((100, 100), bool)
        >>> mask[40:60, 30:50] = True
        >>> find_boxes(mask, 1)
        [Box(left=29, top=39, right=51, bottom=61)]
    """
    height, width = mask.shape
    foreground = np.ascontiguousarray(mask != 0).view(np.uint8)
    contours, _ = cv2.findContours(foreground, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [Box(0, 0, width, height)]

    longer = max(height, width)
    least, most = max(int(min_size * longer), 1), max(int(0.5 * longer), 1)
    extents = sorted((w * h, x, y, w, h) for x, y, w, h in map(cv2.boundingRect, contours))
    squares = np.empty((len(extents), 4))
    for i, (_, x, y, w, h) in enumerate(extents):
        half = min(max(int(max(w, h) * (1 + padding) * 0.5), least), most)
        left = _shift_inside(int(x + w / 2) - half, 2 * half, width)
        top = _shift_inside(int(y + h / 2) - half, 2 * half, height)
        squares[i] = left, top, left + 2 * half, top + 2 * half

    groups = _groups(squares, int(merge_distance * longer))
    merged = [_enclosing_square(sorted(squares[list(group)].tolist())) for group in groups]
    merged.sort(key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), reverse=True)
    # merging leaves half pixels; Python rounds them to even, as PIL's crop does
    return [Box(*(round(edge) for edge in box)) for box in merged[: count + 1]]


def score_boxes(
    anomaly_map: np.ndarray,
    boxes: Sequence[Box],
    lo: float,
    hi: float,
    image_size: tuple[int, int],
) -> NDArray[np.float64]:
    """(n,) highest normalised anomaly score in each box; bicubic overshoot may exceed 1 a little.

    Only the boxes are enlarged, with PIL's bicubic filter in float32; the whole map enlarged gives
    the same to float32 rounding.

    Args:
        anomaly_map: (h, w), any integer or float dtype.
        boxes: in image pixels; each must overlap the image.
        lo: value that becomes 0, the lower end of the category's search range.
        hi: value that becomes 1, the upper end; all scores are 0 where hi == lo.
        image_size: (height, width) of the image.

    Example:
        >>> levels = np.full((10, 10), 50)
        >>> score_boxes(levels, [Box(0, 0, 5, 5)], 0, 100, (10, 10))
        array([0.5])
    """
    scores = np.zeros(len(boxes))
    if hi == lo:
        return scores
    values = anomaly_map.astype(np.float64)
    normalised = np.where(values < lo, 0, (values - lo) / (float(hi) - float(lo)) * 255)
    picture = Image.fromarray(normalised.astype(np.float32))
    height, width = image_size
    scale_x, scale_y = picture.width / width, picture.height / height
    for i, box in enumerate(boxes):
        inside = _intersect(box, height, width)
        left, right = inside.left * scale_x, inside.right * scale_x
        top, bottom = inside.top * scale_y, inside.bottom * scale_y
        size = (inside.right - inside.left, inside.bottom - inside.top)
        enlarged = picture.resize(size, Image.Resampling.BICUBIC, (left, top, right, bottom))
        scores[i] = np.asarray(enlarged).max() / 255
    return scores


def crop(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], box: Box, size: int, mode: ResizeMode
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """Crop a box out of image and mask, and bring both to `size` x `size`.

    Resizing is bilinear, antialiased and in 8 bits, so mask edges become soft. On a square box
    the three modes agree; only a whole non-square image is not.

    Args:
        image: (H, W, 3) RGB.
        mask: (H, W), 255 = anomalous, 0 = not.
        box: in image pixels; what lies outside the image is black, and not anomalous.
        size: height and width of the result, in pixels.
        mode: "compat": the shorter side becomes `size` and the rest is cut off at the right or
            bottom, as the release does; "letterbox": the longer side becomes `size`, centred on
            black; "stretch": both do.

    Returns:
        (size, size, 3) image, (size, size) mask, number of anomalous pixels in the box before
        resizing.
    """
    image, mask = _crop(image, box), _crop(mask, box)
    area = int(np.count_nonzero(mask))
    return _resize_to(image, size, mode), _resize_to(mask, size, mode), area


def _shift_inside(start: int, length: int, limit: int) -> int:
    """Start of the interval, moved into 0…limit by a single correction, as in the release."""
    return 0 if start < 0 else min(start, limit - length)


def _groups(boxes: NDArray[np.float64], distance: float) -> list[frozenset[int]]:
    """For each box, the indices of all boxes whose gap to it is below `distance`, and its own.

    Duplicates and groups contained in another are left out.
    """
    left, top, right, bottom = boxes.T
    groups = []
    for box_left, box_top, box_right, box_bottom in boxes:
        gap_x = np.maximum(left - box_right, box_left - right)
        gap_y = np.maximum(top - box_bottom, box_top - bottom)
        gap = np.hypot(np.maximum(gap_x, 0), np.maximum(gap_y, 0))
        overlap = (gap_x < 0) & (gap_y < 0)
        groups.append(frozenset(np.flatnonzero(overlap | (gap < distance)).tolist()))
    # closeness is mutual, so a group that contains another belongs to one of its members
    return [g for g in dict.fromkeys(groups) if not any(g < groups[member] for member in g)]


def _enclosing_square(boxes: list[list[float]]) -> tuple[float, float, float, float]:
    """Unite boxes one after the other, growing the short side evenly after each union.

    So the order of three boxes or more matters. The release unites them in the order of their
    coordinates (left, top, right, bottom).
    """
    left, top, right, bottom = boxes[0]
    for other in boxes[1:]:
        left, top = min(left, other[0]), min(top, other[1])
        right, bottom = max(right, other[2]), max(bottom, other[3])
        excess = (right - left) - (bottom - top)
        if excess > 0:
            top, bottom = top - excess / 2, bottom + excess / 2
        else:
            left, right = left + excess / 2, right - excess / 2
    return left, top, right, bottom


def _intersect(box: Box, height: int, width: int) -> Box:
    """The part of the box inside the image; empty if there is none."""
    left, right = (min(max(edge, 0), width) for edge in (box.left, box.right))
    top, bottom = (min(max(edge, 0), height) for edge in (box.top, box.bottom))
    return Box(left, top, right, bottom)


def _crop(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The box's pixels, 0 outside the image; a view where the box lies inside."""
    inside = _intersect(box, *image.shape[:2])
    part = image[inside.top : inside.bottom, inside.left : inside.right]
    if inside == box:
        return part
    padded = np.zeros((box.bottom - box.top, box.right - box.left, *image.shape[2:]), np.uint8)
    y, x = inside.top - box.top, inside.left - box.left
    padded[y : y + part.shape[0], x : x + part.shape[1]] = part
    return padded


def _resize_to(image: NDArray[np.uint8], size: int, mode: ResizeMode) -> NDArray[np.uint8]:
    """Resize to `size` x `size`."""
    height, width = image.shape[:2]
    if mode == "stretch":
        return _resize(image, size, size)
    if mode == "compat":
        shorter = min(height, width)
        resized = _resize(image, int(size * height / shorter), int(size * width / shorter))
        return np.ascontiguousarray(resized[:size, :size])
    longer = max(height, width)
    resized = _resize(
        image, max(round(size * height / longer), 1), max(round(size * width / longer), 1)
    )
    canvas = np.zeros((size, size, *image.shape[2:]), np.uint8)
    y, x = (size - resized.shape[0]) // 2, (size - resized.shape[1]) // 2
    canvas[y : y + resized.shape[0], x : x + resized.shape[1]] = resized
    return canvas


def _resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
