"""Random kills: a run is killed, once or twice, called again, and must end as if nothing had been.

A fork is killed just before a random one of its changes to files, which can be repeated exactly, or
at a random time; a process of its own at a random time, from its start-up on.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.campaign import results
from scripts.campaign.cases import Case, Row
from scripts.campaign.process import Command, Ended
from scripts.campaign.products import SMALL, Product

TIMEOUT = 180.0  # seconds for one call, which takes a few
OWN_PROCESS = 0.12  # share of the kills
BY_TIME = 0.3  # share of the others
TRIES = 6  # a run may have ended before a random time
STAGES = {
    **{"maps": "anomaly maps", "backbone": "anomaly maps", "regions": "cropping"},
    **{"evaluate maps": "cropping", "view": "caching of features", "epoch": "training"},
    **{"train": "caching of features or training", "classify": "report", "evaluate": "report"},
}
# What a run keeps only until it is finished.
UNFINISHED = ("training.safetensors", "progress.json", ".features", ".part", ".building", ".tmp")


@dataclass(frozen=True)
class Recipe:
    """A run that is killed in many ways."""

    name: str
    settings: tuple[str, ...]
    predicts: bool = True  # the maps of its new images are of its kind


@dataclass(frozen=True)
class Whole:
    """The same run without a kill."""

    recipe: Recipe
    case: Path  # where it worked
    run: Path  # its folder
    changes: dict[str, int]  # of files, per script
    seconds: dict[str, float]  # per script, or `start-up` of a process of its own
    found: dict[str, str]
    predicted: dict[str, str]


def recipes(product: Product) -> list[Recipe]:
    general = product.settings()
    computed = tuple(o for o in general if not o.startswith("detector.path"))
    demo = (
        *("detector=simulated", "dataset.train=1", "dataset.good=2", "dataset.per_class=2"),
        *("dataset.combined=1", "base.per_class=2", *SMALL, "train.features=cached"),
    )
    return [
        Recipe("online", (*general, "train.features=online", "train.epochs=8")),
        Recipe(
            "cached", (*general, *product.with_base(), "train.features=cached", "train.epochs=30")
        ),
        Recipe(
            "computed maps",
            (*computed, "detector=musc_descriptors", *product.with_base(), "train.features=cached"),
            predicts=False,
        ),
        Recipe("demo", demo, predicts=False),
    ]


def train(recipe: Recipe, case: Path, *more: str) -> Command:
    return Command("train.py", (*recipe.settings, "output_root=out", *more), case)


def predict(product: Product, case: Path, run: Path) -> Command:
    output = ("output=predicted", "device=cpu")
    return Command("predict.py", (*product.prediction(run), *output), case)


def whole(recipe: Recipe, product: Product, case: Path) -> Whole:
    """Compute a run without a kill, and a prediction with it.

    Raises:
        RuntimeError: it does not end well, so that nothing can be compared with it.
    """
    case.mkdir(parents=True, exist_ok=True)
    changes: dict[str, int] = {}
    seconds: dict[str, float] = {}
    calls = case.with_name(f"{case.name}-calls")
    calls.mkdir()
    done = _counted(train(recipe, case), calls, changes, seconds)
    if done.status != 0:
        raise RuntimeError(f"{recipe.name}: {done.status}\n{done.err}")
    (run,) = results.run_folders(case)
    if recipe.predicts:
        done = _counted(predict(product, case, run), calls, changes, seconds)
        if done.status != 0:
            raise RuntimeError(f"{recipe.name}, prediction: {done.status}\n{done.err}")
    return Whole(
        *(recipe, case, run, changes, seconds),
        found=results.of_run(run, case),
        predicted=results.of_prediction(case / "predicted", case),
    )


def _counted(
    command: Command, calls: Path, changes: dict[str, int], seconds: dict[str, float]
) -> Ended:
    log = calls / f"{command.script}.changes"
    done = command.fork(calls / command.script, changes=log).wait(TIMEOUT)
    changes[command.script] = len(log.read_text().splitlines())
    seconds[command.script] = done.seconds
    return done


def cases(count: int, wholes: list[Whole], product: Product, seed: int) -> Iterator[Case]:
    """Cases until `count` kills are planned; each is drawn from the seed and its number alone."""
    planned = number = 0
    while planned < count:
        plan = Plan.draw(seed, number, wholes)
        yield plan.case(product)
        planned += plan.kills
        number += 1


@dataclass(frozen=True)
class Plan:
    number: int
    whole: Whole
    warm: bool  # the cache is full
    rerun: str  # no; `again`: with rerun=true before and after the kill; `once`: only before
    predicting: bool  # predict.py is killed, not train.py
    own_process: bool
    by_time: bool
    kills: int
    seed: int

    @classmethod
    def draw(cls, seed: int, number: int, wholes: list[Whole]) -> Plan:
        rng = random.Random(f"{seed}-{number}")
        own_process = rng.random() < OWN_PROCESS
        predicting = rng.random() < 0.1
        rerun = "no"
        if not predicting and rng.random() < 0.2:
            rerun = rng.choice(["again", "once"])
        return cls(
            number,
            rng.choice([whole for whole in wholes if whole.recipe.predicts or not predicting]),
            warm=rng.random() < 0.5,
            rerun=rerun,
            predicting=predicting,
            own_process=own_process,
            by_time=own_process or rng.random() < BY_TIME,
            kills=2 if rng.random() < 0.2 else 1,
            seed=rng.randrange(2**32),
        )

    def case(self, product: Product) -> Case:
        words = [self.whole.recipe.name, "warm cache" if self.warm else "cold cache"]
        words += ["predict.py"] * self.predicting + ["rerun=true"] * (self.rerun != "no")
        words += ["own process"] * self.own_process + ["two kills"] * (self.kills == 2)
        name = f"{self.number}: {', '.join(words)}"
        kind = "of a process of its own" if self.own_process else "of a fork"
        case = Case("kills", kind, name, lambda folder: self.work(case, product, folder))
        return case

    def work(self, case: Case, product: Product, folder: Path) -> Row:
        work, calls = folder / "work", folder / "calls"
        work.mkdir()
        calls.mkdir()
        aside = self._furnish(work)
        rng = random.Random(self.seed)
        stages, traces = [], 0
        killed_with = self._command(product, work, rerun=self.rerun != "no")
        for kill in range(self.kills):
            ended = self._killed(killed_with, calls / f"kill-{kill}", rng)
            if ended is None:
                break  # it was faster than the clock, each time
            traces += ended.has_traceback
            stages.append(_stage(work, self.predicting))
        if not stages:
            return case.row("ended before every kill", tags=())
        resumed = self._command(product, work, rerun=self.rerun == "again")
        ended = resumed.fork(calls / "resumed").wait(TIMEOUT)
        fault = self._fault(ended, work, aside)
        return case.row(
            f"killed in: {', then '.join(stages)}; resumed: {fault or 'identical'}",
            fault,
            ended,
            tracebacks=traces + ended.has_traceback,
            tags=tuple(stages),
        )

    def _furnish(self, work: Path) -> dict[str, bytes] | None:
        """What the case begins with; the files of the finished run that rerun=true sets aside."""
        whole = self.whole
        if self.warm or self.predicting:
            shutil.copytree(whole.case / "out" / "cache", work / "out" / "cache")
        if not (self.predicting or self.rerun != "no"):
            return None
        run = work / whole.run.relative_to(whole.case)
        shutil.copytree(whole.run, run)
        return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}

    def _command(self, product: Product, work: Path, *, rerun: bool) -> Command:
        if self.predicting:
            return predict(product, work, work / self.whole.run.relative_to(self.whole.case))
        return train(self.whole.recipe, work, *["rerun=true"] * rerun)

    def _killed(self, command: Command, report: Path, rng: random.Random) -> Ended | None:
        """Kill it at a random moment; None if it has always ended before."""
        if not self.by_time:
            last = self.whole.changes[command.script]
            # A second run has less to do, so that the moment may not come: then an earlier one.
            for _ in range(TRIES):
                ended = command.fork(report, kill_at=rng.randint(1, last)).wait(TIMEOUT)
                if ended.killed or ended.status != 0:
                    return ended
                last = max(last // 2, 1)
            return None
        longest = self.whole.seconds["start-up" if self.own_process else command.script]
        for _ in range(TRIES):
            run = command.spawn(report) if self.own_process else command.fork(report)
            ended = run.wait(rng.uniform(0, longest), kill=True)
            if ended.killed or ended.status != 0:
                return ended
            longest /= 2
        return None

    def _fault(self, ended: Ended, work: Path, aside: dict[str, bytes] | None) -> str:
        if ended.too_long:
            return f"still running after {TIMEOUT:.0f} s"
        if ended.has_traceback or ended.status != 0:
            return f"status {ended.status}: {' / '.join(ended.message)[-300:]}"
        if self.predicting:
            found = results.of_prediction(work / "predicted", work)
            return results.differences(found, self.whole.predicted)
        run = work / self.whole.run.relative_to(self.whole.case)
        faults = [results.differences(results.of_run(run, work), self.whole.found)]
        if len(others := results.run_folders(work)) != 1:
            faults.append(f"{len(others)} run folders")
        left = [path.name for path in work.rglob("*") if _is_unfinished(path, work)]
        faults += [f"left behind: {', '.join(left)}"] * bool(left)
        if aside is not None and not _kept(aside, run):
            faults.append("the finished run that rerun=true sets aside is lost or changed")
        return "; ".join(filter(None, faults))


def start_up(recipe: Recipe, folder: Path) -> float:
    """Seconds that a run takes as a process of its own, on a cold cache."""
    folder.mkdir(parents=True)
    ended = train(recipe, folder).spawn(folder / "start-up").wait(TIMEOUT)
    if ended.status != 0:
        raise RuntimeError(f"{recipe.name}: {ended.status}\n{ended.err}")
    return ended.seconds


def _is_unfinished(path: Path, work: Path) -> bool:
    parts = path.relative_to(work).parts
    if any(re.search(r"\.old-\d+$", part) for part in parts):
        return False  # what was set aside is left as it was
    return path.name.endswith(UNFINISHED)


def _kept(aside: dict[str, bytes], run: Path) -> bool:
    """The finished run is where it was, or set aside, byte by byte."""
    places = [run, *run.parent.glob(f"{run.name}.old-*")]
    return any(
        all((place / name).is_file() and (place / name).read_bytes() == content
            for name, content in aside.items())
        for place in places
    )  # fmt: skip


def _stage(work: Path, predicting: bool) -> str:
    """Where a killed run was, as its folder says."""
    if predicting:
        return "prediction"
    runs = results.run_folders(work)
    if not runs:
        return "start-up and inputs"
    if (runs[0] / "metrics.json").exists():
        return "report"  # written, or of the run before
    try:
        progress = json.loads((runs[0] / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "start-up and inputs"
    return STAGES.get(progress.get("unit", progress.get("stage")), str(progress.get("stage")))
