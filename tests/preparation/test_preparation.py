"""Preparing datasets: from the user's files, from a local server, and bad input refused."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalyncd import preparation
from anomalyncd.cli import prepare as command
from anomalyncd.config import FolderBaseConfig, MtdConfig, MvtecConfig, RegionsConfig
from anomalyncd.data import datasets
from anomalyncd.errors import InputError
from anomalyncd.preparation import Report, archive, verification
from anomalyncd.preparation.archive import extract
from anomalyncd.preparation.download import fetch
from anomalyncd.preparation.layouts import BASE_CLASSES
from anomalyncd.preparation.sources import RemoteFile
from anomalyncd.regions.cropping import crop_base
from anomalyncd.storage.cache import Cache

ROOT = Path(__file__).parents[2]
CONTENT = np.random.default_rng(0).bytes(300_000)


@dataclass
class Site:
    """A server with chosen faults."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # by path
    ranges: bool = True
    breaks_after: int | None = None  # bytes of the first answer
    media_type: str = "application/octet-stream"
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            site.asked.append((self.path, wanted))
            if self.path not in site.files:
                self.send_error(404)
                return
            body, start = site.files[self.path], 0
            if wanted and site.ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", site.media_type)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            body = body[start:]
            if site.breaks_after is not None:
                body, site.breaks_after = body[: site.breaks_after], None
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield site
    server.shutdown()
    server.server_close()


def remote(*addresses: str, content: bytes | None = CONTENT) -> RemoteFile:
    known = None if content is None else hashlib.sha256(content).hexdigest()
    return RemoteFile("set.bin", addresses, known)


def test_a_download_resumes_where_an_earlier_one_stopped(site: Site, tmp_path: Path) -> None:
    site.files["/set"] = CONTENT
    (tmp_path / "set.bin.part").write_bytes(CONTENT[:100_000])
    fetch(remote(f"{site.address}/set"), tmp_path / "set.bin", quiet=True)
    assert site.asked == [("/set", "bytes=100000-")]
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert not (tmp_path / "set.bin.part").exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_resumed(site: Site, tmp_path: Path, ranges: bool) -> None:
    site.files["/set"], site.breaks_after, site.ranges = CONTENT, 70_000, ranges
    fetch(remote(f"{site.address}/set"), tmp_path / "set.bin", quiet=True)
    assert [path for path, _ in site.asked] == ["/set"] * 2
    assert site.asked[1][1] == "bytes=70000-"
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_a_complete_part_needs_no_more_bytes(site: Site, tmp_path: Path) -> None:
    site.files["/set"] = CONTENT
    (tmp_path / "set.bin.part").write_bytes(CONTENT)
    fetch(remote(f"{site.address}/set"), tmp_path / "set.bin", quiet=True)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_a_wrong_part_is_discarded_and_downloaded_again(site: Site, tmp_path: Path) -> None:
    site.files["/set"] = CONTENT
    (tmp_path / "set.bin.part").write_bytes(b"x" * 100_000)
    fetch(remote(f"{site.address}/set"), tmp_path / "set.bin", quiet=True)
    assert [wanted for _, wanted in site.asked] == ["bytes=100000-", None]
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("first", ["/gone", "/wrong"])
def test_the_next_address_is_used_if_the_first_fails(
    site: Site, tmp_path: Path, first: str
) -> None:
    site.files |= {"/set": CONTENT, "/wrong": b"something else"}
    file = remote(site.address + first, f"{site.address}/set")
    fetch(file, tmp_path / "set.bin", quiet=True)
    assert [path for path, _ in site.asked] == [first, "/set"]
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_without_a_checksum_nothing_is_mixed_from_two_addresses(site: Site, tmp_path: Path) -> None:
    site.files["/set"] = CONTENT
    (tmp_path / "set.bin.part").write_bytes(b"other")
    fetch(remote(f"{site.address}/set", content=None), tmp_path / "set.bin", quiet=True)
    assert site.asked == [("/set", None)]
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_if_no_address_works_each_is_named_with_its_reason(site: Site, tmp_path: Path) -> None:
    site.files["/wrong"] = b"something else"
    dead = "http://127.0.0.1:9/set"  # nobody listens at the discard port
    file = remote(f"{site.address}/gone", f"{site.address}/wrong", dead)
    with pytest.raises(InputError) as raised:
        fetch(file, tmp_path / "set.bin", quiet=True)
    lines = str(raised.value).splitlines()[1:]
    assert "/gone: 404" in lines[0] and "SHA-256" in lines[1] and dead in lines[2]
    assert not (tmp_path / "set.bin").exists()


