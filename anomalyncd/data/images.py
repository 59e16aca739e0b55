"""Image files → arrays, with a clear message for each kind of unusable file.

Files of others are opened by the few decoders that README names, never by whatever Pillow has for
their content (an EPS would start Ghostscript), and not before their header says that they fit into
memory.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.config import HIGHEST_MAX_MEGAPIXELS
from anomalyncd.data.sizes import require_bounded, require_harmless
from anomalyncd.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MAP_SUFFIXES = (".png", ".npy", ".npz", ".tiff", ".tif")

# Common formats that are not supported: reported, since a folder with them is not empty.
OTHER_SUFFIXES = (
    *(".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".jfif", ".psd", ".svg", ".eps", ".pdf"),
    *(".ppm", ".pgm", ".pnm", ".tga", ".ico", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"),
)
_START = 512  # bytes that show what kind of file it is
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# First bytes of other formats that are found under image names: (offset, bytes, format).
_OTHER_CONTENT = (
    (0, b"GIF8", "a GIF"),
    (0, b"%!PS", "an EPS or PostScript file"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (0, b"%PDF", "a PDF"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftyphev", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (4, b"ftypmsf1", "a HEIC"),
    (4, b"jP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (4, b"JXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"<svg", "an SVG"),
    (0, b"P5", "a PGM"),
    (0, b"P6", "a PPM"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
)
_POINTERS = (
    (b"version https://git-lfs", "git lfs pull"),
    (b"/annex/objects", "git annex get"),
)
HIGHEST_SCORE = float(np.finfo(np.float32).max)


class Header(NamedTuple):
    """The information in a file's header, read without decoding."""

    width: int
    height: int
    pages: int  # more than one in some TIFFs; only the first is read


def read_header(
    path: Path, what: str = "image", max_megapixels: int = HIGHEST_MAX_MEGAPIXELS
) -> Header:
    """Check, without decoding, that a file has a supported format and is small enough.

    Args:
        path: the file.
        what: it should hold, for messages.
        max_megapixels: the most that may be decoded.

    Raises:
        InputError: the file is unreadable, has another format, too many pixels, or sides of too
            different lengths.
    """
    with _opened(path, what, max_megapixels) as image:
        # Some phones append a preview to their JPEGs ("MPO"), which does not count as a page.
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        return Header(*image.size, pages)


@contextmanager
def open_image(path: Path, max_megapixels: int) -> Iterator[Image.Image]:
    """A photograph whose header has been checked and whose pixels have not been decoded.

    Raises:
        InputError: as in `read_header`.
    """
    with _opened(path, "image", max_megapixels) as image:
        yield image


def open_bytes(content: bytes, name: str, max_megapixels: int) -> Image.Image:
    """A photograph that is not on disk; its header has been checked, and it is decoded when it is
    used.

    Raises:
        InputError: as in `read_header`; `name` stands for it in the message.
    """
    with _readable(name, "image"), _own_library_settings():
        try:
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
        except Image.UnidentifiedImageError:
            raise InputError(_not_an_image(content[:_START], name, "image")) from None
        require_harmless(name, image, max_megapixels)
        image.filename = name
        return image


def name_of(image: object, number: int) -> str:
    """What messages call an image among others: its file if it has one, else its number."""
    path = image if isinstance(image, str | Path) else getattr(image, "filename", "")
    return str(path) if path else f"images[{number}]"


