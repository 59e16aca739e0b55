"""Twelve jobs at once on one cold cache: all finish, with the results that each has alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scripts.campaign import results
from scripts.campaign.cases import Case, Row
from scripts.campaign.process import Command, Ended, Run
from scripts.campaign.products import SMALL, draw

COUNT = 12
TIMEOUT = 600.0
VARIANTS: tuple[tuple[str, ...], ...] = (
    *((f"seed={seed}",) for seed in (1, 2, 3)),
    *(("train.features=online",), ("mebin.method=otsu",), ("regions.padding=0.2",)),
)
GENERAL = (
    *("dataset=folder", "dataset.path=product/photos", "detector=musc_descriptors"),
    *("base=folder", "base.path=product/defects", *SMALL),
)


def cases() -> Iterator[Case]:
    def case(name: str, variants: list[tuple[str, ...]], *, one_folder: bool = False) -> Case:
        made = Case("jobs", "at once", name, lambda at: _work(made, variants, at, one_folder))
        return made

    same: list[tuple[str, ...]] = [("train.features=cached",)] * COUNT
    yield case("12 with the same settings, each in its own output folder", same)
    yield case("12 with the same settings in one output folder", same, one_folder=True)
    mixed = [VARIANTS[number % len(VARIANTS)] for number in range(COUNT)]
    yield case("12 with six settings, two of each", mixed)


def _work(made: Case, variants: list[tuple[str, ...]], folder: Path, one_folder: bool) -> Row:
    alone = {variant: _alone(variant, folder) for variant in dict.fromkeys(variants)}
    case = folder / "together"
    draw(case / "product")
    calls = folder / "calls"
    calls.mkdir()
    outputs = ["out-0" if one_folder else f"out-{number}" for number in range(len(variants))]
    runs: list[Run] = [
        _command(variant, output, case).fork(
            calls / f"{number}", changes=calls / f"{number}.changes"
        )
        for number, (variant, output) in enumerate(zip(variants, outputs, strict=True))
    ]
    ended = [run.wait(TIMEOUT) for run in runs]
    faults = [_fault(end, one_folder) for end in ended]
    for variant, output in zip(variants, outputs, strict=True):
        found = results.run_folders(case / output)
        if len(found) != 1:
            faults.append(f"{output}: {len(found)} run folders")
            continue
        same = _comparable(results.of_run(found[0], case))
        faults.append(results.differences(same, alone[variant]))
    if twice := _built_twice(case, calls):
        faults.append(f"built more than once: {', '.join(twice)}")
    left = [path.name for path in (case / "cache").iterdir() if path.name.endswith(".building")]
    faults += [f"left behind: {', '.join(left)}"] * bool(left)
    fault = "; ".join(dict.fromkeys(filter(None, faults)))
    told = Counter("finished" if end.status == 0 else "told to wait" for end in ended)
    outcome = ", ".join(f"{count} {word}" for word, count in told.items())
    return made.row(
        f"{outcome}; results as alone, each cache entry built once" if not fault else outcome,
        fault,
        tracebacks=sum(end.has_traceback for end in ended),
    )


def _alone(variant: tuple[str, ...], folder: Path) -> dict[str, str]:
    case = folder / f"alone-{'-'.join(variant).replace('/', '-')}"
    draw(case / "product")
    ended = _command(variant, "out", case).fork(case / "call").wait(TIMEOUT)
    if ended.status != 0:
        raise RuntimeError(f"alone: status {ended.status}: {' / '.join(ended.message)[-200:]}")
    (run,) = results.run_folders(case / "out")
    return _comparable(results.of_run(run, case))


def _command(variant: tuple[str, ...], output: str, case: Path) -> Command:
    settings = (*GENERAL, *variant, f"output_root={output}", "cache_root=cache")
    return Command("train.py", settings, case)


def _comparable(found: dict[str, str]) -> dict[str, str]:
    """Without the report, which shows the configuration and so the output folder's name."""
    return {name: value for name, value in found.items() if name != "report.html"}


def _fault(ended: Ended, one_folder: bool) -> str:
    if ended.too_long:
        return f"still running after {TIMEOUT:.0f} s"
    if ended.status == 0 and not ended.has_traceback:
        return ""
    waits = "another process computes this run" in ended.err and len(ended.message) == 1
    return "" if one_folder and waits else f"status {ended.status}: {ended.message[-1][:200]}"


def _built_twice(case: Path, calls: Path) -> list[str]:
    """Entries of the cache that more than one job has put into place."""
    cache = case / "cache"
    put = Counter(
        Path(place).name
        for log in calls.glob("*.changes")
        for event, _, place in (line.partition("\t") for line in log.read_text().splitlines())
        if event == "os.rename" and Path(place).parent == cache
    )
    if not put:
        raise RuntimeError("no job was seen to put an entry into the cache")
    return sorted(name for name, times in put.items() if times > 1)
