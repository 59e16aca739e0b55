"""Images, maps, masks and archives that no run can use, or only just."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from scripts.campaign import files
from scripts.campaign.products import HEIGHT, WIDTH, save
from scripts.campaign.trials import Expected, Given, Spoil, Trial

PHOTO, MAP = "dent/1.png", "photos/dent/1.png"


def trials() -> Iterator[Trial]:
    yield from _images()
    yield from _image_folders()
    yield from _maps()
    yield from _base_sets()
    yield from _archives()


def _images() -> Iterator[Trial]:
    def image(
        name: str, write: Callable[[Path], object], expected: Expected = "refused", suffix: str = ""
    ) -> Trial:
        def spoil(given: Given) -> None:
            path = given.product.photos / PHOTO
            path.unlink()
            write(path.with_suffix(suffix or path.suffix))

        return Trial("image", name, spoil, f"dent/1{suffix or '.png'}", expected)

    def converted(form: str, mode: str = "RGB", **options: object) -> Callable[[Path], object]:
        return lambda path: files.picture().convert(mode).save(path, form, **options)

    yield image("empty file", lambda path: path.write_bytes(b""))
    yield image("text", lambda path: path.write_text("not an image"))
    yield image("zeros", lambda path: path.write_bytes(bytes(5000)))
    yield image("random bytes", lambda path: path.write_bytes(os.urandom(5000)))
    yield image("PNG cut in half", lambda path: path.write_bytes(files.encoded("PNG")[:200]))
    yield image(
        "PNG without its end", lambda p: p.write_bytes(files.encoded("PNG")[:-14]), "either"
    )
    yield image("PNG with a wrong checksum", lambda path: path.write_bytes(files.wrong_checksum()))
    yield image("PNG header alone", lambda path: path.write_bytes(files.encoded("PNG")[:33]))
    yield image("PNG of 0 × 0 pixels", lambda path: path.write_bytes(files.png_header(0, 0)))
    yield image(
        "PNG that claims 2³¹ pixels a side", lambda p: p.write_bytes(files.png_header(2**31 - 1))
    )
    yield image("PNG of 30,000 × 30,000 pixels", lambda path: path.write_bytes(files.bomb(30_000)))
    yield image("PNG of 13,000 × 13,000 pixels", lambda path: path.write_bytes(files.bomb(13_000)))
    yield image(
        "JPEG cut in half", lambda p: p.write_bytes(files.encoded("JPEG")[:300]), suffix=".jpg"
    )
    yield image("GIF called PNG", converted("GIF"))
    yield image("EPS called PNG", lambda path: path.write_bytes(files.eps()))
    yield image("PDF called PNG", converted("PDF"))
    yield image("ICO called PNG", converted("ICO"))
    yield image("PPM called PNG", converted("PPM"))
    yield image("HEIC called PNG", lambda path: path.write_bytes(files.heic()))
    yield image("HEIC called JPEG", lambda path: path.write_bytes(files.heic()), suffix=".jpg")
    yield image("SVG called PNG", lambda path: path.write_text("<svg xmlns='x'></svg>"))
    yield image("JPEG called PNG", converted("JPEG"), "finished")
    yield image("CMYK JPEG", converted("JPEG", "CMYK"), "finished", ".jpg")
    yield image("grey PNG", converted("PNG", "L"), "finished")
    yield image("PNG of 1 bit", converted("PNG", "1"), "finished")
    yield image("PNG with a palette", converted("PNG", "P"), "finished")
    yield image("PNG with transparency", converted("PNG", "RGBA"), "finished")
    yield image("PNG of 16 bits", lambda p: save(p, files.grey(np.uint16, 60_000)), "finished")
    yield image(
        "TIFF of 32-bit integers", lambda p: save(p, files.grey(np.int32, 2**30)), suffix=".tif"
    )
    yield image("TIFF of floats", lambda p: save(p, files.grey(np.float32, 0.5)), suffix=".tif")
    yield image(
        "TIFF of three pages",
        lambda path: tifffile.imwrite(path, np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)),
        "either",
        ".tif",
    )
    yield image("animated WebP", lambda path: files.animated(path, "WEBP"), "either", ".webp")
    yield image("animated PNG", lambda path: files.animated(path, "PNG"), "either")
    yield image("image of 1 × 1 pixel", lambda p: save(p, np.zeros((1, 1, 3), np.uint8)), "either")
    yield image("image of 1 × 400 pixels", lambda p: save(p, np.zeros((1, 400, 3), np.uint8)))
    yield image("image of another aspect ratio", lambda p: save(p, np.zeros((64, 20, 3), np.uint8)))
    yield image("folder called PNG", lambda path: path.mkdir(), "either")
    yield image("link to nothing", lambda path: path.symlink_to("nothing.png"))
    yield image("link to itself", lambda path: path.symlink_to(path.name))
    yield image("link to a folder", lambda path: path.symlink_to("/"), "either")
    yield image("link to an endless device", lambda path: path.symlink_to("/dev/zero"), "either")
    yield image("named pipe", lambda path: os.mkfifo(path), "either")


def _image_folders() -> Iterator[Trial]:
    def folder(
        name: str, spoil: Spoil, names: str = "photos", expected: Expected = "refused"
    ) -> Trial:
        return Trial("image folder", name, spoil, names, expected)

    def one_image(given: Given) -> None:
        for path in sorted(given.product.photos.rglob("*.png"))[1:]:
            path.unlink()

    def emptied(given: Given) -> None:
        shutil.rmtree(given.product.photos)
        given.product.photos.mkdir()

    def file_instead(given: Given) -> None:
        shutil.rmtree(given.product.photos)
        given.product.photos.write_bytes(b"")

    def one_class(given: Given) -> None:
        for kind in ("dent", "stripe"):
            shutil.rmtree(given.product.photos / kind)

    def two_of_one_name(given: Given) -> None:
        path = given.product.photos / PHOTO
        files.picture().save(path.with_suffix(".jpg"))

    def removed(given: Given) -> None:
        shutil.rmtree(given.product.photos)

    def odd_name(given: Given) -> None:
        for root in (given.product.photos, given.product.maps / "photos"):
            (root / PHOTO).rename(root / "dent" / os.fsdecode(b"caf\xe9\x1b[31m\n.png"))

    def nested(given: Given) -> None:
        below = given.product.photos / "dent" / "more"
        below.mkdir()
        (given.product.photos / PHOTO).rename(below / "1.png")

    def hidden(given: Given) -> None:
        (given.product.photos / "dent" / "._1.png").write_bytes(b"macOS")
        (given.product.photos / "Thumbs.db").write_bytes(b"Windows")

    yield folder("not there", removed)
    yield folder("empty", emptied)
    yield folder("a file instead", file_instead)
    yield folder("one image", one_image, "only image")
    yield folder("one class folder", one_class, "class folder")
    yield folder("two images of one name", two_of_one_name, "1.jpg")
    yield folder("name that is no Unicode, with control characters", odd_name, "", "either")
    yield folder("images one level too deep", nested, "", "either")
    yield folder("clutter of other systems", hidden, "", "same")
    yield folder("mistyped path", lambda _: ["dataset.path=product/photo"], "photo")
    yield folder("path that is too long", lambda _: [f"dataset.path={'x' * 5000}"], "xxx")
    yield folder("category that leads elsewhere", lambda _: ["category=../x"], "category")
    raw = ["category=raw", "detector.path=product/maps/photos"]
    yield folder("category called raw", lambda _: raw, "", "finished")
    yield folder("category of 300 letters", lambda _: [f"category={'k' * 300}"], "", "either")


def _maps() -> Iterator[Trial]:
    def one_map(
        name: str, write: Callable[[Path], object], expected: Expected = "refused", suffix: str = ""
    ) -> Trial:
        def spoil(given: Given) -> None:
            path = given.product.maps / MAP
            path.unlink()
            write(path.with_suffix(suffix or path.suffix))

        return Trial("anomaly map", name, spoil, "dent/1", expected)

    def array(value: NDArray) -> Callable[[Path], object]:
        return lambda path: np.save(path, value)

    def all_maps(name: str, convert: Callable[[NDArray], NDArray], expected: Expected) -> Trial:
        def spoil(given: Given) -> None:
            for path in (given.product.maps / "photos").rglob("*.png"):
                np.save(path.with_suffix(".npy"), convert(np.asarray(Image.open(path))))
                path.unlink()

        return Trial("anomaly maps", name, spoil, "", expected)

    plain = np.zeros((HEIGHT, WIDTH))
    yield one_map("not there", lambda path: None)
    yield one_map("empty file", lambda path: path.write_bytes(b""))
    yield one_map("random bytes", lambda path: path.write_bytes(os.urandom(3000)))
    yield one_map("colour picture", lambda path: files.picture().save(path))
    yield one_map("EPS called PNG", lambda path: path.write_bytes(files.eps()))
    yield one_map(
        "PNG of 30,000 × 30,000 pixels", lambda path: path.write_bytes(files.bomb(30_000))
    )
    yield one_map("another aspect ratio", lambda path: save(path, np.zeros((80, 20), np.uint8)))
    yield one_map("other type than the rest", array(plain.astype(np.float32)), suffix=".npy")
    yield one_map("npy of objects", lambda path: files.planted_npy(path), suffix=".npy")
    yield one_map("npy of text", array(np.array([["a", "b"]])), suffix=".npy")
    yield one_map("npy of complex numbers", array(plain.astype(complex)), suffix=".npy")
    yield one_map("npy cut short", lambda p: p.write_bytes(files.npy(plain)[:300]), suffix=".npy")
    yield one_map(
        "npy that claims 10¹⁸ numbers", lambda p: p.write_bytes(files.npy_claim()), suffix=".npy"
    )
    yield one_map("npy of three dimensions", array(np.zeros((5, 6, 7))), suffix=".npy")
    yield one_map("npy of no dimension", array(np.array(1.0)), suffix=".npy")
    yield one_map("npy of no pixel", array(np.zeros((0, 5))), suffix=".npy")
    yield one_map("npz of two arrays", lambda p: np.savez(p, a=plain, b=plain), suffix=".npz")
    yield one_map("npz that is no zip", lambda path: path.write_bytes(b"PK\3\4"), suffix=".npz")
    yield one_map(
        "TIFF cut short", lambda path: path.write_bytes(files.tiff()[:200]), suffix=".tiff"
    )
    yield one_map("link to nothing", lambda path: path.symlink_to("nothing"))
    yield all_maps("NaN", lambda scores: np.full(scores.shape, np.nan), "refused")
    yield all_maps("infinite", lambda scores: np.where(scores > 99, np.inf, 0.0), "refused")
    yield all_maps("1e308 and −1e308", lambda s: np.where(s > 99, 1e308, -1e308), "either")
    yield all_maps("constant", lambda scores: np.zeros(scores.shape), "refused")
    yield all_maps("booleans", lambda scores: scores > 99, "either")
    yield all_maps("64-bit integers", lambda scores: scores.astype(np.int64) * 2**40, "either")
    yield all_maps("float16", lambda scores: scores.astype(np.float16), "finished")
    yield all_maps("denormal", lambda scores: scores.astype(np.float64) * 1e-310, "either")

    def note(name: str, text: str, expected: Expected = "refused") -> Trial:
        def spoil(given: Given) -> None:
            (given.product.maps / "maps.json").write_text(text)

        return Trial("maps.json of foreign maps", name, spoil, "maps.json", expected)

    yield note("empty", "")
    yield note("no JSON", "{")
    yield note("a list", "[]", "either")
    yield note("without its key", "{}", "either")
    yield note("range as text", '{"raw_range": "ab"}')
    yield note("range of one number", '{"raw_range": [1]}')
    yield note("range of three numbers", '{"raw_range": [0, 1, 2]}')
    yield note("range of lists", '{"raw_range": [[], {}]}')
    yield note("range of NaN", '{"raw_range": [NaN, NaN]}')
    yield note("range of infinite numbers", '{"raw_range": [-Infinity, Infinity]}')
    yield note("range upside down", '{"raw_range": [1, 0]}')
    yield note("range of 1e308", '{"raw_range": [-1e308, 1e308]}', "either")
    yield note("nested 100,000 deep", "[" * 100_000)
    yield note("binary", "\x00\x01\udc80".encode("utf-8", "surrogatepass").decode("latin-1"))


def _base_sets() -> Iterator[Trial]:
    def base(name: str, spoil: Callable[[Path], object], names: str = "defects") -> Trial:
        def of_given(given: Given) -> list[str]:
            spoil(given.product.root / "defects")
            return ["base=folder", "base.path=product/defects"]

        return Trial("base set", name, of_given, names)

    mask = Path("masks", "hole", "1.png")
    yield base("not there", lambda root: shutil.rmtree(root))
    yield base("without masks", lambda root: shutil.rmtree(root / "masks"))
    yield base("without images", lambda root: shutil.rmtree(root / "images"))
    yield base("one mask missing", lambda root: (root / mask).unlink())
    yield base("empty mask", lambda r: save(r / mask, np.zeros((HEIGHT, WIDTH), np.uint8)), "1.png")
    yield base("mask of another size", lambda r: save(r / mask, np.full((9, 9), 255, np.uint8)))
    yield base("mask too dark", lambda r: save(r / mask, np.ones((HEIGHT, WIDTH), np.uint8)))
    yield base("mask that is text", lambda root: (root / mask).write_text("no"))

    def folder_instead(root: Path) -> None:
        (root / mask).unlink()
        (root / mask).mkdir()

    def link_to_nothing(root: Path) -> None:
        (root / mask).unlink()
        (root / mask).symlink_to("nothing")

    yield base("mask that is a folder", folder_instead)
    yield base("mask that links to nothing", link_to_nothing)


def _only(_: object) -> None:
    """For its effect."""


def _archives() -> Iterator[Trial]:
    def archive(name: str, file: str, write: Callable[[Path], object], names: str = "") -> Trial:
        return Trial(
            "archive", name, lambda given: _only(write(given.work / file)), names or file,
            script="scripts/prepare_data.py",
            settings=("mvtec", "--from", file, "--to", "data", "--quiet"),
        )  # fmt: skip

    yield archive("not there", "a.tar", lambda path: None)
    yield archive("empty file", "a.tar", lambda path: path.write_bytes(b""))
    yield archive("random bytes", "a.tar.gz", lambda path: path.write_bytes(os.urandom(9000)))
    yield archive(
        "zip of something else", "a.zip", lambda path: files.zip(path, "x.txt"), "no MVTec AD"
    )
    yield archive("zip with ../", "a.zip", lambda path: files.zip(path, "../out.png"))
    yield archive("zip with an absolute path", "a.zip", lambda path: files.zip(path, "/out.png"))
    yield archive("zip cut short", "a.zip", lambda path: files.cut(path, files.zip, 0.6))
    yield archive("zip with a name twice", "a.zip", lambda p: files.zip(p, "x/1.png", "x/1.png"))
    yield archive("tar with a link", "a.tar", lambda path: files.tar(path, link="/etc/passwd"))
    yield archive("tar with a device", "a.tar", lambda path: files.tar(path, device=True))
    yield archive("tar with ../", "a.tar", lambda path: files.tar(path, name="../out.png"))
    yield archive("tar cut in a member", "a.tar", lambda path: files.cut(path, files.tar, 0.5))
    yield archive("tar cut at a member's end", "a.tar", files.cut_at_member)
    yield archive("gzip with a wrong checksum", "a.tar.gz", files.wrong_gzip)
    yield archive("gzip cut short", "a.tar.gz", lambda path: files.cut(path, files.tar_gz, 0.7))
