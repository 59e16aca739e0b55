"""Composition of `configs/`: defaults of each choice, and rejected settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalyncd.cli.settings import entry
from anomalyncd.config import RELEASE, Config
from anomalyncd.errors import InputError

CONFIGS = Path(__file__).parent.parent / "configs"
entry.register_schemas()


def composed(*overrides: str, name: str = "train") -> Config:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return entry.validated(compose(name, list(overrides)))


MVTEC = ("dataset=mvtec", "category=screw", "detector.path=maps")


def test_the_default_is_the_offline_demo() -> None:
    config = composed()
    assert (config.dataset.kind, config.base.kind, config.detector.kind) == (
        "demo",
        "demo",
        "musc",
    )
    assert config.backbone.name == config.detector.backbone.name == "embedded"


@pytest.mark.parametrize(("dataset", "temperature"), [("mvtec", 100), ("mtd", 50)])
def test_datasets_select_the_published_settings(dataset: str, temperature: float) -> None:
    config = composed(*MVTEC, f"dataset={dataset}")
    assert config.backbone.name == "vit_base_patch8_224.dino"
    assert config.backbone.pretrained
    assert config.backbone.image_size == 224
    assert config.base.path.endswith("data/aebad")  # type: ignore[attr-defined]
    assert config.fusion.temperature == temperature
    train = config.train
    assert (train.epochs, train.batch_size, train.learning_rate, train.weight_decay) == (
        50,
        32,
        3e-3,
        5e-5,
    )
    assert (config.attention.masked_blocks, config.attention.masked_queries) == (9, "class_token")
    assert config.seed == 3407


def test_the_defaults_of_a_dataset_can_be_overridden() -> None:
    config = composed(
        "dataset=mvtec", "category=a", "base=none", "backbone=dino_vits16", "detector=ground_truth"
    )
    assert (config.base.kind, config.detector.kind) == ("none", "ground_truth")
    assert config.backbone.name == "vit_small_patch16_224.dino"
    assert config.mebin.erosion == 0


@pytest.mark.parametrize("group", ["base", "backbone", "detector", "tracker"])
def test_every_choice_composes(group: str) -> None:
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        extra = {
            "folder": ["base.path=b"],
            "files": ["detector.path=m"],
            "custom": [f"{group}.target=a:B"],
            "anomalib": ["detector.model=padim"],
            "simulated": ["dataset=demo"],
        }.get(path.stem, [])
        dataset = MVTEC if group != "detector" else MVTEC[:2]
        composed(*dataset, f"{group}={path.stem}", *extra)


def test_musc_may_use_the_backbone_of_the_run() -> None:
    config = composed(
        *MVTEC[:2], "detector=musc", "detector.backbone=${backbone}", "backbone=dino_vits16"
    )
    assert config.detector.backbone == config.backbone  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mebin.stepp=3"], "stepp"),
        (["train.epochs=many"], "could not be converted to Integer"),
        (["dataset=nowhere"], "nowhere"),
        ([*MVTEC, "detector=ground_truth"], "detector.path"),
        (["detector=ground_truth", "detector.seed=1"], "seed"),
        (["detector=musc", "detector.degrees=[2]"], "detector.degrees=[2]: expected odd"),
        (["detector=custom"], "not set: detector.target"),
        (["dataset=mvtec"], "not set: category, detector.path; add category=… detector.path=…"),
        (["novel_classes=1"], "novel_classes=1: expected auto, estimate, or a number"),
        (["novel_classes=few"], "novel_classes=few"),
        ([*MVTEC, "detector=simulated", "~detector.path"], "detector.path"),
        (["dataset=folder", "dataset.path=x", "detector=simulated"], "detector=simulated is for"),
        (["dataset=folder", "dataset.path=x", "detector=ground_truth"], "needs truth masks"),
        (
            ["attention.masked_queries=cls"],
            "attention.masked_queries=cls: expected one of class_token",
        ),
        (["regions.resize_mode=squash"], "regions.resize_mode=squash: expected one of letterbox"),
        (["mebin.search_range=[9,3]"], "0 ≤ lo ≤ hi ≤ 255"),
        (["mebin.step=0"], "mebin.step=0"),
        (["mebin.erosion=100000"], "mebin.erosion=100000: expected 0 (none) to 255 pixels"),
        (["max_megapixels=0"], "max_megapixels=0: expected 1 to 1000"),
        (["max_megapixels=1001"], "max_megapixels=1001: expected 1 to 1000"),
        (["mebin.method=mean"], "mebin.method=mean: expected one of mebin, fixed, otsu, adaptive"),
        (["mebin.normal_probability=1"], "normal_probability=1.0: expected above 0 and below 1"),
        (["mebin.method=adaptive", "mebin.gate=300"], "mebin.gate=300.0: expected 0 to 255"),
        (["mebin.gate=30"], "mebin.method=mebin: only adaptive has a gate"),
        (["mebin.threshold=1"], "mebin.threshold=1.0: expected 0 or more and below 1"),
        (["regions.full_mask=black"], "regions.full_mask=black: expected one of keep, empty"),
        (["compat=releases"], "releases"),
        (
            ["compat=release", "regions.resize_mode=stretch"],
            "compat=release computes regions.resize_mode=compat",
        ),
        (["compat=release", "novel_classes=3"], "compat=release computes novel_classes=auto"),
        (["mebin.search_range=[0,inf]"], "0 ≤ lo ≤ hi ≤ 255"),
        (["seed=-1"], "seed=-1"),
        (["dataset.seed=-1"], "dataset.seed=-1"),
        (["train.momentum=-1"], "train.momentum"),
        (["train.memax_weight=nan"], "train.memax_weight=nan"),
        (["backbone.image_size=16"], "backbone.image_size=16: expected 17 to 4096"),
        (["backbone.image_size=1000000000"], "backbone.image_size=1000000000: expected 17 to 4096"),
        (["detector.backbone.image_size=99999"], "backbone.image_size=99999"),
        (["detector.map_size=1000000"], "detector.map_size=1000000: expected 1 to 4096"),
        (["detector.stages=100000000"], "detector.stages=100000000"),
        (["detector.degrees=[1000001]"], "detector.degrees=[1000001]"),
        (["detector.windows=[9223372036854775807]"], "detector.windows=[9223372036854775807]"),
        (["detector.memory_gb=inf"], "detector.memory_gb=inf: expected above 0, at most"),
        (["detector=patchcore", "detector.image_size=10000000"], "detector.image_size=10000000"),
        (["train.heads=1000000000"], "train.heads=1000000000: expected 1 to 1000"),
        (["train.hidden=1000000000"], "train.hidden=1000000000: expected 1 to 16384"),
        (["train.bottleneck=1000000000"], "train.bottleneck=1000000000: expected 1 to 16384"),
        (["train.cached_views=1000000000"], "train.cached_views=1000000000: expected 2 to 1000"),
        (["train.batch_size=9223372036854775807"], "train.batch_size=9223372036854775807"),
        (["train.epochs=9223372036854775807"], "train.epochs=9223372036854775807"),
        (["train.temperature_steps=1000000000000"], "train.temperature_steps=1000000000000"),
        (["train.student_temperature=inf"], "train.student_temperature=inf"),
        (["fusion.temperature=nan"], "fusion.temperature=nan: expected above 0, at most"),
        (["dataset.per_class=1000000000000"], "dataset.per_class=1000000000000: expected 0 to"),
        (["base.per_class=1000000000000"], "base.per_class=1000000000000: expected 1 to"),
        (
            ["novel_classes=9223372036854775807"],
            "expected auto, estimate, or a number from 2 to 10000",
        ),
        (["attention.masked_blocks=-1"], "attention.masked_blocks=-1"),
        (["detector.kind=ground_truth"], "as detector=files, not detector.kind=files"),
        (["base.kind=none"], "kind=none does not replace demo"),
        (["output_root="], "output_root is empty"),
        (["category=."], "category=.: expected one folder"),
        (["train.batch_size=1"], "train.batch_size=1"),
        (["fusion.temperature=0"], "fusion.temperature=0"),
        (["category=../up"], "category=../up: expected one folder's name"),
        (["tracker.mode=maybe"], "tracker.mode=maybe"),
        (["forward_batch=0"], "forward_batch=0: expected 1 to 65536"),
    ],
)
def test_invalid_settings_are_rejected(overrides: list[str], message: str) -> None:
    with pytest.raises((InputError, HydraException, OmegaConfBaseException)) as caught:
        composed(*overrides)
    shown = str(caught.value) + str(caught.value.__cause__ or "")
    assert message in shown


@pytest.mark.parametrize("dataset", ["demo", "mvtec", "mtd"])
def test_compat_sets_exactly_the_settings_of_the_release(dataset: str) -> None:
    choice = [f"dataset={dataset}", *MVTEC[1:]] if dataset != "demo" else []
    choice.append("tracker=none")  # wandb's group is named by the second
    sound, release = (asdict(composed(*choice, *compat)) for compat in ([], ["compat=release"]))
    assert sound["compat"] == "none"
    for key, value in {**RELEASE, "compat": "release"}.items():
        group, _, name = key.rpartition(".")
        assert (release[group] if group else release)[name] == value
        (sound[group] if group else sound)[name] = value
    assert release == sound


def test_compat_overrides_the_defaults_of_an_experiment() -> None:
    config = composed(*MVTEC, "experiment=offline_cpu", "compat=release", "mebin.method=otsu")
    assert (config.regions.resize_mode, config.train.hidden, config.mebin.method) == (
        "compat",
        512,
        "otsu",
    )
    assert config.train.features == "online"


def test_a_run_folder_is_determined_by_what_is_computed() -> None:
    from anomalyncd.storage.run_folder import RunFolder

    def folder(*overrides: str) -> Path:
        return RunFolder.of(composed(*overrides)).root

    default = folder()
    assert default.parts[:4] == ("outputs", "demo", "demo", "musc-embedded")
    assert default.name == "seed-3407"
    resources = ("detector.memory_gb=1", "forward_batch=8")
    for other_machine in (
        *resources,
        "quiet=true",
        "tracker=none",
        "device=cpu",
        "rerun=true",
        "debug=true",
    ):
        assert folder(other_machine) == default
    for other in ("train.epochs=3", "seed=1", "base=none", "dataset.seed=3", "mebin.step=2"):
        assert folder(other) != default
    a, b = (folder(*MVTEC, f"detector.path=maps/{name}") for name in ("musc", "patchcore"))
    assert a.parts[3] == "files-musc"
    assert b.parts[3] == "files-patchcore"
    for spelling in ("./maps/musc", "maps/patchcore/../musc/", str(Path("maps/musc").absolute())):
        assert folder(*MVTEC, f"detector.path={spelling}") == a
    weights = [
        f"backbone.checkpoint={path}" for path in ("w.pth", "./w.pth", Path("w.pth").absolute())
    ]
    assert len({folder(*MVTEC, path) for path in weights}) == 1
    assert folder("output_root=elsewhere").parts[0] == "elsewhere"
    for odd in ("backbone.name=../../../evil", "category='a:b '", "dataset.seed=1"):
        root = folder(odd)
        assert root.parts[0] == "outputs"
        assert len(root.parts) == 6
        assert not set('<>:"|?*\\') & set(str(root))


def test_the_stored_configuration_composes_again() -> None:
    text = OmegaConf.to_yaml(OmegaConf.structured(composed()))
    assert OmegaConf.create(text).train.epochs == composed().train.epochs
