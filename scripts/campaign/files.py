"""Files that are damaged, mislabelled or malicious."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from scripts.campaign.products import HEIGHT, WIDTH

EXECUTED = "executed"  # the file that planted code would make


def picture() -> Image.Image:
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8))


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, form)
    return buffer.getvalue()


def grey(dtype: type, value: float) -> NDArray:
    pixels: NDArray = np.zeros((HEIGHT, WIDTH), dtype)
    pixels[10:30, 10:30] = value
    return pixels


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_header(width: int, height: int | None = None) -> bytes:
    size = struct.pack(">IIBBBBB", width, width if height is None else height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size)


def bomb(side: int) -> bytes:
    """A valid PNG, a hundred thousand times smaller than its pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return png_header(side) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def wrong_checksum() -> bytes:
    content = bytearray(encoded("PNG"))
    at = content.index(b"IDAT") + 40
    content[at] ^= 0xFF
    return bytes(content)


def eps() -> bytes:
    """PostScript that would leave a file, if anything interpreted it."""
    code = f"({EXECUTED}) (w) file dup (x) writestring closefile showpage"
    return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n{code}\n".encode()


def heic() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)


def animated(path: Path, form: str) -> None:
    frames = [picture(), picture().rotate(180)]
    frames[0].save(path, form, save_all=True, append_images=frames[1:], lossless=True)


def npy(array: NDArray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_claim() -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000000), }"
    header = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


class Planted:
    """Pickled, it is a call that leaves a file."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.system, (f"touch {EXECUTED}",)


def planted_npy(path: Path) -> None:
    np.save(path, np.array([[Planted()]], object), allow_pickle=True)


def planted_pickle(path: Path) -> None:
    torch.save({"a": Planted()}, path)


def tiff() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((HEIGHT, WIDTH), np.float32))
    return buffer.getvalue()


def zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name twice
        for name in names or ("screw/test/good/0.png", "screw/test/dent/0.png"):
            packed.writestr(name, encoded("PNG"))


def tar(
    path: Path,
    *,
    name: str = "",
    link: str = "",
    device: bool = False,
    mode: Literal["w", "w:gz"] = "w",
) -> None:
    with tarfile.open(path, mode) as packed:
        for plain in ("screw/test/good/0.png", "screw/test/dent/0.png", "screw/test/dent/1.png"):
            content = encoded("PNG")
            member = tarfile.TarInfo(plain)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        odd = tarfile.TarInfo(name or "screw/odd.png")
        if link:
            odd.type, odd.linkname = tarfile.SYMTYPE, link
        elif device:
            odd.type, odd.devmajor, odd.devminor = tarfile.CHRTYPE, 1, 5
        if link or device or name:
            packed.addfile(odd, io.BytesIO())


def tar_gz(path: Path) -> None:
    tar(path, mode="w:gz")


def cut(path: Path, write: Callable[[Path], object], share: float) -> None:
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content.rstrip(b"\0")))])


def cut_at_member(path: Path) -> None:
    tar(path)
    with tarfile.open(path) as packed:
        end = packed.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[:end])


def wrong_gzip(path: Path) -> None:
    tar_gz(path)
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF
    path.write_bytes(bytes(content))
