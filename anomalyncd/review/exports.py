"""Named regions for other tools: CSV, COCO, FiftyOne, or a folder of pictures for each class."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.data.images import read_header, read_image
from anomalyncd.errors import InputError
from anomalyncd.review.session import Review
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.types import Box

COLUMNS = [
    "region",
    "id",
    "image",
    "left",
    "top",
    "right",
    "bottom",
    "class",
    "class_name",
    "confidence",
    "decided",
]
CLASS_FILE = "class.txt"  # the name itself, which a folder's may not hold
_NAME_BYTES = 120  # of a folder or file made from a class's or a photograph's name


def export(review: Review, kind: str, output: Path) -> int:
    """Write all regions as they are after the decisions.

    Args:
        review: of a run.
        kind: one of FORMATS.
        output: a file for csv and coco, a folder for the others; must not exist yet.

    Returns:
        How many regions were written.

    Raises:
        InputError: the output exists or cannot be written.
    """
    if output.exists():
        raise InputError(f"{output}: exists, and nothing is overwritten; name another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    return FORMATS[kind](review, output)


def as_csv(review: Review) -> str:
    """One row per region, like regions.csv; `--import` reads it back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    known, state = review.regions, review.state
    for row in range(len(known.ids)):
        class_id = state.class_of(row)
        decided = "yes" if state.decided[row] else "no"
        box = known.boxes[row].tolist()
        name = state.name_of(class_id)
        confidence = f"{known.confidences[row]:.4f}"
        head = [row, known.ids[row], known.images[row], *box]
        writer.writerow([*head, class_id, name, confidence, decided])
    return text.getvalue()


def as_coco(review: Review) -> dict[str, Any]:
    """The layout of COCO's instances, boxes only.

    Regions that are no defects are left out: unknown ones, false alarms, and whole photographs in
    which nothing was found. A photograph that is gone has no width and height.
    """
    numbers: dict[str, int] = {}
    images: dict[str, dict[str, Any]] = {}
    annotations = []
    for row, box, name in _defects(review):
        known, state = review.regions, review.state
        image = known.ids[row]
        if image not in images:
            size = _size(known.images[row])
            found = {"id": len(images) + 1, "file_name": _text(str(known.images[row]))}
            images[image] = found | ((size and {"width": size[0], "height": size[1]}) or {})
        box = _clipped(box, images[image])
        annotations.append(
            {
                "id": row + 1,
                "image_id": images[image]["id"],
                "category_id": numbers.setdefault(name, len(numbers) + 1),
                "bbox": [box.left, box.top, box.right - box.left, box.bottom - box.top],
                "area": int(known.areas[row]),
                "iscrowd": 0,
                "score": float(known.confidences[row]),
                "attributes": {"region": row, "decided": bool(state.decided[row])},
            }
        )
    return {
        "images": list(images.values()),
        "categories": [{"id": number, "name": _text(name)} for name, number in numbers.items()],
        "annotations": annotations,
    }


def _write_csv(review: Review, output: Path) -> int:
    with atomic_write(output) as draft:
        draft.write_bytes(as_csv(review).encode("utf-8", "surrogateescape"))
    return len(review.regions.ids)


def _write_coco(review: Review, output: Path) -> int:
    made = as_coco(review)
    _write_json(output, made)
    return len(made["annotations"])


def _write_fiftyone(review: Review, output: Path) -> int:
    """FiftyOneImageDetectionDataset: labels.json, and data.json with the photographs' paths."""
    paths: dict[str, str] = {}
    labels: dict[str, list[dict[str, Any]]] = {}
    classes: set[str] = set()
    count = 0
    for row, box, name in _defects(review):
        size = _size(review.regions.images[row])
        if size is None:
            continue
        image = _text(review.regions.ids[row])
        paths[image] = _text(str(review.regions.images[row].resolve()))
        width, height = size
        box = _clipped(box, {"width": width, "height": height})
        place = [box.left / width, box.top / height]
        place += [(box.right - box.left) / width, (box.bottom - box.top) / height]
        classes.add(_text(name))
        count += 1
        labels.setdefault(image, []).append(
            {
                "label": _text(name),
                "bounding_box": place,
                "confidence": float(review.regions.confidences[row]),
                "attributes": {"region": row, "decided": bool(review.state.decided[row])},
            }
        )
    output.mkdir()
    _write_json(output / "data.json", paths)
    _write_json(output / "labels.json", {"classes": sorted(classes), "labels": labels})
    return count


def _write_folders(review: Review, output: Path) -> int:
    """`<class>/<region>-<photograph>.png`, the pixels of the box."""
    output.mkdir()
    known, state = review.regions, review.state
    folders: dict[str, Path] = {}
    count, last, pixels = 0, None, None
    for row in range(len(known.ids)):
        name = state.name_of(state.class_of(row))
        if name not in folders:
            folders[name] = _folder(output, name)
        if known.images[row] != last:
            last = known.images[row]
            pixels = _pixels(last)
        if pixels is None:
            continue
        box = _clipped(
            Box(*known.boxes[row].tolist()), {"width": pixels.shape[1], "height": pixels.shape[0]}
        )
        if box.right > box.left and box.bottom > box.top:
            stem = safe_name(Path(known.ids[row]).name)
            crop = pixels[box.top : box.bottom, box.left : box.right]
            Image.fromarray(np.ascontiguousarray(crop)).save(folders[name] / f"{row}-{stem}.png")
            count += 1
    return count


FORMATS: dict[str, Callable[[Review, Path], int]] = {
    "csv": _write_csv,
    "coco": _write_coco,
    "fiftyone": _write_fiftyone,
    "folders": _write_folders,
}


def safe_name(name: str) -> str:
    """A name for a file or folder on any system, that leads nowhere else."""
    plain = re.sub(r"[^\w .()+=-]+", "_", name).strip(" .")
    return plain.encode("utf-8", "replace")[:_NAME_BYTES].decode("utf-8", "ignore") or "_"


def _folder(output: Path, name: str) -> Path:
    """A new folder for a class, whose name says which class it is.

    The name itself is beside the pictures: the folder's may have lost signs.
    """
    plain = safe_name(name)
    folder, number = output / plain, 1
    while folder.exists():  # another class whose name has lost what made it different
        number += 1
        folder = output / f"{plain} ({number})"
    folder.mkdir()
    (folder / CLASS_FILE).write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


def _defects(review: Review) -> Iterable[tuple[int, Box, str]]:
    known, state = review.regions, review.state
    for row in range(len(known.ids)):
        class_id = state.class_of(row)
        if known.areas[row] > 0 and not state.is_fixed(class_id):
            yield row, Box(*known.boxes[row].tolist()), state.name_of(class_id)


def _clipped(box: Box, size: dict[str, Any]) -> Box:
    width, height = size.get("width", box.right), size.get("height", box.bottom)
    left, top = min(max(box.left, 0), width), min(max(box.top, 0), height)
    return Box(left, top, max(min(box.right, width), left), max(min(box.bottom, height), top))


def _pixels(path: Path) -> NDArray[np.uint8] | None:
    """The photograph; None if it is gone. Only of a regular file: reading a pipe would block."""
    try:
        return read_image(path) if path.is_file() else None
    except InputError:
        return None


def _size(path: Path) -> tuple[int, int] | None:
    if not path.is_file():
        return None
    try:
        header = read_header(path)
    except InputError:
        return None
    return header.width, header.height


def _text(name: str) -> str:
    """A name that may hold bytes of no Unicode, as JSON for other programs must hold it."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as draft:
        draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
