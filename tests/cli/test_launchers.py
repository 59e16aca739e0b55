"""Sweeps in several processes: which worker has which GPU, and what is requested from Slurm."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode

from anomalyncd.cli.settings import entry
from anomalyncd.errors import InputError
from anomalyncd.runtime import local_gpus, tracking
from anomalyncd.storage.jobs import SWEEP_LOCK
from anomalyncd.storage.run_folder import is_locked

ROOT = Path(__file__).parents[2]
pytest.importorskip("hydra_plugins.hydra_joblib_launcher.joblib_launcher")
submitit_launcher = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
entry.register_schemas()


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Lets a test set CUDA_VISIBLE_DEVICES, and resets what this process has taken."""
    for function in (local_gpus.visible, local_gpus.take):
        function.cache_clear()
    monkeypatch.setattr(local_gpus, "_held", [])
    yield monkeypatch
    for function in (local_gpus.visible, local_gpus.take):
        function.cache_clear()


def another_worker(folder: Path, n_workers: int) -> str:
    return local_gpus.take.__wrapped__(n_workers, str(folder))


def test_each_worker_has_its_own_gpu_and_further_ones_share_them(
    gpus: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-b")
    assert local_gpus.count() == 2
    assert [another_worker(tmp_path, 3) for _ in range(3)] == ["3", "GPU-b", "3"]
    local_gpus._held.pop(1).release()  # as if its process was killed
    assert another_worker(tmp_path, 3) == "GPU-b"


def test_less_than_one_worker_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n_jobs=-1: expected"):
        another_worker(tmp_path, -1)


def test_a_worker_keeps_its_gpu(gpus: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpus.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert local_gpus.take(2, str(tmp_path)) == "5"
    gpus.setenv("CUDA_VISIBLE_DEVICES", "5")  # as Hydra sets it for a job
    assert local_gpus.take(2, str(tmp_path)) == "5"
    assert another_worker(tmp_path, 2) == "6"


def test_without_a_gpu_there_is_one_job_at_a_time(gpus: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpus.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_gpus.count() == 1
    assert another_worker(tmp_path, 2) == another_worker(tmp_path, 2) == ""


# Both jobs wait for each other, so that neither worker can do both.
TASK = """
import os, sys, time
from pathlib import Path
import hydra
from anomalyncd.cli.settings import entry

@hydra.main(version_base="1.3", config_path={configs!r}, config_name="train")
def main(composed):
    config = entry.validated(composed)
    here = Path(composed.output_root)
    (here / f"{{config.seed}} {{os.environ['CUDA_VISIBLE_DEVICES']}}").touch()
    while len(list(here.glob("[12] *"))) < 2:
        time.sleep(0.05)

entry.register_schemas()
main()
"""


def test_local_gpus_runs_jobs_side_by_side_each_on_its_own_gpu(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK.format(configs=str(ROOT / "configs")))
    # dataset=folder needs a resolver of ours, which workers must register too.
    done = subprocess.run(
        [
            *(sys.executable, str(tmp_path / "task.py"), "-m", "launcher=local_gpus", "seed=1,2"),
            *("dataset=folder", "dataset.path=photos", "detector.path=m"),
            f"output_root='{tmp_path}'",
        ],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "7,9", "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    jobs = [path.name.split() for path in tmp_path.glob("[12] *")]
    assert sorted(seed for seed, _ in jobs) == ["1", "2"]
    assert sorted(gpu for _, gpu in jobs) == ["7", "9"]


def test_failures_in_a_launchers_workers_are_reported(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "scripts" / "anomaly_maps.py"), "-m"),
            *("launcher=local_gpus", "hydra.launcher.n_jobs=2", "seed=-1,-2"),
            f"output_root='{tmp_path}'",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "seed=-1: expected" in done.stderr and "seed=-2: expected" in done.stderr


def python_path() -> str:
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def test_slurm_gets_the_requests_of_the_settings() -> None:
    overrides = ["launcher=slurm", "seed=1,2", "hydra.launcher.mem_gb=7", "output_root=out"]
    with initialize_config_dir(str(ROOT / "configs"), "run", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra
        config = hydra.compose_config("train", overrides, RunMode.MULTIRUN)
        launcher = Plugins.instance().instantiate_launcher(
            HydraContext(hydra.config_loader, callbacks=None), print, config
        )
    assert isinstance(launcher, submitit_launcher.SlurmLauncher)
    asked = launcher.params
    assert asked["mem_gb"] == 7
    assert asked["gpus_per_node"] == 1
    assert asked["additional_parameters"] == {"requeue": True}
    assert asked["max_num_timeout"] > 0  # a job that reaches its time limit is requeued
    assert asked["submitit_folder"].startswith("out/sweeps/")
    assert config.quiet


@pytest.mark.parametrize(
    "swept",
    [
        ["seed=1,2", "category=a,b"],
        ["seed=range(1,4)", "tracker.mode=online"],
        ["detector=glob(musc*)", "+hydra.x={a:1}"],
        ["seed=1,2", "quiet=true", "seed=3"],
        ["category=choice('a b',c)", "dataset.path='x,y'"],
    ],
    ids=" ".join,
)
def test_a_sweeps_record_has_the_jobs_that_hydra_runs(swept: list[str]) -> None:
    with initialize_config_dir(str(ROOT / "configs"), "run", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra
        loader = hydra.config_loader
        config = hydra.compose_config("train", [], RunMode.MULTIRUN)
        sweeper: Any = Plugins.instance().instantiate_sweeper(
            hydra_context=HydraContext(loader, callbacks=None), task_function=print, config=config
        )
        overrides = OverridesParser.create(loader).parse_overrides(swept)
        (jobs,) = sweeper.split_arguments(overrides, max_batch_size=None)
        assert [list(job) for job in itertools.product(*entry._choices(overrides))] == jobs


def test_a_sweep_over_an_interval_is_left_for_hydra_to_reject() -> None:
    overrides = OverridesParser.create().parse_overrides(["train.learning_rate=interval(0,1)"])
    with pytest.raises(HydraException):
        entry._choices(overrides)


def test_a_copy_of_a_sweeps_record_does_not_hold_its_lock(tmp_path: Path) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    with initialize_config_dir(str(ROOT / "configs"), "run", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra
        overrides = ["seed=1,2", f"output_root='{tmp_path}'"]
        config = hydra.compose_config("train", overrides, RunMode.MULTIRUN)
        record = entry.SweepRecord()
        record.on_multirun_start(config)
    copy = cloudpickle.loads(cloudpickle.dumps(record))
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert is_locked(sweep / SWEEP_LOCK)
    copy.on_multirun_end(config)
    assert is_locked(sweep / SWEEP_LOCK)
    record.on_multirun_end(config)
    assert not is_locked(sweep / SWEEP_LOCK)


def test_wandb_groups_the_runs_of_a_sweep(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    groups = []

    def init(**settings: object) -> object:
        groups.append(settings["group"])
        return type("Run", (), {"log": lambda *_, **__: None, "finish": lambda _: None})()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb, "init", init)
        with initialize_config_dir(str(ROOT / "configs"), "run", version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra
            overrides = ["seed=1,2", "tracker=wandb"]
            config = hydra.compose_config("train", overrides, RunMode.MULTIRUN)
            sweep = config.hydra.sweep.dir
            for _, composed in entry._sweep_jobs(config, overrides):
                job = entry.validated(composed)
                tracking.create(job.tracker, tmp_path, "run", {}).log({"total": 1.0}, 0)
    assert len(groups) == 2
    assert set(groups) == {Path(sweep).name}
