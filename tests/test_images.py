"""Every pixel type that people have on disk, and every way in which a file is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.errors import InputError
from anomalyncd.images import read_image, read_mask

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


def test_16_bit_is_scaled_not_cut_off(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY.astype(np.uint16) * 257))
    np.testing.assert_array_equal(grey_of(read_image(path)), GREY)


def test_fewer_bits_than_the_file_are_told_once(
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


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
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
