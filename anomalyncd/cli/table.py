"""Tables of finished runs, compared with the published figures.

    anomalyncd table outputs [more folders…] [--out FOLDER]

Prints the tables; `--out` also writes them to tables.md, tables.csv and tables.tex there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from anomalyncd.cli.settings import entry
from anomalyncd.results.aggregate import gather, ungrouped
from anomalyncd.results.paper_tables import as_csv, grids, latex, markdown, show
from anomalyncd.runtime.console import printable
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.storage.jobs import find


def main() -> int:
    """Show the runs below the given folders; returns 0 if they could be read."""
    parser = argparse.ArgumentParser(prog=entry.command(), description=__doc__.splitlines()[0])
    parser.add_argument("outputs", nargs="+", type=Path, help="folders with runs, at any depth")
    parser.add_argument("--out", type=Path, help="folder for tables.md, tables.csv and tables.tex")
    options = parser.parse_args()

    with entry.one_line_errors(debug=False):
        jobs = find(options.outputs)
        blocks, others = gather(jobs), ungrouped(jobs)
        tables = grids(blocks, others)
        out = Console(highlight=False)
        if not out.is_terminal:  # lines in a file may be long
            out.width = 160
        show(tables, out)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            forms = {"md": markdown(tables), "csv": as_csv(blocks, others), "tex": latex(tables)}
            for suffix, text in forms.items():
                with atomic_write(options.out / f"tables.{suffix}") as draft:
                    draft.write_text(text, encoding="utf-8", newline="")
            written = printable(f"Written: {options.out}/tables.md, .csv, .tex")
            out.print(Text(f"\n{written}"), soft_wrap=True)
    return 1 if entry.failures else 0