def read_image(path: Path, max_megapixels: int = HIGHEST_MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Read a photograph as (h, w, 3) RGB.

    16-bit grey is scaled to 8 bits, a palette is applied, an alpha channel is dropped. Orientation
    tags are ignored, as the detectors that made the maps ignore them.

    Raises:
        InputError: unreadable, truncated, too large, or of a pixel type without a known range.
    """
    with _opened(path, "image", max_megapixels) as image:
        return pixels_of(image, path)


def pixels_of(image: Image.Image, name: str | Path) -> NDArray[np.uint8]:
    """A PIL image as (h, w, 3) RGB, as `read_image` reads its file.

    Args:
        image: of any mode, opened or decoded.
        name: its path, or another name for messages.

    Raises:
        InputError: it cannot be decoded, or its pixels are of a type without a known range.
    """
    with _readable(name, "image"):
        if image.mode.startswith("I"):
            grey = np.asarray(image)
            if grey.min() < 0 or grey.max() > 65535:
                raise InputError(f"{name}: 32-bit integer pixels; expected an 8- or 16-bit image")
            _warn_of_few_bits(name, int(grey.max()))
            return np.repeat((grey // 257).astype(np.uint8)[..., None], 3, axis=2)
        if image.mode == "F":
            raise InputError(f"{name}: floating-point pixels; expected an 8- or 16-bit image")
        # Through RGBA, because a palette with transparency does not convert to RGB directly.
        return np.asarray(image.convert("RGBA" if image.mode == "P" else "RGB"))[..., :3].copy()


def digest_of(image: NDArray[np.uint8]) -> str:
    """Of an image's pixels: recognises the same photograph in another file."""
    found = hashlib.blake2b(str(image.shape).encode(), digest_size=16)
    found.update(np.ascontiguousarray(image).data)
    return found.hexdigest()


_warned_of_few_bits: set[str] = set()


def _warn_of_few_bits(name: str | Path, highest: int) -> None:
    """12-bit cameras write 16-bit files, which would look nearly black. Warns once per run."""
    folder = str(Path(name).parent)
    if highest < 4096 and folder not in _warned_of_few_bits:
        _warned_of_few_bits.add(folder)
        log.warning(
            "%s: a 16-bit image whose highest value is %d of 65535, so it is nearly black; if it "
            "holds fewer bits, convert it to 8 bits first",
            name,
            highest,
        )


def read_mask(path: Path, max_megapixels: int = HIGHEST_MAX_MEGAPIXELS) -> NDArray[np.bool_]:
    """Read a truth mask as (h, w), True = defect. In-between greys count from 128 (MTD has some).

    Raises:
        InputError: unreadable, truncated, too large, or marked with values too dark to count.
    """
    with _opened(path, "mask", max_megapixels) as image:
        if image.mode.startswith("I"):
            return np.asarray(image) > 0
        levels = np.asarray(image.convert("L"))
    if 0 < levels.max() <= 127:
        raise InputError(
            f"{path}: a mask with values up to {levels.max()}; expected 255 at defects, else 0"
        )
    return levels > 127


def read_map(path: Path, max_megapixels: int = HIGHEST_MAX_MEGAPIXELS) -> NDArray:
    """Read one anomaly map as a finite (h, w) array of its own dtype.

    Raises:
        InputError: unreadable, too many pixels, more than one channel, or not `valid_scores`.
    """
    what = "anomaly map"
    with _readable(path, what):
        match path.suffix.lower():
            case ".npy":
                with path.open("rb") as file:
                    _require_plain_array(path, file, max_megapixels)
                scores = np.load(path, allow_pickle=False)
            case ".npz":
                with np.load(path, allow_pickle=False) as archive:
                    if len(archive.files) != 1:
                        raise InputError(
                            f"{path}: holds {len(archive.files)} arrays; expected one anomaly map"
                        )
                    with zipfile.ZipFile(path) as packed, packed.open(packed.namelist()[0]) as file:
                        _require_plain_array(path, file, max_megapixels)
                    scores = archive[archive.files[0]]
            case ".tif" | ".tiff":
                with _own_library_settings(), tifffile.TiffFile(path) as tiff:
                    require_bounded(path, tiff.series[0].shape, max_megapixels)
                    tile = tiff.series[0].keyframe.tile or ()
                    require_bounded(path, tile, max_megapixels, "tiles of ")
                    scores = tiff.asarray()
            case _:
                with _opened(path, what, max_megapixels) as image:
                    # The indices of a palette are not scores; its colours can be.
                    scores = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    scores = _single_channel(scores, path)
    if scores.dtype == bool:
        scores = scores.astype(np.uint8)
    return valid_scores(scores, str(path))


def valid_scores(scores: NDArray, name: str) -> NDArray:
    """The same (h, w) scores, if they can be normalised together with others.

    Args:
        scores: of one image, from wherever.
        name: of the file, or whatever else they come from, for the message.

    Raises:
        InputError: another shape, not numbers, not finite, or beyond what a float32 can hold (the
            difference of two such numbers may not be finite).
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise InputError(f"{name}: an array of shape {scores.shape}; expected (height, width)")
    if scores.dtype.kind not in "iuf":
        raise InputError(f"{name}: an anomaly map of type {scores.dtype}; expected numbers")
    if scores.dtype.kind == "f":
        if not np.isfinite(scores).all():
            raise InputError(
                f"{name}: the anomaly map holds NaN or infinite values; expected finite scores"
            )
        if scores.dtype.itemsize > 4 and (highest := np.abs(scores).max()) > HIGHEST_SCORE:
            raise InputError(
                f"{name}: the anomaly map holds values up to {highest:.3g}; expected at most "
                f"{HIGHEST_SCORE:.3g}, which a float32 can hold; scale the scores down"
            )
    return scores


def _require_plain_array(path: Path, file: IO[bytes], max_megapixels: int) -> None:
    """Check a NumPy file by its header, before memory is allocated for its claimed size."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    require_bounded(path, shape, max_megapixels)
    if dtype.kind not in "biuf":  # "O" would be a pickle
        raise InputError(f"{path}: an anomaly map of type {dtype}; expected numbers")


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
    return scores


@contextmanager
def _opened(path: Path, what: str, max_megapixels: int) -> Iterator[Image.Image]:
    """An open image file of supported format and size; only its header has been read."""
    with _readable(path, what):
        try:
            with _own_library_settings():
                image = Image.open(path, formats=_FORMATS)
        except Image.UnidentifiedImageError:
            with path.open("rb") as file:
                raise InputError(_not_an_image(file.read(_START), path, what)) from None
        with image:
            require_harmless(path, image, max_megapixels)
            yield image


class _Settings:
    """Global settings of Pillow and tifffile, which also affect the other code of the process."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._found: tuple[int | None, int] = (None, 0)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Our settings, while any of our threads opens a file; the last one restores the others.

        The setting `max_megapixels` replaces Pillow's guard: it rejects images where Pillow only
        warns. The errors that tifffile logs are also raised.
        """
        tiff = logging.getLogger("tifffile")
        with self._lock:
            if self._users == 0:
                self._found = Image.MAX_IMAGE_PIXELS, tiff.level
                Image.MAX_IMAGE_PIXELS = None
                tiff.setLevel(logging.CRITICAL)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    Image.MAX_IMAGE_PIXELS, level = self._found
                    tiff.setLevel(level)


_own_library_settings = _Settings()


def _not_an_image(start: bytes, name: str | Path, what: str) -> str:
    """The error for a file of an unsupported format, by its first bytes."""
    path = Path(name)
    if not start:
        return f"{path}: cannot read this {what} (the file is empty); replace or remove it"
    for begin, command in _POINTERS:
        if begin in start:
            return (
                f"{path}: a pointer to the {what}, whose content is missing; fetch it ({command})"
            )
    for offset, begin, kind in _OTHER_CONTENT:
        if start[offset:].startswith(begin):
            under = f" under the name {path.suffix}" if path.suffix else ""
            return f"{path}: {kind}{under}; convert it to PNG, JPEG, BMP, TIFF or WebP"
    return (
        f"{path}: cannot read this {what} (no PNG, JPEG, BMP, TIFF or WebP); replace or "
        "remove the file"
    )


@contextmanager
def _readable(path: Path | str, what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}") from None
    except PermissionError as error:
        raise InputError(f"{path}: {error.strerror}; make this {what} readable") from error
    except Exception as error:  # whatever the libraries make of a broken file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "pickle" in reason:
            reason = "no plain array of numbers"
        raise InputError(
            f"{path}: cannot read this {what} ({reason}); replace or remove the file"
        ) from error
