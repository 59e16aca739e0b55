"""anomalib's models as detectors, MEBin in anomalib's pipelines, its AUPRO; without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anomalyncd.config import AnomalibDetectorConfig
from anomalyncd.data import demo
from anomalyncd.detectors.anomalib import AnomalibDetector
from anomalyncd.errors import InputError
from anomalyncd.regions import mebin
from anomalyncd.types import Dataset, Sample

pytest.importorskip(
    "anomalib", reason="needs the optional extra: pip install 'anomalyncd[anomalib]'"
)

from anomalyncd.anomalib import MainElementPostProcessor
from anomalyncd.anomalib.aupro import aupro

PATCHCORE = {
    "model": "patchcore",
    "options": {
        "backbone": "resnet18",
        "layers": ["layer1"],
        "pre_trained": False,
        "coreset_sampling_ratio": 0.02,
    },
    "image_size": 64,
}
PADIM = {
    "model": "padim",
    "options": {"layers": ["layer1"], "n_features": 8, "pre_trained": False},
    "image_size": 64,
}
EFFICIENTAD = {
    "model": "efficientad",
    "options": {"teacher_out_channels": 16, "pre_trained": False},
    "steps": 2,
}


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("anomalib") / "product"
    demo.draw(root, side=96, train=4, good=2, per_class=1, combined=0)
    return root


@pytest.fixture(scope="session")
def dataset(product: Path) -> Dataset:
    images = [product / "test" / name for name in ("good/000.png", "hole/000.png", "chip/000.png")]
    samples = tuple(Sample(f"{path.parent.name}/{path.stem}", path) for path in images)
    return Dataset(samples, None, tuple(sorted((product / "train/good").iterdir())))


@pytest.fixture(autouse=True)
def no_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """anomalib makes folders in the user's cache, even where it downloads nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def detector(**settings: Any) -> AnomalibDetector:
    return AnomalibDetector(AnomalibDetectorConfig(**settings), torch.device("cpu"))


def maps_of(dataset: Dataset, **settings: Any) -> list[NDArray]:
    return list(detector(**settings).maps(dataset))


def error_of(dataset: Dataset, **settings: Any) -> str:
    with pytest.raises(InputError) as error:
        maps_of(dataset, **settings)
    return str(error.value)


