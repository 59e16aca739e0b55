"""One call on something spoiled, and whether it ended as promised.

Promised is: no traceback, nothing of a foreign file executed or resolved, no control characters on
the terminal, and either the result of an undisturbed run or one line that names what is wrong.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scripts.campaign import results
from scripts.campaign.cases import Case, Row
from scripts.campaign.files import EXECUTED
from scripts.campaign.kills import Whole
from scripts.campaign.process import Command, Ended
from scripts.campaign.products import Product

TIMEOUT = 120.0
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")

# refused: one line and status 1 · finished: status 0 · same: finished with the result of the
# undisturbed run · either: refused or finished · shown: a table, status 0, sound runs in it
Expected = Literal["refused", "finished", "same", "either", "shown"]


@dataclass(frozen=True)
class Given:
    """What a trial may spoil: its own copies."""

    work: Path  # also the folder to work in
    product: Product
    run: Path | None  # a finished run's folder below work
    cache: Path | None  # filled, below work


Spoil = Callable[[Given], Sequence[str] | None]


@dataclass(frozen=True)
class Trial:
    kind: str
    name: str
    spoil: Spoil  # spoils what is given; may return arguments to add
    names: str = ""  # what the message must name: part of a file's name, or a setting; | for or
    expected: Expected = "refused"
    script: str = "train.py"
    settings: tuple[str, ...] | None = None  # instead of the usual ones
    with_run: bool = False  # a finished run is there: for train.py its own, else a copy
    with_cache: bool = False


def case(part: str, trial: Trial, whole: Whole) -> Case:
    """A trial as a case; `whole` is the undisturbed run of the usual settings."""
    made = Case(part, trial.kind, trial.name, lambda folder: _work(made, trial, whole, folder))
    return made


def usual(product: Product) -> tuple[str, ...]:
    """Settings of a run, with paths relative to the folder of the trial."""
    return (*product.settings(), "train.features=cached")


def _work(made: Case, trial: Trial, whole: Whole, folder: Path) -> Row:
    given = _given(trial, whole, folder / "work")
    (folder / "calls").mkdir()
    if trial.with_run and trial.script == "train.py":  # where a run lies follows from its inputs
        first = _command(trial, given, ()).fork(folder / "calls" / "first").wait(TIMEOUT)
        if first.status != 0:
            return made.row("", f"the run before the trial: {' / '.join(first.message)[-200:]}")
        given = replace(given, run=results.run_folders(given.work)[0])
    more = tuple(trial.spoil(given) or ())
    command = _command(trial, given, more)
    ended = command.fork(folder / "calls" / "call").wait(TIMEOUT)
    named = None
    if ended.status != 0 and trial.names:
        named = _names(trial.names, ended.err)
    outcome = " / ".join(ended.message)[-300:] if ended.status else "finished"
    fault = _fault(trial, ended, given, whole, named)
    return made.row(outcome.replace(str(folder), "…"), fault, ended, named=named)


def _given(trial: Trial, whole: Whole, work: Path) -> Given:
    """Copies of the product and, if the trial wants them, of a finished run and a full cache.

    The product lies where the undisturbed run had it, relative to the folder to work in.
    """
    work.mkdir(parents=True)
    shutil.copytree(whole.case / "product", work / "product")
    run = cache = None
    if trial.with_cache:
        cache = work / "out" / "cache"
        shutil.copytree(whole.case / "out" / "cache", cache)
    if trial.with_run and trial.script != "train.py":
        run = work / whole.run.relative_to(whole.case)
        shutil.copytree(whole.run, run)
    return Given(work, Product(work / "product"), run, cache)


def _command(trial: Trial, given: Given, more: tuple[str, ...]) -> Command:
    relative = Product(Path("product"))
    match trial.script:
        case _ if trial.settings is not None:
            arguments = trial.settings
        case "predict.py":
            assert given.run is not None
            run = given.run.relative_to(given.work)
            arguments = (*relative.prediction(run), "output=predicted", "device=cpu")
        case "scripts/status.py":
            arguments = ("out", "--once")
        case "scripts/table.py":
            arguments = ("out",)
        case _:
            arguments = (*usual(relative), "output_root=out")
    return Command(trial.script, _later_wins((*arguments, *more)), given.work)


def _later_wins(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Hydra refuses a choice that is made twice."""
    kept: dict[str, str] = {}
    for argument in arguments:
        key = argument.partition("=")[0]
        kept.pop(key, None)
        kept[key] = argument
    return tuple(kept.values())


def _fault(trial: Trial, ended: Ended, given: Given, whole: Whole, named: bool | None) -> str:
    faults = []
    told = ended.err + ended.out
    if ended.too_long:
        faults.append(f"still running after {TIMEOUT:.0f} s")
    if ended.has_traceback:
        faults.append(f"a traceback: {ended.message[-1][:160]}")
    if os.environ["CAMPAIGN_SECRET"] in told:
        faults.append("an environment variable was printed")
    if _CONTROL.search(told):
        faults.append("control characters were printed")
    if list(given.work.rglob(EXECUTED)):
        faults.append("planted code was executed")
    refused = ended.status == 1 and not ended.has_traceback
    if trial.expected in ("refused", "either") and refused:
        if len(ended.message) != 1:
            faults.append(f"{len(ended.message)} lines, not 1")
        if named is False:
            faults.append(f"does not name {trial.names}")
    elif trial.expected == "refused":
        faults.append(f"status {ended.status}, expected to be refused with 1")
    elif ended.status != 0:
        faults.append(f"status {ended.status}: {' / '.join(ended.message)[-200:]}")
    if trial.expected == "same" and not faults:
        faults.append(_difference(trial, given, whole))
    if trial.expected == "shown":
        if not re.search(r"\bdone\b|0\.\d|[01]\.0|\d\d\.\d", ended.out):
            faults.append("the sound run is not shown")
        if not _names(trial.names, told):
            faults.append(f"does not name {trial.names}")
    return "; ".join(filter(None, faults))


def _names(names: str, text: str) -> bool:
    return any(name in text for name in names.split("|"))


def _difference(trial: Trial, given: Given, whole: Whole) -> str:
    if trial.script == "predict.py":
        found = results.of_prediction(given.work / "predicted", given.work)
        return results.differences(found, whole.predicted)
    return results.difference_of_only_run(given.work, whole.found)
