"""The mistakes of a first-time user of `anomalyncd discover`: each is answered by one message with
the command that works, before torch is loaded, or simply works."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyncd.cli import discover
from anomalyncd.cli.discover import UnusablePhotographs, settled
from anomalyncd.cli.discover.check import Request, check
from anomalyncd.config import Config
from anomalyncd.data import photographs
from anomalyncd.errors import InputError
from anomalyncd.inputs import find_images
from anomalyncd.storage.cache import Cache

ROOT = Path(__file__).parents[2]


@dataclass
class Mistake:
    """A command as typed in the folder of `photos`, and the answer."""

    prepare: Callable[[], object]
    arguments: str
    says: tuple[str, ...] = ()  # parts of the error; none: it works
    nearest: str = ""  # the command that is offered; "": none
    images: int = 0  # if it works: how many photographs are used
    notes: str = ""  # part of what is noted


def picture(path: str, seed: int, size: tuple[int, int] = (48, 40)) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)


def pile(folder: str = "photos", count: int = 8, suffix: str = ".png") -> None:
    start = sum(map(ord, folder))
    for number in range(count):
        picture(f"{folder}/{number}{suffix}", start + number)


def of_others(*names: str) -> None:
    Path("photos").mkdir()
    for name in names:
        Path("photos", name).write_bytes(b"GIF89a")


def data_set(folder: str) -> None:
    pile(f"{folder}/test/scratch")
    pile(f"{folder}/train/good")
    pile(f"{folder}/ground_truth/scratch")


def corrupt() -> None:
    pile()
    whole = Path("photos/3.png").read_bytes()
    Path("photos/3.png").write_bytes(whole[: len(whole) // 2])
    Path("photos/5.png").write_bytes(b"")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save("photos/6.jpg")
    Path("photos/6.png").unlink()
    os.truncate("photos/6.jpg", 600)


def identical() -> None:
    pile(count=1)
    for number in range(1, 6):
        shutil.copy("photos/0.png", f"photos/{number}.png")


def of_all_kinds() -> None:
    pile(count=4)
    Image.fromarray(np.zeros((40, 40, 4), np.uint8), "RGBA").save("photos/alpha.png")
    Image.fromarray(np.full((40, 40), 50_000, np.uint16)).save("photos/16.png")
    Image.fromarray(np.zeros((40, 40), np.uint8)).convert("P").save("photos/palette.png")


def with_litter() -> None:
    pile()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        Path("photos", name).write_bytes(b"litter")
    Path("photos/__MACOSX").mkdir()
    Path("photos/__MACOSX/0.png").write_bytes(b"litter")


def with_results_inside() -> None:
    pile()
    pile("photos/outputs/cache/maps-1/screw")
    pile("photos/outputs/cache/demo-2")


def with_a_link_in_a_circle() -> None:
    pile("photos/a")
    Path("photos/a/again").symlink_to(Path("photos").absolute(), target_is_directory=True)


def both(*steps: Callable[[], object]) -> Callable[[], object]:
    return lambda: [step() for step in steps]


MISTAKES = {
    "one level too high": Mistake(lambda: pile("photos/batch 1/raw"), "photos", images=8),
    "a whole benchmark": Mistake(
        lambda: data_set("mvtec/screw"),
        "mvtec",
        ("holds 1 data sets (screw); expected photographs of one product",),
        "anomalyncd discover mvtec/screw/test --good mvtec/screw/train/good",
    ),
    "the layout of MVTec AD": Mistake(
        lambda: data_set("screw"),
        "screw",
        ("screw is in the layout of MVTec AD", "not a pile of photographs"),
        "anomalyncd discover screw/test --good screw/train/good",
    ),
    "a flat test folder": Mistake(
        both(lambda: pile("screw/test"), lambda: pile("screw/train")),
        "screw --classes 3",
        ("screw is in the layout of MVTec AD",),
        "anomalyncd discover screw/test --good screw/train --classes 3",
    ),
    "only test": Mistake(lambda: pile("screw/test"), "screw", images=8),
    "HEIC and GIF only": Mistake(
        lambda: of_others("a.HEIC", "b.heic", "c.gif"),
        "photos",
        ("found 2 .heic files, 1 .gif file", "convert them: magick mogrify"),
    ),
    "a GIF among others": Mistake(
        both(pile, lambda: Path("photos/x.gif").write_bytes(b"GIF89a")),
        "photos",
        images=8,
        notes="1 .gif file not read; convert them to PNG or JPEG",
    ),
    "a GIF called PNG": Mistake(
        both(pile, lambda: Path("photos/x.png").write_bytes(b"GIF89a")),
        "photos",
        ("x.png: a GIF under the name .png; convert it",),
        "anomalyncd discover photos --skip-unreadable",
    ),
    "one image": Mistake(
        lambda: pile(count=1),
        "photos",
        (
            "photos: 1 photograph that can be read; expected at least 5",
            "or known-good ones: --good",
        ),
    ),
    "two images and known-good ones": Mistake(
        both(lambda: pile(count=2), lambda: pile("good")), "photos --good good", images=2
    ),
    "50 classes for 20 images": Mistake(
        lambda: pile(count=20),
        "photos --classes 50",
        ("--classes 50 for 20 photographs", "so at most 10"),
        "anomalyncd discover photos",
    ),
    "one class": Mistake(
        pile,
        "photos --classes 1",
        ("--classes 1: expected a whole number from 2", "without --classes it is estimated"),
        "anomalyncd discover photos",
    ),
    "classes in words": Mistake(
        pile, "photos --classes five", ("--classes five: expected",), "anomalyncd discover photos"
    ),
    "corrupt ones among good ones": Mistake(
        corrupt,
        "photos",
        ("photos/3.png: cannot read this image", "photos/5.png", "photos/6.jpg"),
        "anomalyncd discover photos --skip-unreadable",
    ),
    "corrupt ones left out": Mistake(
        corrupt,
        "photos --skip-unreadable",
        images=5,
        notes="left out, since they cannot be read: 3",
    ),
    "an empty folder": Mistake(
        lambda: Path("photos").mkdir(), "photos", ("no photographs", "the folder is empty")
    ),
    "a photograph": Mistake(
        pile,
        "photos/0.png",
        ("PHOTOS photos/0.png is one image; expected the folder of all",),
        "anomalyncd discover photos",
    ),
    "an archive": Mistake(
        lambda: Path("photos.tar.gz").write_bytes(b"\x1f\x8b"),
        "photos.tar.gz",
        ("photos.tar.gz is an archive; unpack it and give its folder",),
        "anomalyncd discover photos",
    ),
    "a typing error": Mistake(
        lambda: pile("bilder/photos"),
        "bilder/fotos --classes 3",
        ("PHOTOS bilder/fotos: no such folder; did you mean bilder/photos?",),
        "anomalyncd discover bilder/photos --classes 3",
    ),
    "a typing error above": Mistake(
        lambda: pile("bilder/photos"),
        "bidler/photos",
        ("did you mean bilder/photos?",),
        "anomalyncd discover bilder/photos",
    ),
    "good ones inside": Mistake(
        both(pile, lambda: pile("photos/good", 3)),
        "photos --good photos/good",
        images=8,
        notes="photos/good lies in PHOTOS: its photographs count as known-good only",
    ),
    "good ones are the same folder": Mistake(
        pile,
        "photos --good ./photos/",
        ("--good photos is PHOTOS itself",),
        "anomalyncd discover photos",
    ),
    "no good ones": Mistake(
        both(pile, lambda: Path("good").mkdir()), "photos --good good", ("--good good: no images",)
    ),
    "both paths wrong, and the number": Mistake(
        lambda: (pile("a/photos"), pile("a/good")),
        "a/photo --good a/goood --classes 0",
        (
            "PHOTOS a/photo: no such folder",
            "--good a/goood: no such folder",
            "--classes 0: expected",
        ),
        "anomalyncd discover a/photos --good a/good",
    ),
    "sizes of all kinds": Mistake(
        both(pile, lambda: picture("photos/x.png", 9, (300, 60))), "photos", images=9
    ),
    "masks inside": Mistake(
        both(pile, lambda: pile("photos/ground_truth/a", 3), lambda: pile("photos/masks", 2)),
        "photos",
        images=8,
        notes="photos/ground_truth: 3 images left out, since a folder of this name holds masks",
    ),
    "masks beside the photographs": Mistake(
        both(pile, lambda: pile(suffix=".jpg")),
        "photos",
        ("0.jpg and 0.png have the same name (8 such pairs)", "if one of them is a mask"),
    ),
    "all the same picture": Mistake(
        identical, "photos", ("all 6 photographs show the same picture",)
    ),
    "a few copies": Mistake(
        both(pile, lambda: shutil.copy("photos/0.png", "photos/copy.png")),
        "photos",
        images=9,
        notes="1 photograph is a copy of another",
    ),
    "previews": Mistake(
        lambda: [picture(f"photos/{n}.png", n, (8, 8)) for n in range(6)],
        "photos",
        ("6 of 6 photographs are too small", "8 × 8 pixels; expected at least 32"),
    ),
    "alpha, 16 bits, palette": Mistake(of_all_kinds, "photos", images=7),
    "litter of operating systems": Mistake(with_litter, "photos", images=8),
    "odd names": Mistake(
        lambda: pile("my, photos/Größe=2 'x'"), "\"my, photos/Größe=2 'x'\"", images=8
    ),
    "a path with a space, without quotes": Mistake(
        lambda: pile("my photos"),
        "my photos",
        ("photos: expected one folder", 'did you mean "my photos"?'),
    ),
    "an address": Mistake(
        lambda: None,
        "https://example.org/photos",
        ("PHOTOS is an address", "download the photographs and give their folder"),
        "anomalyncd discover photographs",
    ),
    "a home folder in quotes": Mistake(lambda: pile("home/photos"), "'~/photos'", images=8),
    "quotes within quotes": Mistake(pile, "\"'photos'\"", images=8),
    "results inside": Mistake(with_results_inside, "photos output_root=photos/outputs", images=8),
    "a link in a circle": Mistake(with_a_link_in_a_circle, "photos", images=8),
    "a short option": Mistake(pile, "photos --class 3", images=8),
    "a wrong option": Mistake(
        pile, "photos --clases 3", ("--clases: no such option; did you mean --classes?",)
    ),
    "no photographs at all": Mistake(
        lambda: None, "--good good", ("no PHOTOS; expected a folder",)
    ),
    "a wrong setting and a wrong path": Mistake(
        lambda: pile("photos"),
        "fotos train.epohcs=3",
        ("did you mean train.epochs", "PHOTOS fotos: no such folder"),
        "anomalyncd discover photos train.epohcs=3",
    ),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a home folder in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained_or_harmless(
    name: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake = MISTAKES[name]
    mistake.prepare()
    seen: list[tuple[Config, str]] = []

    def found(request: Request) -> None:
        notes: list[str] = []
        seen.append((settled(request, notes.append)[0], "\n".join(notes)))

    monkeypatch.setattr(sys, "argv", ["anomalyncd discover", *shlex.split(mistake.arguments)])
    monkeypatch.setattr(discover, "_discover", watched(found))
    try:
        status = discover.main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    shown = capsys.readouterr().err
    if not mistake.says:
        assert status == 0, shown
        ((config, notes),) = seen
        dataset = find_images(config, Cache(here / "cache"))
        assert len(dataset.samples) == mistake.images
        assert mistake.notes in notes
        return
    assert status != 0
    for part in mistake.says:
        assert part in shown
    offered = [line for line in shown.splitlines() if line.startswith("try: ")]
    assert offered == [f"try: {mistake.nearest}"] * bool(mistake.nearest)
    others = [line for line in shown.splitlines() if not line.startswith("try: ")]
    assert all(line.startswith("error: ") for line in others)
    assert "dataset." not in shown and "novel_classes" not in shown


def watched(found: Callable[[Request], None]) -> Callable[[Request], None]:
    def instead(request: Request) -> None:
        try:
            found(request)
        except UnusablePhotographs as error:
            discover._print_problems(error.checked)

    return instead


@pytest.mark.parametrize("name", [name for name, m in MISTAKES.items() if m.nearest])
def test_the_command_that_is_offered_works(name: str, here: Path) -> None:
    mistake = MISTAKES[name]
    mistake.prepare()
    words = shlex.split(mistake.nearest)
    assert words[:2] == ["anomalyncd", "discover"]
    if name in ("an archive", "an address", "a wrong setting and a wrong path"):
        return  # works once the user has unpacked, downloaded or corrected the setting
    request = discover._parsed(words[2:])
    assert not check(request).problems


def test_a_mistake_is_found_before_torch_is_loaded(here: Path) -> None:
    corrupt()
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom anomalyncd.cli.main import main\n"
        "sys.exit(main(['discover', 'photos', '--classes', 'five']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 4 and "try: " in done.stderr


def test_a_folder_that_may_not_be_read_is_reported(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pile()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    (problem,) = check(Request("photos")).problems
    assert problem.startswith("PHOTOS photos: cannot be read (Permission denied); make it readable")


def test_a_photograph_that_may_not_be_read_is_reported(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pile()
    opened = Path.open

    def closed(self: Path, *given: object, **named: object) -> object:
        if self.name == "3.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *given, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", closed)
    found = check(Request("photos"))
    assert found.problems == ["photos/3.png: cannot be read (Permission denied); make it readable"]
    assert found.nearest.command == "anomalyncd discover photos --skip-unreadable"


def test_a_pile_is_limited(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pile()
    monkeypatch.setattr(photographs, "MOST", 7)
    with pytest.raises(InputError, match="more than 7 images; expected the photographs of one"):
        photographs.find(Path("photos"))


def test_sub_folders_are_labels_only_if_asked(here: Path) -> None:
    pile("photos/good", 4)
    pile("photos/cut", 4)
    for labels in (False, True):
        config, _ = settled(Request("photos", classes=2, labels_from_folders=labels))
        dataset = find_images(config, Cache(here / "cache"))
        assert (dataset.labels is not None) == labels
        assert {sample.id for sample in dataset.samples} >= {"good/0", "cut/3"}


def test_messages_from_a_run_name_options(capsys: pytest.CaptureFixture[str]) -> None:
    for message, shown in (
        (
            "novel_classes=50, but only 20; lower novel_classes",
            "--classes 50, but only 20; lower --classes",
        ),
        ("set dataset.good=FOLDER", "set --good FOLDER"),
        ("check dataset.path and more", "check PHOTOS and more"),
    ):
        with pytest.raises(InputError) as raised, discover.in_words_of_discover():
            raise InputError(message)
        assert str(raised.value) == shown
