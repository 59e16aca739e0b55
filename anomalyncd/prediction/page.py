"""The tables and the page of a prediction, made from its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from anomalyncd.errors import InputError
from anomalyncd.prediction.examiner import Examiner
from anomalyncd.prediction.journal import Journal, Record
from anomalyncd.results import csv_files, prediction_page
from anomalyncd.types import VERDICTS


def write_tables(
    folder: Path,
    images: Iterable[Record],
    again: Iterable[Record],
    problems: Mapping[str, str],
) -> None:
    """Write predictions.csv, regions.csv and unreadable.csv.

    Args:
        folder: where to.
        images: the records of all images.
        again: the same ones, for a second pass.
        problems: why photographs were left out.
    """
    predictions = (
        csv_files.prediction_row(
            *(record["id"], record["image"], record["class_id"], record["class_name"]),
            *(record["confidence"], record["anomaly_score"], len(record["regions"])),
            *(record["main_elements"], record["threshold"]),
        )
        for record in images
    )
    csv_files.write_rows(folder / "predictions.csv", csv_files.PREDICTION, predictions)
    csv_files.write_rows(folder / "regions.csv", csv_files.REGION, _region_rows(again))
    csv_files.write_rows(folder / "unreadable.csv", ("image", "problem"), problems.items())


def _region_rows(records: Iterable[Record]) -> Iterator[list[Any]]:
    number = count()
    for record in records:
        for region in record["regions"]:
            yield csv_files.region_row(
                *(next(number), record["id"], region["box"], region["area"]),
                *(region["anomaly_score"], region["class_id"], region["class_name"]),
                region["confidence"],
            )


def write_page(
    path: Path,
    run: str,
    journal: Journal,
    keys: Sequence[str],
    examiner: Examiner,
    problems: Mapping[str, str],
) -> None:
    """Write the page of all images with these keys.

    Raises:
        InputError: the journal is damaged.
    """
    groups = {
        name: prediction_page.Group(name, is_verdict=name in VERDICTS.values())
        for name in (*VERDICTS.values(), *examiner.class_names)
    }
    wanted = {}
    regions = 0
    for key, record in zip(keys, journal.read(keys), strict=True):
        names = {record["class_name"], *(region["class_name"] for region in record["regions"])}
        if strange := names - groups.keys():
            raise InputError(
                f"{journal.path}: a line is damaged (class {min(strange)[:60]!r}); move the file "
                "away, or set output=… to another folder"
            )
        groups[record["class_name"]].add_image(record["confidence"])
        for place, region in enumerate(record["regions"]):
            group = groups[region["class_name"]]
            group.regions += 1
            if group.regions <= prediction_page.TILES:
                wanted[key, place] = (record, region, regions)
            regions += 1
    for tile in journal.tiles():
        if found := wanted.pop((tile["key"], tile["number"]), None):
            record, region, number = found
            groups[region["class_name"]].tiles.append(
                prediction_page.Tile(
                    id=record["id"],
                    number=number,
                    confidence=region["confidence"],
                    whole=region["area"] == 0,
                    picture=tile["picture"],
                    similar=[(int(row), float(cosine)) for row, cosine in tile["similar"]],
                )
            )
    neighbours = examiner.neighbours
    prediction_page.write(
        path,
        prediction_page.Data(
            run=run,
            images=len(keys),
            regions=regions,
            groups=list(groups.values()),
            problems=dict(problems),
            search_range=examiner.search_range,
            known=None if neighbours is None else neighbours.known,
            resize_mode=examiner.resize_mode,
        ),
    )
