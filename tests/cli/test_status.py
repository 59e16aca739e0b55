"""The states of jobs while they wait, run, end and fail, and how status.py shows them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.console import Console

from anomalyncd.cli import status
from anomalyncd.cli.settings import entry
from anomalyncd.config import Config
from anomalyncd.errors import InputError
from anomalyncd.run import execute
from anomalyncd.runtime import tracking
from anomalyncd.storage.jobs import Job, find
from anomalyncd.storage.run_folder import RunFolder, is_locked
from anomalyncd.storage.run_record import Progress

ROOT = Path(__file__).parents[2]
entry.register_schemas()

SMALL = [
    "detector=simulated",
    *("dataset.train=1", "dataset.good=2", "dataset.per_class=2", "dataset.combined=0"),
    "base=none",
    *(
        "backbone.image_size=32",
        "train.epochs=3",
        "train.hidden=16",
        "train.bottleneck=8",
        "train.heads=2",
    ),
    *("tracker=none", "quiet=true", "device=cpu"),
]


@pytest.fixture
def overrides(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    cache = tmp_path_factory.getbasetemp() / "status cache"
    return [*SMALL, f"output_root='{tmp_path}'", f"cache_root='{cache}'"]


def composed(overrides: list[str]) -> Config:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return entry.validated(compose("train", overrides))


def begin_sweep(overrides: list[str], job_name: str = "run") -> entry.SweepRecord:
    """Do what Hydra does at the start of a sweep."""
    with initialize_config_dir(str(ROOT / "configs"), job_name, version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra
        record = entry.SweepRecord()
        record.on_multirun_start(hydra.compose_config("train", overrides, RunMode.MULTIRUN))
        return record


def the_job(folder: Path) -> Job:
    (job,) = find([folder])
    return job


def shown(jobs: list[Job], width: int = 120, now: float = 0.0, room: int | None = None) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(status.view(jobs, now, room))
    return out.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_reports_its_progress_and_an_interrupted_one_where_it_stopped(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watching:
        def log(self, figures: dict[str, float], epoch: int) -> None:
            seen.append(the_job(tmp_path))
            if epoch == 2:
                raise KeyboardInterrupt

        def summarise(self, figures: dict[str, float]) -> None: ...
        def finish(self) -> None: ...

    monkeypatch.setattr(tracking, "create", lambda *_: Watching())
    with pytest.raises(KeyboardInterrupt):
        execute(composed(overrides))
    assert [job.state for job in seen] == ["running"] * 3
    assert seen[0].progress.stage == "train"
    progress = [(job.progress.unit, job.progress.done) for job in seen]
    assert progress[0][0] == "view" and progress[1:] == [("epoch", 1), ("epoch", 2)]
    assert seen[0].progress.done == seen[0].progress.total
    assert seen[2].progress.total == 3
    assert seen[2].progress.seconds_left
    job = the_job(tmp_path)
    assert job.state == "stopped"
    assert "epoch 2 of 3; run it again to resume" in shown([job])
    monkeypatch.undo()
    outcome = execute(composed(overrides))
    assert not (outcome.folder / "progress.json").exists()
    job = the_job(tmp_path)
    assert job.state == "done"
    nmi = outcome.metrics["scores"]["image"]["nmi"]
    assert f"{nmi:.3f}" in shown([job])


def test_a_failed_run_reports_why(overrides: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        execute(composed([*overrides, "novel_classes=500"]))
    job = the_job(tmp_path)
    assert (job.state, job.reason) == ("failed", str(raised.value))
    assert "novel_classes=500" in shown([job])


def test_a_sweep_lists_its_jobs_also_those_not_started_when_it_ends(
    overrides: list[str], tmp_path: Path
) -> None:
    sweep = begin_sweep([*overrides, "seed=1,2", "train.sup_weight=0.1,7"])
    jobs = find([tmp_path])
    assert sorted(job.state for job in jobs) == ["failed", "failed", "queued", "queued"]
    assert {job.name for job in jobs if job.state == "failed"} == {
        "seed=1 train.sup_weight=7",
        "seed=2 train.sup_weight=7",
    }
    assert all("expected [0, 1)" in job.reason for job in jobs if job.state == "failed")
    queued = {Path(job.name) for job in jobs if job.state == "queued"}
    runs = [
        RunFolder.of(composed([*overrides, "train.sup_weight=0.1", f"seed={n}"])) for n in (1, 2)
    ]
    assert queued == {run.root for run in runs}
    runs[0].root.mkdir(parents=True)
    config = composed([*overrides, "train.sup_weight=0.1", "seed=1"])
    runs[0].write_text("config.yaml", OmegaConf.to_yaml(config))
    runs[0].note_progress(stage="maps")
    states = ["failed", "failed", "queued", "stopped"]
    assert sorted(job.state for job in find([tmp_path])) == states
    del sweep  # as at the end of its process
    states = ["failed", "failed", "not started", "stopped"]
    assert sorted(job.state for job in find([tmp_path])) == states


def test_a_sweep_on_slurm_may_continue_without_its_command(
    overrides: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    sweep = begin_sweep([*overrides, "seed=1,2", "launcher=slurm"])
    run = RunFolder.of(composed([*overrides, "seed=1", "quiet=true"]))
    run.root.mkdir(parents=True)
    run.write_text("config.yaml", OmegaConf.to_yaml(composed([*overrides, "seed=1"])))
    run.note_progress(stage="train", unit="epoch", done=1, total=3)
    states = [job.state for job in find([tmp_path])]
    assert states == ["queued", "queued"], "Slurm will requeue a job that it stopped"
    del sweep  # as at the end of its process
    jobs = find([tmp_path])
    assert [job.state for job in jobs] == ["stopped", "not started"]
    assert "squeue" in shown(jobs)


def test_a_lock_is_checked_but_never_written(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path):
        assert is_locked(path)
    path.write_text("somebody's file of that name")
    path.chmod(0o444)
    assert not is_locked(path)
    assert path.read_text() == "somebody's file of that name"


def test_the_newest_sweep_determines_the_state_of_a_job(
    overrides: list[str], tmp_path: Path
) -> None:
    begin_sweep([*overrides, "seed=1,2,3", "train.sup_weight=0.1,7"])
    (first,) = (tmp_path / "sweeps").iterdir()
    first.rename(first.with_name("2000-01-01_00-00-00"))
    assert {job.state for job in find([tmp_path])} == {"not started", "failed"}
    sweep = begin_sweep([*overrides, "seed=1,2", "train.sup_weight=0.1"])
    states = sorted(job.state for job in find([tmp_path]))
    assert states == ["not started", "queued", "queued"]
    del sweep


def test_a_new_sweep_queues_runs_that_failed_before(overrides: list[str], tmp_path: Path) -> None:
    folder = RunFolder.of(composed([*overrides, "seed=1"]))
    folder.root.mkdir(parents=True)
    folder.write_text("config.yaml", OmegaConf.to_yaml(composed([*overrides, "seed=1"])))
    folder.note_progress(failed="no maps")
    assert the_job(tmp_path).state == "failed"
    sweep = begin_sweep([*overrides, "seed=1"])
    assert the_job(tmp_path).state == "queued"
    with folder.held():
        folder.note_progress(stage="maps")
        assert shown([the_job(tmp_path)]).count("running") == 2  # in its line and in the totals
    folder.note_progress(failed="no maps again")
    assert the_job(tmp_path).reason == "no maps again"
    del sweep


def test_a_sweep_that_trains_nothing_lists_nothing(overrides: list[str], tmp_path: Path) -> None:
    begin_sweep([*overrides, "seed=1,2"], job_name="maps")
    assert not (tmp_path / "sweeps").exists()


def test_train_py_records_its_sweep(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "-m", "train.sup_weight=7"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Callback" not in done.stderr
    seen = subprocess.run(
        [sys.executable, str(ROOT / "scripts/status.py"), "outputs", "--once"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert seen.returncode == 0, seen.stderr
    assert "train.sup_weight=7: train.sup_weight=7.0: expected" in " ".join(seen.stdout.split())
    assert "1 failed" in seen.stdout


def job(state: str, **known: object) -> Job:
    settings = {"dataset": {"kind": "mvtec"}, "category": "tile", "seed": 1, "train": {"epochs": 5}}
    return Job("outputs/x", state, settings, "musc", **known)  # type: ignore[arg-type]


def test_time_left_decreases_between_updates_and_silence_is_reported() -> None:
    running = job(
        "running",
        progress=Progress(unit="epoch", done=12, total=50, seconds_left=3900.0, at=1000.0),
    )
    assert status.details(running, 1000.0) == "epoch 12 of 50, 1:05:00 left"
    assert status.details(running, 1060.0) == "epoch 12 of 50, 1:04:00 left"
    assert status.details(running, 4600.0).endswith("0:05:00 left, last update 1:00:00 ago")
    assert status.details(running, 900.0).endswith("1:05:00 left")  # another machine's clock


def test_urgent_jobs_come_first_and_those_without_room_are_counted() -> None:
    jobs = [job("queued")] * 20 + [job("done", scores={"nmi": 0.5, "ari": 0.4, "f1": 0.3})]
    jobs += [job("failed", reason="no maps"), job("running")]
    text = shown(jobs, width=80, room=3)
    lines = text.splitlines()
    assert [line.split()[3] for line in lines[2:5]] == ["running", "failed", "done"]
    assert "0.500 0.400 0.300" in text
    assert lines[-1] == "1 running · 1 failed · 1 done · 20 queued (the first 3 are shown)"
    assert all(len(line) <= 80 for line in lines)