def test_a_web_page_is_not_accepted_as_the_file(site: Site, tmp_path: Path) -> None:
    site.files["/set"], site.media_type = b"<p>moved</p>", "text/html; charset=utf-8"
    with pytest.raises(InputError, match="web page"):
        fetch(remote(f"{site.address}/set", content=None), tmp_path / "set.bin", quiet=True)


def test_an_existing_file_is_used_if_correct_and_never_overwritten(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "set.bin"
    path.write_bytes(CONTENT)
    fetch(remote(f"{site.address}/set"), path, quiet=True)
    path.write_bytes(b"the user's own")
    with pytest.raises(InputError, match="move it away"):
        fetch(remote(f"{site.address}/set"), path, quiet=True)
    assert path.read_bytes() == b"the user's own" and not site.asked


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for member in members:
            member.size = 3 if member.isreg() else 0
            packed.addfile(member, io.BytesIO(b"bad") if member.isreg() else None)
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "bad",
    [
        [tar_member("../evil")],
        [tar_member("a/../../evil")],
        [tar_member("/evil")],
        [tar_member("C:\\evil")],
        [tar_member("..\\evil")],
        [tar_member("a", tarfile.SYMTYPE, "/tmp"), tar_member("a/evil")],
        [tar_member("a", tarfile.SYMTYPE, "inside")],
        [tar_member("a", tarfile.LNKTYPE, "../../secret")],
        [tar_member("a", tarfile.CHRTYPE)],
        [tar_member("a", tarfile.FIFOTYPE)],
        [tar_member("a"), tar_member("a")],
    ],
    ids=lambda members: f"{members[0].name}-{members[0].type.decode()}-{len(members)}",
)
def test_a_malicious_tar_is_refused(bad: list[tarfile.TarInfo], tmp_path: Path) -> None:
    packed = tar_of(tmp_path / "bad.tar.gz", *bad)
    with pytest.raises(InputError, match="refused"):
        preparation.prepare("mvtec", packed, tmp_path / "deep" / "mvtec", quiet=True)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == [packed]


