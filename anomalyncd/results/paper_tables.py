"""Blocks of figures → tables for the terminal, and as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomalyncd.results.aggregate import FIGURES, SCORES, Block, Figure, Row
from anomalyncd.results.published import CATEGORY_TOLERANCE, MEAN_TOLERANCE
from anomalyncd.runtime.console import printable
from anomalyncd.storage.jobs import differing, short_keys

_NONE = object()
_WIDE = 90  # least width of a terminal, in columns, for published figures beside ours ± deviation
_PUBLISHED = "publ."
_DIFFERENCE = "Δ"  # ours − published
_DETECTION = {"fpr": "FPR", "fnr": "FNR", "normal_recall": "normal recall"}
_LEGEND = f"* off by > {MEAN_TOLERANCE} (mean) or > {CATEGORY_TOLERANCE} (category)"
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{
        "±": r"$\pm$",
        "−": "$-$",
        "Δ": r"$\Delta$",
        "·": r"$\cdot$",
        "–": "--",
        "<": "$<$",
        ">": "$>$",
    },
}


@dataclass(frozen=True)
class Grid:
    """A table as text, for any output format."""

    title: str
    captions: list[str]
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def grids(blocks: Sequence[Block], others: list[str]) -> list[Grid]:
    """One table per block, then for each data set with several blocks a table of their means.

    Args:
        blocks: groups of runs.
        others: notes on runs that are in no block.
    """
    made = [_of_block(block) for block in blocks]
    for dataset, alike in groupby(blocks, key=lambda block: block.dataset):
        together = list(alike)
        if len(together) > 1:
            made.append(_overview(dataset, together))
    if others:
        made.append(Grid("In no table", [], [], [], others))
    return [_printable(grid) for grid in made]


def _printable(grid: Grid) -> Grid:
    """Escape control characters: names in it come from folders that others may have made."""
    return Grid(
        printable(grid.title),
        [printable(caption) for caption in grid.captions],
        [printable(name) for name in grid.header],
        [[printable(cell) for cell in row] for row in grid.rows],
        [printable(note) for note in grid.notes],
    )


def show(made: Sequence[Grid], out: Console) -> None:
    """Print; a narrow terminal leaves out published figures and those on detection."""
    for grid in made:
        out.print()
        out.print(Text(grid.title, "bold"))
        for caption in grid.captions:
            out.print(Text(caption))
        if grid.rows:
            out.print(_rich(grid, narrow=out.width < _WIDE))
        for note in grid.notes:
            out.print(Text(f"• {note}"))


def markdown(made: Sequence[Grid]) -> str:
    parts = []
    for grid in made:
        lines = [f"## {grid.title}", "", *(f"{caption}  " for caption in grid.captions), ""]
        if grid.rows:
            rule = [":--", *("--:" for _ in grid.header[1:])]
            rows = (
                [f"**{cell}**" if cell.endswith("*") else cell for cell in row] for row in grid.rows
            )
            escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
            lines += [f"| {' | '.join(row)} |" for row in (grid.header, rule, *escaped)]
            lines.append("")
        lines += [*(f"- {note}" for note in grid.notes), ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def latex(made: Sequence[Grid]) -> str:
    r"""Tables for `\input`, which need the package booktabs; notes on missing runs are comments."""
    parts = []
    for grid in made:
        comments = [f"% {note}" for note in grid.notes]
        if grid.rows:
            body = [" & ".join(map(_tex, row)) + r" \\" for row in grid.rows]
            parts += [
                r"\begin{table}",
                r"\centering",
                r"\caption{" + _tex(". ".join([grid.title, *grid.captions])) + "}",
                r"\begin{tabular}{l" + "r" * (len(grid.header) - 1) + "}",
                r"\toprule",
                " & ".join(map(_tex, grid.header)) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                *comments,
                r"\end{table}",
                "",
            ]
        else:
            parts += [f"% {grid.title}", *comments, ""]
    return "\n".join(parts)


def as_csv(blocks: Sequence[Block], others: list[str]) -> str:
    """One line per row of a block, figures unrounded; then one per note, without figures."""
    kinds = ("mean", "std", "published", "difference", "outside")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    keys = ["dataset", "detector", "backbone", "base", "implementation", "settings", "seeds"]
    writer.writerow(
        [*keys, "row", *(f"{key}_{kind}" for key in FIGURES for kind in kinds), "missing"]
    )
    blank = [""] * (len(FIGURES) * len(kinds))
    for block in blocks:
        seeds = " ".join(map(str, block.seeds))
        start = [block.dataset, block.detector, block.backbone, block.base, block.implementation]
        start += [_settings(block.settings), seeds]
        for row in block.rows:
            cells = (_csv_cells(row.figures.get(key)) for key in FIGURES)
            writer.writerow([*start, row.name, *(cell for group in cells for cell in group), ""])
        for note in block.notes:
            writer.writerow([*start, "", *blank, note])
    for note in others:
        writer.writerow([*("" for _ in keys), "", *blank, note])
    return file.getvalue()


def _of_block(block: Block) -> Grid:
    captions = [
        f"backbone {block.backbone} · base {block.base} · {block.implementation} implementation"
    ]
    if block.settings:
        captions.append(_settings(block.settings))
    seeds = ", ".join(map(str, block.seeds))
    several = len(block.seeds) > 1
    captions.append(
        f"seed{'s' if several else ''} {seeds}{' (mean ± standard deviation)' if several else ''}"
        if seeds
        else "no scores"
    )
    if block.rows and (beside := _beside_scores(block.rows[-1].figures)):
        captions.append(beside)
    notes = list(block.notes)
    if block.compared and block.published:
        captions.append(f"published: {block.published.method}; {_LEGEND}")
    elif block.published:
        known = {key: block.published.mean[key] for key in SCORES if key in block.published.mean}
        scores = ", ".join(f"{key.upper()} {value:.3f}" for key, value in known.items())
        notes.append(f"published only for all categories: {block.published.method}, {scores}")
    rows = [_row(row.name, row, block.compared) for row in block.rows]
    return Grid(
        f"{block.dataset} · {block.detector}", captions, _header(block.compared), rows, notes
    )


def _overview(dataset: str, blocks: list[Block]) -> Grid:
    """The last row of each block, named by what differs from the other blocks."""
    settings = [
        {
            "detector": block.detector,
            "backbone": block.backbone,
            "base": block.base,
            "implementation": block.implementation,
            **block.settings,
        }
        for block in blocks
    ]
    compared = any(block.compared for block in blocks)
    apart = [short_keys(one) for one in differing(settings)]
    usual = _usual(apart)
    names = [_named({k: v for k, v in one.items() if usual.get(k, _NONE) != v}) for one in apart]
    known = {key for block in blocks if block.rows for key in block.rows[-1].figures}
    beside = {key: name for key, name in _DETECTION.items() if key in known}
    header = [*_header(compared), *beside.values()]
    parts = {_part(block) for block in blocks if block.rows}
    rows = []
    for name, block in zip(names, blocks, strict=True):
        if block.rows:
            last = block.rows[-1]
            partly = f" ({part})" if len(parts) > 1 and (part := _part(block)) else ""
            figures = (c for key in beside for c in _cells(last.figures.get(key), compared=False))
            rows.append([*_row(f"{name}{partly}", last, compared), *figures])
        else:
            rows.append([name, *("–" for _ in header[1:])])
    of = f" of {part}" if len(parts) == 1 and (part := parts.pop()) else ""
    captions = [f"unless stated otherwise: {_named(usual)}"] if usual else []
    if compared:
        captions.append(f"published: as named in each table; {_LEGEND}")
    return Grid(f"{dataset} · all variants{of}", captions, header, rows, [])


def _part(block: Block) -> str:
    """The categories that the last row is the mean of; empty if all."""
    name = block.rows[-1].name
    return "" if name in ("mean", block.dataset.lower()) else name.removeprefix("mean of ")


def _usual(variants: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings that most variants share: in an ablation, each variant changes one of them."""
    usual = {}
    for key in dict.fromkeys(key for one in variants for key in one):
        values = [one[key] for one in variants if key in one]
        most = max(values, key=values.count)
        others = [value for value in values if value != most]
        next_most = max(map(others.count, others), default=0)
        if values.count(most) > max(2 * next_most, 2):
            usual[key] = most
    return usual


