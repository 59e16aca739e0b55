"""Image files → arrays, with one clear message for each way in which a file can be unusable."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MAP_SUFFIXES = (".png", ".npy", ".npz", ".tiff", ".tif")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a photograph as (h, w, 3) RGB.

    16-bit grey is scaled to 8 bits, a palette is applied, an alpha channel is dropped. Orientation
    tags are ignored, as the detectors that made the maps ignore them.

    Raises:
        InputError: unreadable, truncated, or of a pixel type without a known range.
    """
    with _readable(path, "image"), Image.open(path) as image:
        if image.mode.startswith("I"):
            grey = np.asarray(image)
            if grey.min() < 0 or grey.max() > 65535:
                raise InputError(f"{path}: 32-bit integer pixels; expected an 8- or 16-bit image")
            _warn_of_few_bits(path, int(grey.max()))
            return np.repeat((grey // 257).astype(np.uint8)[..., None], 3, axis=2)
        if image.mode == "F":
            raise InputError(f"{path}: floating-point pixels; expected an 8- or 16-bit image")
        # Through RGBA, because a palette with transparency does not convert to RGB directly.
        return np.asarray(image.convert("RGBA" if image.mode == "P" else "RGB"))[..., :3].copy()


_warned_of_few_bits: set[str] = set()


def _warn_of_few_bits(path: Path, highest: int) -> None:
    """12-bit cameras write 16-bit files; their images would be nearly black. Told once a run."""
    folder = str(path.parent)
    if highest < 4096 and folder not in _warned_of_few_bits:
        _warned_of_few_bits.add(folder)
        log.warning(
            "%s: a 16-bit image whose highest value is %d of 65535, so it is nearly black; if it "
            "holds fewer bits, convert it to 8 bits first",
            path,
            highest,
        )


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a truth mask as (h, w), True = defect. In-between greys count from 128 (MTD has some).

    Raises:
        InputError: unreadable, truncated, or marked with values that are too dark to count.
    """
    with _readable(path, "mask"), Image.open(path) as image:
        if image.mode.startswith("I"):
            return np.asarray(image) > 0
        levels = np.asarray(image.convert("L"))
    if 0 < levels.max() <= 127:
        raise InputError(
            f"{path}: a mask with values up to {levels.max()}; expected 255 at defects, else 0"
        )
    return levels > 127


def read_map(path: Path) -> NDArray:
    """Read one anomaly map as a finite (h, w) array of its own dtype.

    Raises:
        InputError: unreadable, more than one channel, NaN or infinite values.
    """
    with _readable(path, "anomaly map"):
        match path.suffix.lower():
            case ".npy":
                scores = np.load(path, allow_pickle=False)
            case ".npz":
                with np.load(path, allow_pickle=False) as archive:
                    if len(archive.files) != 1:
                        raise InputError(
                            f"{path}: holds {len(archive.files)} arrays; expected one anomaly map"
                        )
                    scores = archive[archive.files[0]]
            case ".tif" | ".tiff":
                scores = tifffile.imread(path)
            case _:
                with Image.open(path) as image:
                    # A palette's indices are no scores; its colours may be.
                    scores = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    scores = _single_channel(scores, path)
    if scores.dtype == bool:
        scores = scores.astype(np.uint8)
    if scores.dtype.kind not in "iuf":
        raise InputError(f"{path}: an anomaly map of type {scores.dtype}; expected numbers")
    if not np.isfinite(scores).all():
        raise InputError(
            f"{path}: the anomaly map holds NaN or infinite values; expected finite scores"
        )
    return scores


def _single_channel(scores: NDArray, path: Path) -> NDArray:
    while scores.ndim > 2 and 1 in (scores.shape[0], scores.shape[-1]):
        scores = scores[0] if scores.shape[0] == 1 else scores[..., 0]
    if scores.ndim == 3 and scores.shape[2] in (3, 4):
        grey = scores[..., 0]
        if (scores[..., 1] == grey).all() and (scores[..., 2] == grey).all():
            return grey
        raise InputError(
            f"{path}: a colour picture; expected anomaly scores in one channel "
            "(save the scores, not a heat map drawn from them)"
        )
    if scores.ndim != 2 or 0 in scores.shape:
        raise InputError(f"{path}: an array of shape {scores.shape}; expected (height, width)")
    return scores


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}") from None
    except Exception as error:  # whatever the libraries make of a broken file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "pickle" in reason:
            reason = "no plain array of numbers"
        raise InputError(
            f"{path}: cannot read this {what} ({reason}); replace the file or take it out"
        ) from error
