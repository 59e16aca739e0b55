"""Take back what was corrected in another tool: a table, or pictures sorted into folders."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from anomalyncd.decisions.actions import (
    REASONS,
    UNKNOWN_ID,
    Action,
    Deny,
    Move,
    Reject,
    new_class_id,
)
from anomalyncd.decisions.naming import require_short
from anomalyncd.errors import InputError
from anomalyncd.review.exports import CLASS_FILE, safe_name
from anomalyncd.review.session import Review
from anomalyncd.types import UNKNOWN, VERDICTS

_PICTURE = re.compile(r"(\d+)-.*")


def corrections(review: Review, source: Path) -> list[Action]:
    """The decisions that turn the present classes into those of a file or folder.

    Regions that are already in the class that is named there need no decision; nor do those that
    it does not name.

    Args:
        review: of the run that the source was exported from.
        source: a CSV file with the columns region, id and class_name, or a folder with a folder of
            pictures for each class; both as `export` writes them.

    Raises:
        InputError: it cannot be read, or names regions that the run does not have.
    """
    named = _of_folder(review, source) if source.is_dir() else _of_table(review, source)
    state = review.state
    wanted: dict[str, list[int]] = {}
    for row, name in named.items():
        if state.name_of(state.class_of(row)) != name:
            wanted.setdefault(name, []).append(row)
    actions: list[Action] = []
    reasons = {name: reason for reason, name in REASONS.items()}
    for name, rows in wanted.items():
        regions, images = review.addressed(rows)
        if name in reasons:
            actions.append(Reject(regions, images, reasons[name]))
        elif name == VERDICTS[UNKNOWN]:
            for class_id in sorted({state.class_of(row) for row in rows} - {UNKNOWN_ID}):
                own = [row for row in rows if state.class_of(row) == class_id]
                actions.append(Deny(*review.addressed(own), class_id))
        else:
            known = state.named(name)
            if not known:
                require_short(name)
            actions.append(Move(regions, images, known or new_class_id(), "" if known else name))
    return actions


def _of_table(review: Review, path: Path) -> dict[int, str]:
    """The class name of each row that the table names."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            missing = [name for name in ("region", "id", "class_name") if name not in columns]
            if missing:
                raise InputError(
                    f"{path}: has no column {missing[0]}; expected region, id and class_name, as "
                    "--export csv writes them"
                )
            rows = list(reader)
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    found: dict[int, str] = {}
    for number, row in enumerate(rows, 2):
        where = f"{path}, line {number}"
        region, name = row["region"] or "", (row["class_name"] or "").strip()
        if not region.isascii() or not region.isdigit():
            raise InputError(f"{where}: region {region[:60]!r}; expected a number")
        _add(found, review, int(region), name, where)
        if review.regions.ids[int(region)] != row["id"]:
            raise InputError(
                f"{where}: region {region} is of image {review.regions.ids[int(region)][:60]!r} in "
                f"this run, not of {str(row['id'])[:60]!r}; the table belongs to another run"
            )
    return found


def _of_folder(review: Review, folder: Path) -> dict[int, str]:
    """The class of each region: the folder that holds its picture."""
    found: dict[int, str] = {}
    try:
        for path in sorted(folder.glob("*/*")):
            match = _PICTURE.fullmatch(path.stem)
            if path.name == CLASS_FILE or not path.is_file() or match is None:
                continue
            region = int(match[1])
            _add(found, review, region, _class_name(path.parent), str(path))
            if safe_name(Path(review.regions.ids[region]).name) != path.stem.partition("-")[2]:
                raise InputError(
                    f"{path}: region {region} of this run is of another photograph; the folder "
                    "belongs to another run"
                )
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error})") from error
    if not found:
        raise InputError(
            f"{folder}: no pictures of regions; expected <class>/<region>-<photograph>.png, as "
            "--export folders writes them"
        )
    return found


def _class_name(folder: Path) -> str:
    """What the folder's class is called: a folder's name cannot hold all signs."""
    note = folder / CLASS_FILE
    if note.is_file() and note.stat().st_size <= 40_000:
        name = note.read_bytes().decode("utf-8", "surrogateescape")
        if folder.name.startswith(safe_name(name)):  # otherwise the folder has been renamed
            return name
    return folder.name


def _add(found: dict[int, str], review: Review, region: int, name: str, where: str) -> None:
    count = len(review.regions.ids)
    if region >= count:
        raise InputError(f"{where}: region {region}; this run has {count} regions")
    if not name:
        raise InputError(f"{where}: no class name")
    if found.get(region, name) != name:
        raise InputError(f"{where}: region {region} is given twice, with different classes")
    found[region] = name