@pytest.mark.parametrize("name", ["../evil", "/evil", "C:/evil", "..\\evil", "link"])
def test_a_malicious_zip_is_refused(name: str, tmp_path: Path) -> None:
    packed = tmp_path / "bad.zip"
    member = zipfile.ZipInfo(name)
    if name == "link":
        member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(packed, "w") as out:
        out.writestr(member, "/tmp")
    with pytest.raises(InputError, match="refused"):
        extract(packed, tmp_path / "a" / "b", quiet=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [packed]


def test_an_archive_that_fills_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_ALWAYS_ALLOWED", 2_000_000)
    packed = tmp_path / "bomb.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("zeros", bytes(5_000_000))
    with pytest.raises(InputError, match="far more content"):
        extract(packed, tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "zeros").stat().st_size < 4_000_000


def test_a_damaged_archive_is_reported(tmp_path: Path) -> None:
    packed = tar_of(tmp_path / "set.tar.gz", *(tar_member(f"f{i}") for i in range(2000)))
    packed.write_bytes(packed.read_bytes()[:1500])
    with pytest.raises(InputError, match="damaged or incomplete"):
        extract(packed, tmp_path / "out", quiet=True)
    packed.write_text("no archive")
    with pytest.raises(InputError, match="no zip or tar"):
        extract(packed, tmp_path / "other", quiet=True)


def tar_bytes(count: int = 3) -> bytes:
    """A tar of files `f0`, `f1`, …: each a block of header and a block of content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        for i in range(count):
            member = tarfile.TarInfo(f"f{i}")
            member.size = tarfile.BLOCKSIZE
            packed.addfile(member, io.BytesIO(bytes([65 + i]) * member.size))
    return out.getvalue()


COMPRESSORS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "tar": bytes}


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_a_complete_tar_of_any_compression_is_unpacked(compressor: str, tmp_path: Path) -> None:
    (tmp_path / "set").write_bytes(COMPRESSORS[compressor](tar_bytes()))
    extract(tmp_path / "set", tmp_path / "out", quiet=True)
    for i in range(3):
        assert (tmp_path / "out" / f"f{i}").read_bytes() == bytes([65 + i]) * tarfile.BLOCKSIZE


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("blocks", [2, 3, 4, 5, 6])
def test_a_tar_truncated_anywhere_is_damaged(compressor: str, blocks: int, tmp_path: Path) -> None:
    """Also at a member's end, where tarfile assumes the end of the archive."""
    cut = tar_bytes()[: blocks * tarfile.BLOCKSIZE]
    (tmp_path / "set").write_bytes(COMPRESSORS[compressor](cut))
    with pytest.raises(InputError, match="set: damaged or incomplete"):
        extract(tmp_path / "set", tmp_path / "out", quiet=True)


def test_a_tar_with_a_damaged_header_is_damaged(tmp_path: Path) -> None:
    packed = bytearray(tar_bytes())
    packed[4 * tarfile.BLOCKSIZE + 150] ^= 1  # in the third member's checksum
    (tmp_path / "set").write_bytes(packed)
    with pytest.raises(InputError, match="set: damaged or incomplete"):
        extract(tmp_path / "set", tmp_path / "out", quiet=True)


@pytest.mark.parametrize("compressor", ["gz", "bz2", "xz"])
def test_a_wrong_checksum_at_the_end_is_damage(compressor: str, tmp_path: Path) -> None:
    """It is in the last bytes (CRC and length in gzip), which tarfile never reads."""
    packed = COMPRESSORS[compressor](tar_bytes() + bytes(100_000))
    flipped = bytearray(packed)
    flipped[-6 if compressor == "gz" else -5] ^= 0xFF
    for broken in (bytes(flipped), packed[:-4]):
        (tmp_path / "set").write_bytes(broken)
        with pytest.raises(InputError, match="set: damaged or incomplete"):
            extract(tmp_path / "set", tmp_path / "out", quiet=True)
        shutil.rmtree(tmp_path / "out")


def test_a_wrong_byte_in_a_zip_is_damage(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        packed.writestr("f", bytes(1000))
    raw = bytearray((tmp_path / "set.zip").read_bytes())
    raw[60] ^= 0xFF  # of the content
    (tmp_path / "set.zip").write_bytes(raw)
    with pytest.raises(InputError, match=r"set\.zip: damaged or incomplete"):
        extract(tmp_path / "set.zip", tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (errno.ENOSPC, None, "{to}: cannot be filled (No space left on device); free space there"),
        (
            errno.EACCES,
            "{to}",
            "{to}: cannot be filled (Permission denied); make its parent folder writable",
        ),
        (errno.EACCES, "{given}", "{given}: cannot be read (Permission denied); make it readable"),
    ],
)
def test_a_disk_error_names_a_path_that_the_user_knows(
    code: int, name: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the temporary folder, which is removed before the message is read."""
    names = {"given": tmp_path / "set.tar", "to": tmp_path / "data" / "mvtec"}
    names["given"].write_bytes(tar_bytes())

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code), name and name.format(**names))

    monkeypatch.setattr(archive, "_write", refuse)
    with pytest.raises(InputError) as raised:
        prepare("mvtec", names["given"], names["to"])
    assert str(raised.value).startswith(message.format(**names))
    assert "unpacked" not in str(raised.value)


def test_a_given_folder_with_links_that_lead_nowhere_is_refused(tmp_path: Path) -> None:
    category = draw_category(tmp_path / "theirs" / "a")
    image = next((category / "test" / "good").iterdir())
    image.unlink()
    image.symlink_to(tmp_path / "store" / image.name)
    with pytest.raises(InputError, match=rf"{image}: a link to a file that is missing; fetch"):
        prepare("mvtec", category, tmp_path / "mvtec")
    assert not (tmp_path / "mvtec").exists()


@pytest.mark.parametrize("name", ["mvtec", "mtd", "aebad"])
def test_an_error_about_an_archive_names_the_archive(name: str, tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_bytes(tar_bytes())
    with pytest.raises(InputError, match=rf"^{tmp_path}/set\.tar: .*; expected") as raised:
        prepare(name, tmp_path / "set.tar", tmp_path / "data" / name)
    assert "unpacked" not in str(raised.value)


def draw(path: Path, *, mask: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((32, 40), np.uint8)
    image[4:12, 6:14] = 255
    Image.fromarray(image if mask else np.stack([image] * 3, axis=2)).save(path)


def draw_category(folder: Path) -> Path:
    for i in range(3):
        draw(folder / f"train/good/{i:03}.png")
        draw(folder / f"test/dent/{i:03}.png")
        draw(folder / f"ground_truth/dent/{i:03}_mask.png", mask=True)
    draw(folder / "test/good/000.png")
    return folder


def packed(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:xz", preset=0) as out:
        out.add(folder, folder.name)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change what is published of a dataset."""

    def change(name: str, **fields: Any) -> None:
        source, layout = preparation.DATASETS[name]
        monkeypatch.setitem(preparation.DATASETS, name, (replace(source, **fields), layout))

    return change


@pytest.fixture
def two_categories(publish: Callable[..., None]) -> None:
    sizes = {"train/good": 3, "test/good": 1, "test/defects": 3}
    publish("mvtec", images={f"{name}/{key}": n for name in "ab" for key, n in sizes.items()})


def prepare(name: str, given: Path | None, target: Path) -> Report:
    return preparation.prepare(name, given, target, quiet=True)


@pytest.mark.usefixtures("two_categories")
@pytest.mark.parametrize("form", ["folder", "category", "archive", "archive in a folder"])
def test_mvtec_is_prepared_from_any_form_of_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs" / "mvtec_anomaly_detection"
    category = draw_category(theirs / "a")
    given = {"folder": theirs.parent, "category": category}.get(form)
    if given is None:
        root = category if form == "archive" else theirs
        given = packed(root, tmp_path / "theirs" / "set.tar.xz")
    before = content(tmp_path / "theirs")

    target = tmp_path / "data" / "mvtec"
    report = prepare("mvtec", given, target)
    assert report == Report(images=7, groups=3, problems=[], absent=["b"])
    assert content(tmp_path / "theirs") == before
    dataset = datasets.load(MvtecConfig(path=str(target)), "a", Cache(tmp_path / "cache"))
    ids = [sample.id for sample in dataset.samples]
    assert ids == ["dent/000", "dent/001", "dent/002", "good/000"]
    assert len(dataset.train) == 3
    assert {path.name for path in target.parent.iterdir()} == {"mvtec", ".mvtec.lock"}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a second call must do nothing")

    monkeypatch.setattr(verification, "read_image", never)
    monkeypatch.setattr(preparation, "extract", never)
    assert prepare("mvtec", given, target) == report
    assert prepare("mvtec", None, target) == report


def test_the_expected_counts_of_mvtec_are_the_published_ones() -> None:
    totals = dict.fromkeys(("train/good", "test/good", "test/defects"), 0)
    source, _ = preparation.DATASETS["mvtec"]
    for name, count in source.images.items():
        totals[name.partition("/")[2]] += count
    assert list(totals.values()) == [3629, 467, 1258]


@pytest.mark.usefixtures("two_categories")
def test_a_category_may_be_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(draw_category(tmp_path / "theirs" / "a"))
    report = prepare("mvtec", Path("."), tmp_path / "mvtec")
    assert report == Report(images=7, groups=3, problems=[], absent=["b"])


@pytest.mark.usefixtures("two_categories")
def test_an_archive_is_unpacked_once_even_if_nothing_was_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    category = draw_category(tmp_path / "theirs" / "a")
    archive = packed(category, tmp_path / "a.tar.xz")
    prepare("mvtec", category, tmp_path / "mvtec")
    report = prepare("mvtec", archive, tmp_path / "mvtec")
    monkeypatch.delattr(preparation, "extract")
    assert prepare("mvtec", archive, tmp_path / "mvtec") == report


@pytest.mark.usefixtures("two_categories")
def test_a_second_category_is_added_to_the_first(tmp_path: Path) -> None:
    target = tmp_path / "mvtec"
    for name in "ab":
        category = draw_category(tmp_path / "theirs" / name)
        report = prepare("mvtec", packed(category, tmp_path / f"{name}.tar.xz"), target)
    assert report == Report(images=14, groups=6, problems=[], absent=[])

    own = target / "a/test/dent/000.png"
    own.unlink()
    draw(own, mask=True)  # another content
    mine = own.read_bytes()
    prepare("mvtec", tmp_path / "theirs", target)
    assert own.read_bytes() == mine


@pytest.mark.usefixtures("two_categories")
def test_each_problem_is_named(tmp_path: Path) -> None:
    target = tmp_path / "mvtec"
    category = draw_category(target / "a")
    (category / "train/good/000.png").unlink()
    (category / "ground_truth/dent/001_mask.png").unlink()
    image = category / "test/good/000.png"
    image.write_bytes(image.read_bytes()[:60])
    Image.new("L", (9, 9)).save(category / "ground_truth/dent/002_mask.png")

    counted, *others = prepare("mvtec", None, target).problems
    assert counted == "a/train/good: 2 images; published: 3"
    assert len(others) == 3
    for name, reason in (
        ("test/dent/001.png", "no mask"),
        ("test/good/000.png", "cannot read"),
        ("dent/002_mask.png", "9 x 9 pixels for an image of 40 x 32"),
    ):
        assert any(name in problem and reason in problem for problem in others), name

    draw(image)
    assert len(prepare("mvtec", None, target).problems) == 3  # checked again, not remembered
    for record in ("[]", '{"archives": 3}', "null"):
        (target / ".verified.json").write_text(record)
        assert len(prepare("mvtec", None, target).problems) == 3


def test_control_characters_of_names_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command.print_report(tmp_path, Report(1, 1, ["\x1b[2J.png: no mask"], ["\x07"]))
    monkeypatch.setattr("sys.argv", ["prepare", "mvtec", "--from", "\x1b[2J", "--to", "x"])
    assert command.main() == 1
    printed = capsys.readouterr()
    assert r"\x1b[2J.png: no mask" in printed.out and r"\x1b[2J" in printed.err
    assert not {"\x1b", "\x07"} & set(printed.out + printed.err)


def test_an_interrupt_leaves_no_partial_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    category = draw_category(tmp_path / "theirs" / "a")
    link, calls = preparation._link, []

    def interrupted(file: Path, place: Path) -> None:
        calls.append(file)
        if len(calls) == 5:
            raise KeyboardInterrupt
        link(file, place)

    monkeypatch.setattr(preparation, "_link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare("mvtec", category, tmp_path / "mvtec")
    assert not (tmp_path / "mvtec").exists()
    monkeypatch.undo()
    assert prepare("mvtec", category, tmp_path / "mvtec").images == 7


def test_mtd_is_fetched_with_its_list_of_training_images(
    site: Site, tmp_path: Path, publish: Callable[..., None]
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for kind in ("MT_Fray", "MT_Free"):
            for i in range(3):
                for suffix in ("jpg", "png"):
                    path = tmp_path / f"drawn.{suffix}"
                    draw(path, mask=suffix == "png")
                    out.write(path, f"datasets.-master/{kind}/Imgs/exp{i}.{suffix}")
    names = b"exp0.jpg\nexp2.jpg\n"
    site.files |= {"/set": buffer.getvalue(), "/list": names}
    train_list = remote(f"{site.address}/list", content=names)
    publish(
        "mtd",
        archive=remote(f"{site.address}/gone", f"{site.address}/set", content=None),
        beside=(replace(train_list, name="mtd_train_filenames.txt"),),
        images={"MT_Fray": 3, "MT_Free": 3},
    )
    target = tmp_path / "data" / "mtd"
    assert prepare("mtd", None, target) == Report(images=6, groups=2, problems=[], absent=[])
    dataset = datasets.load(MtdConfig(path=str(target)), "mtd", Cache(tmp_path / "cache"))
    assert len(dataset.samples) == 4 and len(dataset.train) == 2
    asked = len(site.asked)
    prepare("mtd", None, target)
    assert len(site.asked) == asked

    (target / "mtd_train_filenames.txt").unlink()
    (target / "MT_Fray").rename(tmp_path / "away")
    problems = prepare("mtd", None, target).problems
    assert problems == [
        f"{target / 'MT_Fray'}: not found",
        f"{target / 'mtd_train_filenames.txt'}: not found; get it from {site.address}/list",
    ]


def aebad_archive(folder: Path) -> Path:
    """As published: domains in folders, one name in two of them, and what macOS adds."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "AeBAD.zip", "w") as out:
        for kind in (*BASE_CLASSES, "good"):
            for domain in ("same", "view"):
                image = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
                mask = np.zeros((48, 64), np.uint8)
                mask[2:9, 3:9] = 255
                if domain == "view":  # two defects, far apart
                    mask[40:46, 50:60] = 255
                for part, pixels in (("test", image), ("ground_truth", mask)):
                    if (part, kind) == ("ground_truth", "good"):
                        continue
                    buffer = io.BytesIO()
                    Image.fromarray(pixels).save(buffer, "png")
                    place = f"AeBAD/AeBAD_S/{part}/{kind}/{domain}"
                    out.writestr(f"{place}/IMG_1.png", buffer.getvalue())
                    out.writestr(f"{place}/._IMG_1.png", b"shadow")
                    out.writestr(f"__MACOSX/{place}/._IMG_1.png", b"shadow")
    return folder / "AeBAD.zip"


def test_aebad_becomes_a_base_set_that_a_run_crops(
    tmp_path: Path, publish: Callable[..., None]
) -> None:
    given, target = aebad_archive(tmp_path), tmp_path / "base"
    (problem,) = prepare("aebad", given, target).problems
    assert problem == "12 regions; published: 1,278"

    publish("aebad", regions=12)
    assert prepare("aebad", given, target) == Report(images=8, groups=4, problems=[], absent=[])
    cache = Cache(tmp_path / "cache")
    base = datasets.load_base(FolderBaseConfig(path=str(target)), cache)
    assert base is not None and base.labels is not None
    assert base.labels.classes == BASE_CLASSES
    assert len({sample.id for sample in base.samples}) == 8
    assert len(crop_base(base.samples, RegionsConfig(), 32, cache)) == 12

    mask = target / "masks/groove/same_IMG_1.png"
    Image.new("L", (64, 48)).save(mask)
    problems = prepare("aebad", None, target).problems
    assert problems[0] == f"{mask}: no defect is marked; remove its image"
    assert problems[1].startswith("11 regions")


def test_unusable_input_is_reported(tmp_path: Path, site: Site, publish: Callable) -> None:
    (tmp_path / "empty").mkdir()
    for name in preparation.DATASETS:
        with pytest.raises(InputError, match="empty"):
            prepare(name, tmp_path / "empty", tmp_path / "to")
    with pytest.raises(InputError, match="no such archive or folder"):
        prepare("mtd", tmp_path / "nothing", tmp_path / "to")
    with pytest.raises(InputError, match=r"MMR.*--from ARCHIVE"):
        prepare("aebad", None, tmp_path / "to")
    publish("mvtec", archive=remote(f"{site.address}/gone"))
    with pytest.raises(InputError, match=r"(?s)404.*by hand from .*mvtec-ad.*--from"):
        prepare("mvtec", None, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "prepare_data.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_command_reports_problems_and_fails(tmp_path: Path) -> None:
    given = draw_category(tmp_path / "theirs" / "screw")
    done = script(tmp_path, "mvtec", "--from", str(given))
    assert done.returncode == 1
    assert "problem: screw/train/good: 3 images; published: 320" in done.stdout
    assert "data/mvtec: 7 images in 3 groups, 3 problems" in done.stdout
    assert "CC BY-NC-SA" in done.stderr
    assert (tmp_path / "data/mvtec/screw/test/dent/000.png").is_file()

    done = script(tmp_path, "mtd", "--from", "nowhere", "--quiet")
    assert done.returncode == 1 and done.stderr.startswith("error: nowhere: no such archive")