def _named(settings: dict[str, Any]) -> str:
    parts = (
        str(value) if key in ("detector", "backbone") else f"{key}: {value}"
        for key, value in settings.items()
    )
    return " · ".join(parts) or "default settings"


def _beside_scores(figures: dict[str, Figure]) -> str:
    """Known figures on the maps, and on separating defective from normal images."""
    parts = []
    for key, name in {"aupro": "AUPRO of the maps", **_DETECTION}.items():
        if figure := figures.get(key):
            ours, *theirs = _cells(figure, compared=figure.published is not None)
            parts.append(f"{name} {ours}" + (f" (published {', '.join(theirs)})" if theirs else ""))
    return " · ".join(parts)


def _header(compared: bool) -> list[str]:
    beside = [_PUBLISHED, _DIFFERENCE] if compared else []
    return ["", *(name for key in SCORES for name in (key.upper(), *beside))]


def _row(name: str, row: Row, compared: bool) -> list[str]:
    return [name, *(c for key in SCORES for c in _cells(row.figures.get(key), compared))]


def _cells(figure: Figure | None, compared: bool) -> list[str]:
    """Our figure; if compared, also the published one and the difference, `*` if outside."""
    ours, published, difference = "–", "–", "–"
    if figure is not None:
        ours = f"{figure.mean:.3f}" + ("" if figure.std is None else f"±{figure.std:.3f}")
        if figure.published is not None and figure.difference is not None:
            published = f"{figure.published:.3f}"
            difference = f"{figure.difference:+z.3f}" + "*" * figure.outside
    cells = [ours, published, difference] if compared else [ours]
    return [cell.replace("-", "−") for cell in cells]


def _csv_cells(figure: Figure | None) -> list[Any]:
    if figure is None:
        return [""] * 5
    values = (figure.mean, figure.std, figure.published, figure.difference)
    comparable = None not in (figure.published, figure.tolerance)
    return [*("" if v is None else v for v in values), figure.outside if comparable else ""]


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _rich(grid: Grid, narrow: bool) -> Table:
    crowded = narrow and any("±" in cell for row in grid.rows for cell in row)
    dropped = {_PUBLISHED, *_DETECTION.values()} if crowded else set()
    kept = [i for i, name in enumerate(grid.header) if name not in dropped]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for i in kept:
        table.add_column(
            grid.header[i], justify="right" if i else "left", no_wrap=i > 0, overflow="fold"
        )
    for row in grid.rows:
        cells = (Text(row[i], "bold yellow" if row[i].endswith("*") else "") for i in kept)
        table.add_row(*cells, style="bold" if row[0].startswith("mean") else "")
    return table
