"""`configs/experiment` and `configs/ablation`: they run what their heads announce."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from anomalyncd.cli.settings import entry
from anomalyncd.config import Config
from anomalyncd.errors import InputError
from anomalyncd.results.aggregate import unlike_published
from anomalyncd.results.published import Figures, all_categories, category_lists, look_up
from anomalyncd.storage.jobs import computed_settings, find

CONFIGS = Path(__file__).parent.parent / "configs"
PUBLISHED = sorted((CONFIGS / "experiment").glob("m*.yaml"))
ABLATIONS = sorted((CONFIGS / "ablation").glob("*.yaml"))
FIGURES = re.compile(r"NMI (\S+) ARI (\S+) F1 (\d\.\d{3})(?:, AUPRO of the maps (\S+))?")
entry.register_schemas()


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return entry.validated(compose("train", list(overrides)))


def begun(*overrides: str) -> DictConfig:
    """What Hydra passes to its sweeper."""
    with initialize_config_dir(str(CONFIGS), "run", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra
        config = hydra.compose_config("train", list(overrides), RunMode.MULTIRUN)
        entry.SweepRecord().on_multirun_start(config)
        return config


def head(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def figures(text: str) -> Figures:
    (found,) = FIGURES.findall(text)
    return {k: float(v) for k, v in zip(("nmi", "ari", "f1", "aupro"), found, strict=True) if v}


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_an_experiment_runs_what_its_head_says(path: Path) -> None:
    dataset, _, maps = path.stem.partition("_")
    text_of_head = head(path)
    assert f"experiment={path.stem}" in text_of_head
    config = composed(f"experiment={path.stem}", *(["category=screw"] * (dataset == "mvtec")))
    assert config.dataset.kind == dataset
    assert config.detector.label.startswith((maps, f"files-{maps.replace('pp', '++')}"))
    departs = unlike_published(computed_settings(asdict(config)))
    published = look_up(dataset, config.detector.label, departs)
    if published:
        beside = {"fpr", "fnr"}  # these are in the head of ablation=binarization
        assert figures(text_of_head) == {k: v for k, v in published.mean.items() if k not in beside}
    else:
        assert "nothing was published" in text_of_head


def test_real_data_can_be_used_without_a_gpu() -> None:
    config = composed("experiment=offline_cpu", "dataset=mtd", "detector.path=m")
    assert (config.backbone.name, config.train.features) == ("embedded", "cached")


def test_every_published_map_has_its_experiment() -> None:
    detectors = ("musc", "patchcore", "efficientad", "reverse_distillation", "rdpp", "pni", "cpr")
    expected = {f"{dataset}_{detector}" for dataset in ("mvtec", "mtd") for detector in detectors}
    assert {path.stem for path in PUBLISHED} == expected


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_runs_each_variant_in_its_own_folder(path: Path, tmp_path: Path) -> None:
    text_of_head = head(path)
    begun(
        *("experiment=mtd_musc", f"ablation={path.stem}"),
        f"output_root='{tmp_path}'",
    )
    jobs = find([tmp_path])
    assert {job.state for job in jobs} == {"not started"}, [job.reason for job in jobs]
    counted = re.search(r"(\d+) runs per category", text_of_head)
    assert len(jobs) == (int(counted[1]) if counted else 2 if "twice" in text_of_head else 1)
    if path.stem == "ground_truth_masks":
        assert jobs[0].settings["mebin"]["erosion"] == 0
        departs = unlike_published(computed_settings(jobs[0].settings))
        del departs["fusion.temperature"]  # of MTD
        published = look_up("mvtec", "ground_truth", departs)
        assert published and f"NMI {published.mean['nmi']}" in text_of_head


def test_the_ablation_of_the_mask_states_the_published_figures() -> None:
    lines = head(CONFIGS / "ablation" / "masked_queries.yaml").splitlines()
    found = {line.split()[1]: figures(line) for line in lines if "NMI" in line}
    designs = {design: {"attention.masked_queries": design} for design in found}
    designs["class_token"] = {}  # the method
    published = {design: look_up("mvtec", "musc", departs) for design, departs in designs.items()}
    assert len(found) == 4
    for design, method in published.items():
        assert method
        assert found[design] == {key: method.mean[key] for key in ("nmi", "ari", "f1")}


def test_textures_and_objects_together_are_all_categories() -> None:
    lists = category_lists()
    assert (
        set(lists["all"]) == {*lists["textures"], *lists["objects"]} == {*all_categories("mvtec")}
    )
    assert [len(lists[name]) for name in ("all", "textures", "objects")] == [15, 5, 10]


def test_a_sweep_runs_each_category_of_a_list_once(tmp_path: Path) -> None:
    overrides = [f"output_root='{tmp_path}'", "experiment=mvtec_musc,mvtec_cpr", "seed=1"]
    config = begun(*overrides, "category=textures,screw,carpet")
    assert list(config.hydra.overrides.task)[-1] == "category=carpet,grid,leather,tile,wood,screw"
    listed = [(job.detector[:5], job.settings["category"]) for job in find([tmp_path])]
    products = ("carpet", "grid", "leather", "screw", "tile", "wood")
    assert sorted(listed) == [(maps, name) for maps in ("files", "musc-") for name in products]


@pytest.mark.parametrize("dataset", ["mtd", "demo", "mvtec,mtd"])
def test_a_list_of_categories_is_only_for_mvtec(dataset: str, tmp_path: Path) -> None:
    begun(
        *(f"dataset={dataset}", "category=all", "detector=musc"),
        f"output_root='{tmp_path}'",
    )
    jobs = find([tmp_path])
    assert len(jobs) == dataset.count(",") + 1
    message = "category=all stands for 15 products of MVTec AD; "
    assert all(job.state == "failed" and message in job.reason for job in jobs)


def test_a_list_of_categories_needs_a_sweep() -> None:
    with pytest.raises(InputError, match=r"category=objects stands for 10 .* add -m"):
        composed("experiment=mvtec_musc", "category=objects")


def test_a_folder_may_have_the_name_of_a_list(tmp_path: Path) -> None:
    config = composed("dataset=folder", f"dataset.path='{tmp_path}/all'", "detector.path=m")
    assert config.category == "all"
