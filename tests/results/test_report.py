from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomalyncd.results.overlay import heat_overlay, normalise, outline, region_heat
from anomalyncd.results.report import MAX_TILES, ReportData, write_report
from anomalyncd.types import UNLABELLED, Box, Labels, Regions, ResizeMode, Sample

CLASSES = ("good", "scratch", "Fleck ü")
SIDE, HEIGHT, WIDTH = 32, 60, 90
VOID = {"meta", "img", "wbr", "br"}


class Page(HTMLParser):
    """Parses the page, rejects unbalanced tags and keeps what the tests need."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.pictures: list[str] = []
        self.table: list[list[str]] = []  # body of the confusion matrix
        self.text = ""
        self._in_matrix = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids.add(attributes.get("id") or "")
        self.targets += [attributes[a] or "" for a in ("src", "href") if a in attributes]
        if tag == "img":
            self.pictures.append(attributes["src"] or "")
        if tag == "table":
            self._in_matrix = attributes.get("class") == "confusion"
        if self._in_matrix and tag == "tr":
            self.table.append([])
        if self._in_matrix and tag in ("td", "th"):
            self.table[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"unbalanced </{tag}> at {self.getpos()}"
        if tag == "table":
            self._in_matrix = False

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self._in_matrix and self.open[-1] in ("td", "th", "span"):
            self.table[-1][-1] += data.strip()


def make_report_data(n: int = 12, noise: bool = False) -> ReportData:
    """One region per image; image i has true class i % 3, discovered as classes 2, 0, 1."""
    rng = np.random.default_rng(0)
    side = 256 if noise else SIDE
    if noise:
        images = rng.integers(0, 256, (n, side, side, 3), np.uint8)
    else:
        ramp = np.linspace(40, 200, side).astype(np.uint8)
        images = np.broadcast_to(ramp[:, None], (n, side, side, 3))
    masks = np.zeros((n, side, side), np.uint8)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = 255
    truth = np.arange(n) % 3
    found = np.array([2, 0, 1])[truth]
    confidence = rng.uniform(0.4, 1, n)
    scores = {"nmi": 0.5312, "ari": -0.0271, "f1": 0.7125}
    return ReportData(
        title="screw",
        subtitle="demo",
        warnings=(),
        notes=("Maps are simulated.",),
        metrics={
            "scores": {"image": scores, "region": dict(scores, nmi=0.4444)},
            "counts": {"images": n, "regions": n, "novel_classes": 3},
            "seconds": {"maps": 0.25, "train": 3661.0},
            "detection": {"image_auroc": None, "aupro": 0.9214, "fpr": 0.268, "fnr": 0.042},
            "mebin": {"search_range": [10, 200]},
            "head": 1,
            "seed": 3407,
            "versions": {"torch": "9.9"},
            "device": "cpu",
        },
        config_yaml="train:\n  epochs: 50\n",
        samples=tuple(Sample(f"{CLASSES[t]}/{i:03}", Path("x.png")) for i, t in enumerate(truth)),
        labels=Labels(CLASSES, truth, normal=0),
        regions=Regions(
            images=images,
            masks=masks,
            image_index=np.arange(n),
            boxes=np.tile([10, 10, 40, 40], (n, 1)),
            areas=np.full(n, 64),
            scores=np.ones(n),
            image_sizes=np.tile([HEIGHT, WIDTH], (n, 1)),
        ),
        region_targets=truth,
        maps=[rng.integers(0, 256, (20, 20), np.uint8)] * n,
        region_class=found,
        region_confidence=confidence,
        image_class=found.copy(),
        image_confidence=confidence,
        class_names=("scratch", "Fleck ü", "good"),
        matching=np.array([1, 2, 0]),
        resize_mode="letterbox",
    )


UNKNOWN: dict[str, None] = {"labels": None, "region_targets": None}


def written(tmp_path: Path, data: ReportData) -> Page:
    path = tmp_path / "report.html"
    write_report(path, data)
    return Page(path)


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    page = written(tmp_path, make_report_data())
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", page.source)
    for target in page.targets:
        assert target.startswith("data:image/jpeg;base64,") or target[1:] in page.ids
    for picture in page.pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))) as image:
            image.load()
            assert image.width == 2 * image.height


def test_the_page_shows_the_results(tmp_path: Path) -> None:
    page = written(tmp_path, replace(make_report_data(), warnings=("Untrained backbone!",)))
    assert len(page.pictures) == 12
    for fact in ("Untrained backbone!", "0.531", "-0.027", "0.713", "0.444", "1 h 01 min"):
        assert fact in page.text
    for fact in ("Fleck ü/002", "Maps are simulated.", "epochs: 50", "torch", "9.9", "3407"):
        assert fact in page.text
    assert "✗" not in page.text.split("beside the defect.")[1], "all regions are correct"
    for shown in ("AUPRO", "0.921", "false alarms", "0.268", "defective images missed", "0.042"):
        assert shown in page.text
    assert "image AUROC" not in page.text  # it is None


def test_noise_stays_within_the_budget_and_shows_every_region(tmp_path: Path) -> None:
    page = written(tmp_path, make_report_data(MAX_TILES, noise=True))
    assert len(page.pictures) == MAX_TILES
    assert len(page.source.encode()) < 10e6


def test_too_many_regions_are_shown_from_both_ends(tmp_path: Path) -> None:
    """Classes of 700, 300 and 3 regions: all 3 are shown, the others share the rest."""
    n = 1003
    data = make_report_data(n)
    sizes = np.repeat([0, 1, 2], [700, 300, 3])
    confidence = np.linspace(0, 1, n)
    page = written(
        tmp_path,
        replace(data, region_class=sizes, region_confidence=confidence, **UNKNOWN),
    )
    assert len(page.pictures) == 3 + 248 + 248
    assert "452 regions of medium confidence" in page.text
    assert "52 regions of medium confidence" in page.text
    for shown in (0, 123, 576, 699, 700, 999, 1000, 1001, 1002):
        assert f"#{shown}<" in page.source
    for hidden in (124, 575, 850):
        assert f"#{hidden}<" not in page.source


@pytest.mark.parametrize("scores", [None, {"image": None, "region": None}])
def test_the_page_works_without_labels(tmp_path: Path, scores: dict[str, None] | None) -> None:
    data = make_report_data()
    page = written(
        tmp_path,
        replace(
            data,
            **UNKNOWN,
            matching=np.full(3, -1),
            metrics={"mebin": {"search_range": [10, 200]}, "scores": scores},
        ),
    )
    assert "no labels" in page.text
    assert len(page.pictures) == 12
    assert not page.table
    assert "✓" not in page.text and "unmatched" not in page.text and "normal" not in page.text


def test_confusion_matrix(tmp_path: Path) -> None:
    """4 images per class; one scratch is predicted as good, one Fleck has no label."""
    data = make_report_data()
    assert data.labels
    image_class, targets = data.image_class.copy(), data.labels.targets.copy()
    image_class[1], targets[2] = 2, UNLABELLED
    page = written(
        tmp_path,
        replace(
            data,
            image_class=image_class,
            labels=replace(data.labels, targets=targets),
            region_targets=targets,
        ),
    )
    head, *rows, foot = page.table
    assert head[1:] == ["good", "scratch", "Fleck ü", "recall"]
    assert rows == [
        ["good", "4", "0", "0", "100 %"],
        ["scratch", "1", "3", "0", "75 %"],
        ["Fleck ü", "0", "0", "3", "100 %"],
    ]
    assert foot[:4] == ["precision", "80 %", "100 %", "100 %"]
    assert "over 11 labelled images" in page.text
    assert "3 of 3 labelled regions are truly Fleck ü" in page.text


def test_unmatched_classes_come_last_and_are_never_correct(tmp_path: Path) -> None:
    """Unlabelled images have the same -1 as an unmatched class."""
    data = make_report_data()
    targets = np.where(np.arange(12) % 3 == 1, UNLABELLED, np.arange(12) % 3)
    page = written(
        tmp_path,
        replace(
            data,
            matching=np.array([-1, 2, 0]),
            class_names=("class 0", "Fleck ü", "good"),
            labels=Labels(CLASSES, targets, 0),
            region_targets=targets,
        ),
    )
    head, *rows, foot = page.table
    assert head[1:] == ["good", "Fleck ü", "class 0unmatched", "recall"]
    assert rows[1] == ["scratch", "0", "0", "0", "\N{EN DASH}"]
    assert foot[3] == "\N{EN DASH}"
    assert page.text.count("✓") == 8 + 1, "of 12 tiles and the legend"


def test_a_class_without_regions_and_images(tmp_path: Path) -> None:
    data = make_report_data()
    zeros = np.zeros(12, np.int64)
    page = written(tmp_path, replace(data, region_class=zeros, image_class=zeros))
    assert page.text.count("No region is in this class.") == 2
    assert len(page.pictures) == 12


def test_one_region(tmp_path: Path) -> None:
    data = make_report_data(1)
    whole = replace(data.regions, areas=np.zeros(1, np.int64))
    page = written(tmp_path, replace(data, regions=whole))
    assert len(page.pictures) == 1
    assert "whole image" in page.text


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    data = make_report_data()
    page = written(
        tmp_path,
        replace(
            data,
            title=evil,
            subtitle=evil,
            warnings=(evil,),
            notes=(evil,),
            config_yaml=evil,
            class_names=(evil, evil, evil),
            samples=tuple(replace(s, id=evil) for s in data.samples),
            labels=Labels((evil, evil, evil), data.image_class, 0),
        ),
    )
    assert "script" not in page.tags
    assert page.text.count(evil) > 30


def test_images_with_several_kinds_of_defect(tmp_path: Path) -> None:
    """Image 0 has a scratch and two Flecken, image 1 a scratch and a normal region."""
    data = make_report_data(6)
    regions = replace(data.regions, image_index=np.array([0, 0, 0, 1, 1, 2]))
    found = np.array([1, 0, 1, 0, 2, 2])
    page = written(tmp_path, replace(data, regions=regions, region_class=found))
    section = " ".join(page.text.split("Images with several kinds of defect")[1].split())
    assert section.startswith("1 image with regions in different classes")
    assert "good/000 Fleck ü \N{MULTIPLICATION SIGN} 2, scratch good good Run" in section


def test_a_failed_write_keeps_the_old_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_report(path, replace(make_report_data(), image_confidence=None))  # type: ignore[arg-type]
    broken = make_report_data()
    broken.metrics["seconds"]["train"] = "long"  # fails while the page is being written
    with pytest.raises(TypeError):
        write_report(path, broken)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_name_that_is_no_unicode(tmp_path: Path) -> None:
    data = make_report_data(1)
    page = written(tmp_path, replace(data, samples=(Sample("bad\udcff", Path("x")),)))
    assert "bad?" in page.text


def spot(x: float, y: float, box: Box, mode: ResizeMode) -> tuple[float, ...]:
    """Position in a tile of 64 of the one hot cell of a map, at x, y of a 90 x 60 image."""
    heat = np.zeros((40, 30), np.float32)  # 1.5 image rows, 3 image columns per cell
    heat[int(y / 1.5), int(x / 3)] = 1
    tile = region_heat(heat, box, (HEIGHT, WIDTH), 64, mode)
    assert tile.shape == (64, 64)
    weight = tile / tile.sum()
    return tuple((weight.sum(axis) * np.arange(0.5, 64)).sum().item() for axis in (0, 1))


@pytest.mark.parametrize(
    ("box", "mode", "where"),
    [
        (Box(30, 15, 60, 45), "letterbox", (35.2, 33.6)),  # square: scale 64 / 30
        (Box(30, 15, 60, 45), "stretch", (35.2, 33.6)),
        (Box(0, 0, 90, 60), "letterbox", (33.07, 32.53)),  # bars of 10.67 above and below
        (Box(0, 0, 90, 60), "stretch", (33.07, 32.8)),
        (Box(0, 0, 90, 60), "compat", (49.6, 32.8)),  # right third cut off
        (Box(30, 0, 60, 60), "letterbox", (33.6, 32.8)),  # bars of 16 left and right
        (Box(-20, -20, 60, 60), "letterbox", (53.2, 40.6)),  # extends beyond the left and top
        (Box(30, 15, 110, 95), "letterbox", (13.2, 12.6)),  # extends beyond the right and bottom
    ],
)
def test_heat_is_aligned_with_the_region(
    box: Box, mode: ResizeMode, where: tuple[float, float]
) -> None:
    assert spot(46.5, 30.75, box, mode) == pytest.approx(where, abs=0.1)


@given(
    left=st.integers(-40, 80),
    top=st.integers(-40, 50),
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    mode=st.sampled_from(("letterbox", "stretch", "compat")),
)
def test_heat_covers_exactly_the_image_part_of_a_tile(
    left: int, top: int, width: int, height: int, mode: ResizeMode
) -> None:
    box = Box(left, top, left + width, top + height)
    tile = region_heat(np.ones((7, 5), np.float32), box, (HEIGHT, WIDTH), 16, mode)
    scale_x, scale_y = {
        "stretch": (16 / width, 16 / height),
        "letterbox": (16 / max(width, height),) * 2,
        "compat": (16 / min(width, height),) * 2,
    }[mode]
    bar_x, bar_y = (
        ((16 - width * scale_x) / 2, (16 - height * scale_y) / 2)
        if mode == "letterbox"
        else (0.0, 0.0)
    )
    # Image coordinates of the pixel centres; those within half a pixel of an edge may round.
    x = left + (np.arange(0.5, 16) - bar_x) / scale_x
    y = top + (np.arange(0.5, 16) - bar_y) / scale_y
    depth_x = np.minimum(x - max(left, 0), min(left + width, WIDTH) - x) * scale_x
    depth_y = np.minimum(y - max(top, 0), min(top + height, HEIGHT) - y) * scale_y
    depth = np.minimum(depth_x[None, :], depth_y[:, None])
    assert np.allclose(tile[depth > 0.01], 1)
    assert (tile[depth < -0.01] == 0).all()


def test_the_outline_surrounds_the_mask_without_covering_it() -> None:
    image = np.full((20, 20, 3), 200, np.uint8)
    mask = np.zeros((20, 20), np.uint8)
    mask[8:12, 8:12] = 255
    changed = (outline(image, mask, 1) != image).any(-1)
    expected = np.zeros((20, 20), bool)
    expected[6:14, 6:14] = True
    expected[8:12, 8:12] = False
    assert (changed == expected).all()
    assert (outline(image, mask * 0, 1) == image).all()


def test_equal_heat_is_equally_bright_in_every_picture() -> None:
    assert normalise(np.array([[5, 10, 105, 250]], np.uint8), 10, 200).tolist() == [[0, 0, 0.5, 1]]
    assert normalise(np.array([[7.0]]), 7, 7).tolist() == [[0]], "all maps flat"
    image = np.full((1, 5, 3), 128, np.uint8)
    brightness = heat_overlay(image, np.linspace(0, 1, 5)[None]).sum(-1)[0]
    assert (np.diff(brightness) > 0).all()
