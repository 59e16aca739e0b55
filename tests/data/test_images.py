"""Every common pixel type, and every way in which a file can be broken."""

from __future__ import annotations

import logging
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import EpsImagePlugin, Image, ImageFile

from anomalyncd.data.images import open_bytes, read_header, read_image, read_map, read_mask
from anomalyncd.errors import InputError

GREY = np.array([[0, 60], [128, 255]], np.uint8)


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def grey_of(image: NDArray) -> NDArray:
    assert image.shape == (2, 2, 3)
    assert image.dtype == np.uint8
    return image.mean(axis=2)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_common_modes(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY).convert(mode))
    np.testing.assert_array_equal(grey_of(read_image(path)), GREY)


def test_16_bit_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY.astype(np.uint16) * 257))
    np.testing.assert_array_equal(grey_of(read_image(path)), GREY)


def test_fewer_bits_than_the_file_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "12.png", Image.fromarray(GREY.astype(np.uint16) * 16))
    for _ in range(2):
        read_image(path)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [str(path)]
    assert "4080 of 65535" in caplog.text


def test_a_palette_is_applied_and_alpha_dropped(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([9, 9, 9, 200, 10, 30])
    path = tmp_path / "p.png"
    palette.save(path, transparency=1)
    assert (read_image(path) == (200, 10, 30)).all()


def test_floating_point_images_have_no_known_range(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.tiff", Image.fromarray(GREY.astype(np.float32)))
    with pytest.raises(InputError, match=r"f\.tiff: floating-point pixels"):
        read_image(path)
    path = saved(tmp_path / "i.tiff", Image.fromarray(GREY.astype(np.int32) - 5))
    with pytest.raises(InputError, match=r"i\.tiff: 32-bit integer pixels"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    path = saved(tmp_path / f"half.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"half\.{suffix}: cannot read this image"):
        read_image(path)


def test_a_file_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    for name in ("text.png", "empty.png"):
        with pytest.raises(InputError, match=rf"{name}: cannot read this image"):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="no such mask"):
        read_mask(tmp_path / "absent.png")


def test_masks_count_from_128(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", Image.fromarray(GREY))
    assert read_mask(path).tolist() == [[False, False], [True, True]]
    path = saved(tmp_path / "bit.png", Image.fromarray(GREY > 100))
    assert read_mask(path).tolist() == [[False, False], [True, True]]
    path = saved(tmp_path / "dark.png", Image.fromarray((GREY > 100).astype(np.uint8)))
    with pytest.raises(InputError, match=r"dark\.png: a mask with values up to 1; expected 255"):
        read_mask(path)
    path = saved(tmp_path / "16.png", Image.fromarray((GREY > 100).astype(np.uint16)))
    assert read_mask(path).tolist() == [[False, False], [True, True]]


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG of one-bit zeros, which packs to a thousandth."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    path.write_bytes(start + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def test_too_many_pixels_are_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "bomb.png", 13_000, 13_000)
    assert path.stat().st_size < 25_000
    found = r"bomb\.png: 13,000 × 13,000 pixels, 169 megapixels; expected at most 100;"
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    for read in (read_header, lambda path, _, most: read_map(path, most)):
        with pytest.raises(InputError, match=rf"{found} .* set max_megapixels=169$"):
            read(path, "image", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own bound, of which this takes the place
        assert read_header(path, "image", 169) == (13_000, 13_000, 1)


def test_no_reader_exceeds_the_largest_allowed_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "bomb.png", 40_000, 30_000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    for read in (read_image, read_mask, read_map):
        with pytest.raises(InputError, match="1,200 megapixels; expected at most 1000; make it sm"):
            read(path)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (12_000, 1, "12,000 × 1 pixels; expected a longer side of at most 1000 times the shorter"),
        (1, 12_000, "1 × 12,000 pixels; expected a longer side of at most 1000 times the shorter"),
        (
            15_000,
            200,
            "expected a longer side of at most 12,649 pixels; .* or set max_megapixels=57",
        ),
    ],
)
def test_a_shape_whose_squares_would_fill_the_memory_is_refused_by_the_header(
    tmp_path: Path, width: int, height: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A region may be as high as the photograph is wide: 140 bytes would become gigabytes."""
    path = bomb(tmp_path / "line.png", width, height)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    for read in (
        lambda: read_header(path, "image", 40),
        lambda: read_image(path, 40),
        lambda: read_mask(path, 40),
        lambda: open_bytes(path.read_bytes(), "line.png", 40),
    ):
        with pytest.raises(InputError, match=rf"line\.png: .*{message}"):
            read()


def test_long_photographs_of_rails_and_line_cameras_are_read(tmp_path: Path) -> None:
    assert read_header(bomb(tmp_path / "a.png", 55, 1250), "image", 1).height == 1250
    assert read_header(bomb(tmp_path / "b.png", 16_384, 4096)).width == 16_384


def test_a_tile_larger_than_its_tiff_is_refused_by_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder takes the memory of a whole tile, whatever it shows of it."""
    path = tmp_path / "tile.tiff"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), tile=(256, 256), compression="zlib")
    assert read_image(path, 1).shape == (64, 64, 3)
    assert read_map(path, 1).shape == (64, 64)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for number in (322, 323):
            tag = tiff.pages.first.tags[number]
            struct.pack_into("<H", content, tag.valueoffset, 8192)
    path.write_bytes(content)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr(tifffile.TiffFile, "asarray", lambda *_: pytest.fail("decoded"))
    for read in (
        lambda: read_image(path, 40),
        lambda: read_map(path, 40),
        lambda: open_bytes(bytes(content), "tile.tiff", 40),
    ):
        with pytest.raises(InputError, match="8,192 × 8,192 pixels, 68 megapixels"):
            read()


def write_npy(path: Path, header: bytes) -> None:
    path.write_bytes(header)


def write_npz(path: Path, header: bytes) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("scores.npy", header)


@pytest.mark.parametrize(("name", "write"), [("a.npy", write_npy), ("a.npz", write_npz)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_maps_that_claim_too_much_are_refused_by_their_header(
    tmp_path: Path,
    name: str,
    write: Callable[[Path, bytes], None],
    version: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NumPy would take the memory for what the header claims."""
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000)}\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    write(tmp_path / name, b"\x93NUMPY" + bytes(version) + length + text)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(InputError, match=rf"{name}: 100,000 × 100,000 pixels, 10,000 megapixels"):
        read_map(tmp_path / name, 100)


def test_a_large_tiff_map_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", np.zeros((1200, 1000), np.uint8), compression="zlib")
    assert read_map(tmp_path / "a.tiff", 2).shape == (1200, 1000)
    monkeypatch.setattr(tifffile.TiffFile, "asarray", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"a\.tiff: 1,200 × 1,000 pixels, 2 megapixels"):
        read_map(tmp_path / "a.tiff", 1)


def test_only_the_named_formats_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for an EPS, whatever the file is called."""
    monkeypatch.setattr(EpsImagePlugin, "EpsImageFile", lambda *_, **__: pytest.fail("opened"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    (tmp_path / "eps.png").write_bytes(eps)
    Image.fromarray(GREY).save(tmp_path / "gif.png", "GIF")
    Image.fromarray(GREY).save(tmp_path / "ppm.jpg", "PPM")
    (tmp_path / "heic.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "lfs.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    (tmp_path / "annex.png").write_bytes(b"/annex/objects/MD5E-s1--0.png\n")
    found = {
        "eps.png": "an EPS or PostScript file under the name .png; convert it to PNG, JPEG",
        "gif.png": "a GIF under the name .png; convert it to PNG, JPEG, BMP, TIFF or WebP",
        "ppm.jpg": "a PGM under the name .jpg; convert it",
        "heic.jpg": "a HEIC under the name .jpg; convert it",
        "lfs.png": r"content is missing; fetch it \(git lfs pull\)",
        "annex.png": r"content is missing; fetch it \(git annex get\)",
    }
    for name, what in found.items():
        for read in (read_header, read_image, read_mask, read_map):
            if read is read_map and not name.endswith(".png"):
                continue
            with pytest.raises(InputError, match=rf"{name}: .*{what}"):
                read(tmp_path / name)


def test_any_named_format_is_read_under_any_image_name(tmp_path: Path) -> None:
    for content in ("PNG", "BMP", "TIFF", "JPEG", "WEBP"):
        Image.fromarray(GREY).save(tmp_path / "a.png", content)
        assert read_header(tmp_path / "a.png") == (2, 2, 1)
        assert read_image(tmp_path / "a.png").shape == (2, 2, 3)


def test_pages_of_a_tiff_are_counted_and_the_first_is_read(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((2, 2), level, np.uint8)) for level in (7, 8, 9)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    assert read_header(tmp_path / "a.tiff").pages == 3
    assert (read_image(tmp_path / "a.tiff") == 7).all()


def test_for_an_unreadable_image_the_message_advises_to_make_it_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "a.png")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=r"a\.png: Permission denied; make this image readable"):
        read_image(tmp_path / "a.png")


def test_opening_files_leaves_the_libraries_settings_to_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's guard against huge images is off only while we open a file."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((20, 20), np.float32)).save(tmp_path / "a.tif")
    open_, seen = Image.open, []

    def watched(*given: Any, **named: Any) -> Any:
        seen.append(Image.MAX_IMAGE_PIXELS)
        return open_(*given, **named)

    monkeypatch.setattr(Image, "open", watched)
    with ThreadPoolExecutor(4) as pool:
        assert all(i.shape == (20, 20, 3) for i in pool.map(read_image, [tmp_path / "a.png"] * 20))
    read_map(tmp_path / "a.tif")
    assert set(seen) == {None}
    assert Image.MAX_IMAGE_PIXELS == 10
    assert logging.getLogger("tifffile").level == logging.NOTSET
    with pytest.raises(InputError, match="no such image"):
        read_image(tmp_path / "none.png")
    assert Image.MAX_IMAGE_PIXELS == 10