# Detectors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "side"), [(PATCHCORE, 64), (PADIM, 64), (EFFICIENTAD, 256)], ids=str
)
def test_a_model_gives_one_map_per_image_and_leaves_nothing_behind(
    settings: dict[str, Any],
    side: int,
    product: Path,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if settings is EFFICIENTAD:
        natural = {"imagenet_dir": str(product / "train")}
        settings = settings | {"options": settings["options"] | natural}
    monkeypatch.chdir(tmp_path)
    random_state = torch.get_rng_state()
    maps = maps_of(dataset, **settings)
    assert [(m.shape, m.dtype) for m in maps] == [((side, side), np.float32)] * len(dataset.samples)
    assert all(np.isfinite(m).all() and np.ptp(m) > 0 for m in maps)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_maps_are_raw_scores_in_the_order_of_the_samples(dataset: Dataset) -> None:
    maps = maps_of(dataset, **PADIM)
    assert max(m.max() for m in maps) > 1  # a Mahalanobis distance; anomalib's scaling ends at 1
    backwards = Dataset(dataset.samples[::-1], None, dataset.train)
    for one, other in zip(maps, maps_of(backwards, **PADIM)[::-1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_options_and_seed_reach_the_model(dataset: Dataset) -> None:
    options = PADIM["options"] | {"n_features": 4}
    for change in ({"options": options}, {"seed": 1}):
        changed = maps_of(dataset, **(PADIM | change))
        assert not np.allclose(changed[0], maps_of(dataset, **PADIM)[0], rtol=1e-3)
        assert detector(**PADIM).key(dataset) != detector(**(PADIM | change)).key(dataset)


def test_maps_depend_on_the_pictures_that_an_option_names(tmp_path: Path, dataset: Dataset) -> None:
    options = {"imagenet_dir": str(tmp_path)}
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "0.png").write_bytes(b"one")
    before = detector(model="efficientad", steps=2, options=options).key(dataset)
    (tmp_path / "kind" / "0.png").write_bytes(b"other")
    assert detector(model="efficientad", steps=2, options=options).key(dataset) != before


def test_a_wrong_name_or_option_is_reported_with_the_valid_ones(dataset: Dataset) -> None:
    assert "such as patchcore" in error_of(dataset, model="patchkore")
    message = error_of(dataset, model="efficient_ad", options={"size": "s"})
    assert "no such option" in message and "model_size" in message
    message = error_of(dataset, **(PADIM | {"options": PADIM["options"] | {"layers": ["layer9"]}}))
    assert "ValueError" in message and "detector.options" in message


@pytest.mark.parametrize("key", ["epochs", "steps", "image_size", "batch_size"])
def test_settings_are_positive(key: str) -> None:
    with pytest.raises(InputError, match=f"detector.{key}=0"):
        AnomalibDetectorConfig(model="padim", **{key: 0})


def test_missing_training_images_or_durations_are_reported(product: Path, dataset: Dataset) -> None:
    assert "defect-free" in error_of(Dataset(dataset.samples, None), **PADIM)
    assert "detector.steps=" in error_of(dataset, model="efficientad")
    options = {"imagenet_dir": str(product / "train/good")}  # no sub-folders
    assert "imagenette" in error_of(dataset, model="efficientad", steps=1, options=options)


def test_no_network_is_explained(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("timm.create_model", unreachable)
    message = error_of(dataset, model="patchcore", options={"backbone": "resnet18"})
    assert "detector.model=patchcore" in message and "pre_trained=false" in message


def test_without_anomalib_the_message_says_what_to_install(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "anomalyncd.detectors.anomalib_models")
    monkeypatch.setitem(sys.modules, "anomalib", None)
    assert "pip install 'anomalyncd[anomalib]'" in error_of(dataset, **PADIM)


# Post-processor -----------------------------------------------------------------------------------


def drawn_scores(n: int = 9, side: int = 72) -> torch.Tensor:
    """(n, side, side) float32 of any range: noise, and blobs of varied strength."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    scores = rng.normal(0, 0.03, (n, side, side))
    for index in range(n):
        for _ in range(index % 4):
            cy, cx, radius = *rng.uniform(8, side - 8, 2), rng.uniform(5, 10)
            scores[index] += rng.uniform(1, 3) * np.exp(
                -((y - cy) ** 2 + (x - cx) ** 2) / radius**2
            )
    return torch.tensor(scores * 7 - 3, dtype=torch.float32)


def official_maps(scores: torch.Tensor) -> list[NDArray[np.uint8]]:
    """The release's normalisation, in NumPy."""
    values = scores.numpy().astype(np.float64)
    levels = (values - values.min()) * (255 / np.ptp(values)) + 1e-9
    return list(levels.clip(0, 255).astype(np.uint8))


def batches(scores: torch.Tensor, size: int) -> list[Any]:
    from anomalib.data import ImageBatch

    return [
        ImageBatch(
            image=torch.zeros(len(part), 3, 4, 4), anomaly_map=part, pred_score=part.amax((1, 2))
        )
        for part in scores.split(size)
    ]


def validated(scores: torch.Tensor, size: int = 4, **settings: Any) -> MainElementPostProcessor:
    processor = MainElementPostProcessor(**settings)
    for batch in batches(scores, size):
        processor.on_validation_batch_end(None, None, batch)
    processor.on_validation_epoch_end(None, None)
    return processor


@pytest.mark.parametrize("size", [1, 4, 9])
@pytest.mark.parametrize(
    "settings", [{}, {"step": 7, "min_interval": 2, "erosion": 3}], ids=["default", "other"]
)
def test_masks_equal_mebin_on_the_category_for_any_batch_size(
    size: int, settings: dict[str, int]
) -> None:
    scores = drawn_scores()
    processor = validated(scores, size, **settings)
    done = batches(scores, size)
    for batch in done:
        processor.on_test_batch_end(None, None, batch)
    expected = mebin.binarize(official_maps(scores), **settings)
    assert {e.count for e in expected} >= {0, 1, 2}
    masks, counts, thresholds = (
        torch.cat([getattr(batch, name) for batch in done])
        for name in ("pred_mask", "element_counts", "element_thresholds")
    )
    np.testing.assert_array_equal(masks.numpy(), np.stack([e.mask for e in expected]))
    assert counts.tolist() == [e.count for e in expected]
    assert thresholds.tolist() == [e.threshold for e in expected]
    assert all(batch.anomaly_map.min() >= 0 and batch.anomaly_map.max() <= 1 for batch in done)


def test_inference_equals_test_and_state_is_saved() -> None:
    from anomalib.data import InferenceBatch

    scores = drawn_scores()
    processor = validated(scores, step=5)
    loaded = MainElementPostProcessor()
    loaded.load_state_dict(processor.state_dict())
    loaded.load_checkpoint_config(processor.checkpoint_config())
    masks = loaded(InferenceBatch(None, None, scores[:, None], None)).pred_mask
    assert masks.shape == scores[:, None].shape
    assert torch.equal(masks[:, 0], processor.main_elements(scores).masks)


def test_range_is_that_of_the_last_validation() -> None:
    scores = drawn_scores()
    processor = validated(scores * 100 + 5)
    for batch in batches(scores, 2):
        processor.on_validation_batch_end(None, None, batch)
    processor.on_validation_epoch_end(None, None)
    masks = processor.main_elements(scores).masks
    assert torch.equal(masks, validated(scores).main_elements(scores).masks)


def test_before_validation_there_is_no_range() -> None:
    with pytest.raises(InputError, match="validate"):
        MainElementPostProcessor().post_process_batch(batches(drawn_scores(), 9)[0])


def test_equal_maps_have_no_main_element() -> None:
    scores = torch.full((3, 8, 8), 2.5)
    assert validated(scores).main_elements(scores).counts.tolist() == [0, 0, 0]


def test_patchcore_with_main_elements_through_anomalibs_engine(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore

    def model() -> Any:
        return Patchcore(
            **PATCHCORE["options"],
            pre_processor=Patchcore.configure_pre_processor((64, 64)),
            post_processor=MainElementPostProcessor(erosion=2),
            evaluator=False,
            visualizer=False,
        )

    raw: list[torch.Tensor] = []
    seen = MainElementPostProcessor.main_elements
    monkeypatch.setattr(
        MainElementPostProcessor,
        "main_elements",
        lambda self, maps: (raw.append(maps.as_subclass(torch.Tensor).clone()), seen(self, maps))[
            1
        ],
    )
    data = Folder(
        "drawn",
        root=product,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/hole",
        num_workers=0,
        eval_batch_size=2,
        val_split_mode="same_as_test",
    )
    engine = Engine(default_root_dir=tmp_path, enable_progress_bar=False, accelerator="cpu")
    engine.fit(model(), datamodule=data)
    predicted = engine.predict(datamodule=data)
    expected = mebin.binarize(official_maps(torch.cat(raw)), erosion=2)
    masks = torch.cat([batch.pred_mask for batch in predicted])
    np.testing.assert_array_equal(masks.numpy(), np.stack([e.mask for e in expected]))
    counts = torch.cat([batch.element_counts for batch in predicted])
    assert counts.tolist() == [e.count for e in expected]

    restored = Patchcore.load_from_checkpoint(
        engine.best_model_path, post_processor=MainElementPostProcessor()
    )
    assert restored.post_processor.erosion == 2
    again = restored.post_processor.main_elements(torch.cat(raw))
    assert torch.equal(again.masks, masks.as_subclass(torch.Tensor))


# AUPRO --------------------------------------------------------------------------------------------


def test_aupro_by_hand() -> None:
    masks: list[NDArray | None] = [np.zeros((32, 32), bool), None]
    masks[0][2:6, 2:6] = masks[0][20:30, 20:30] = True  # two regions count alike
    perfect = [np.uint8(255) * masks[0], np.zeros((32, 32), np.uint8)]
    assert aupro(perfect, masks, size=32) == pytest.approx(1)
    blind = [np.full((32, 32), 9, np.uint8)] * 2  # the diagonal up to 0.3
    assert aupro(blind, masks, size=32) == pytest.approx(0.15, abs=1e-5)
    half = [perfect[0] * (np.arange(32) < 10), perfect[1]]  # from (0, ½) straight to (1, 1)
    assert aupro(half, masks, size=32) == pytest.approx(0.575, abs=1e-5)


def test_aupro_compares_at_one_size_and_needs_a_defect() -> None:
    mask = np.zeros((64, 48), bool)
    mask[:32] = True
    scores = np.where(mask[::2, ::2], np.uint8(200), np.uint8(0))
    assert aupro(iter([scores]), iter([mask]), size=32) > 0.99
    assert aupro([scores], [None]) is None
    speck = np.zeros((1024, 1024), bool)
    speck[500:502, 500:502] = True  # must not vanish as the mask shrinks
    assert aupro([np.zeros((64, 64), np.uint8)], [speck], size=32) is not None
