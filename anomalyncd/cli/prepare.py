"""Prepare a dataset: download or unpack it, arrange it and verify it.

    anomalyncd prepare mvtec                     downloads (4.9 GB, can be interrupted)
    anomalyncd prepare mvtec --from ARCHIVE      from your archive or folder
    anomalyncd prepare aebad --from AeBAD.zip    the published base set
    anomalyncd prepare mtd --to DIR              in a folder of your choice

Existing files in the target are only verified, and your own files are never changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omegaconf import OmegaConf

from anomalyncd.cli.settings import entry
from anomalyncd.errors import InputError
from anomalyncd.preparation import DATASETS, Report, prepare
from anomalyncd.runtime.console import printable, say

SHOWN = 20  # problems at most


def expected_folder(name: str) -> Path:
    """Where the configuration looks for the dataset."""
    if name == "aebad":
        return Path(OmegaConf.load(entry.config_dir() / "base" / "aebad.yaml").path)
    return Path(OmegaConf.load(entry.config_dir() / "dataset" / f"{name}.yaml").dataset.path)


def arguments() -> argparse.Namespace:
    """The command line."""
    known = "\n".join(
        f"  {name:6} {source.title}; {source.licence}\n         {source.page}"
        for name, (source, _) in DATASETS.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"datasets:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument(
        "--from", dest="given", metavar="PATH", type=Path, help="an archive or a folder"
    )
    parser.add_argument(
        "--to", metavar="DIR", type=Path, help="default: where the configuration looks for it"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args()


def print_report(folder: Path, report: Report) -> None:
    """Print what was found, what is missing and what is wrong."""
    if report.absent:
        print(printable(f"Not found: {', '.join(report.absent)}"))
    for problem in report.problems[:SHOWN]:
        print(printable(f"problem: {problem}"))
    if len(report.problems) > SHOWN:
        print(f"problem: … and {len(report.problems) - SHOWN} more")
    found = len(report.problems)
    result = f"{found} problem{'s' * (found > 1)}" if found else "verified"
    print(printable(f"{folder}: {report.images:,} images in {report.groups} groups, {result}"))


def main() -> int:
    """Prepare one dataset; returns 0 if it is complete."""
    given = arguments()
    folder = given.to or expected_folder(given.dataset)
    source, _ = DATASETS[given.dataset]
    if not given.quiet:
        say(f"{source.title}, {source.page}\nLicence: {source.licence}")
    try:
        report = prepare(given.dataset, given.given, folder, quiet=given.quiet)
    except (InputError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; run the same command again to resume.", file=sys.stderr)
        return 130
    print_report(folder, report)
    return 1 if report.problems else 0
