"""MuSc against a plain implementation of its formulas, its properties, and the detector."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from anomalyncd.config import BackboneConfig, MuscDetectorConfig
from anomalyncd.detectors import descriptors, mutual_scoring
from anomalyncd.detectors.musc import MuscDetector
from anomalyncd.errors import InputError
from anomalyncd.types import Dataset, Sample
from tests.oracles import musc as oracle

CPU = torch.device("cpu")
seeds = st.integers(0, 2**32 - 1)


def unit_vectors(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def least_memory(n: int, p: int, d: int) -> int:
    """The smallest budget, read from the error message."""
    with pytest.raises(ValueError, match="at least") as raised:
        mutual_scoring.plan_blocks(n, p, d, torch.float32, memory=0)
    return int(str(raised.value).split("at least ")[1].split()[0])


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(2, 5)),
    degree=st.sampled_from([1, 3, 5]),
    seed=seeds,
)
def test_aggregation_equals_the_plain_implementation(
    shape: tuple[int, int, int, int], degree: int, seed: int
) -> None:
    tokens = np.random.default_rng(seed).normal(size=shape)
    ours = mutual_scoring.aggregate(torch.from_numpy(tokens), degree)
    # A mean that vanishes has no direction, which rounding then decides.
    np.testing.assert_allclose(ours, oracle.aggregate(tokens, degree), atol=2e-3)


@given(
    n=st.integers(2, 9),
    p=st.integers(1, 7),
    d=st.integers(1, 5),
    topmin_max=st.sampled_from([0.01, 0.3, 0.5, 1.0]),
    spare=st.integers(0, 4000),
    seed=seeds,
)
def test_scores_equal_the_plain_implementation_with_any_memory(
    n: int, p: int, d: int, topmin_max: float, spare: int, seed: int
) -> None:
    features = unit_vectors(n, p, d, seed=seed)
    memory = least_memory(n, p, d) + spare
    shares: list[float] = []
    ours = mutual_scoring.mutual_scores(
        features, topmin_max=topmin_max, device=CPU, memory=memory, on_share=shares.append
    )
    np.testing.assert_allclose(ours, oracle.mutual_scores(features, topmin_max), atol=1e-3)
    assert shares == sorted(set(shares)) and shares[0] > 0 and shares[-1] == 1


@pytest.mark.parametrize(
    ("spare", "expected"),
    [(0, (1, 1, 1)), (4000, (2, 4, 1)), (30_000, (5, 20, 4)), (10**6, (20, 20, 1))],
)
def test_memory_decides_the_blocks(spare: int, expected: tuple[int, int, int]) -> None:
    n, p, d = 20, 7, 5
    memory = least_memory(n, p, d) + spare
    assert mutual_scoring.plan_blocks(n, p, d, torch.float32, memory) == expected
    features = unit_vectors(n, p, d)
    ours = mutual_scoring.mutual_scores(features, memory=memory)
    np.testing.assert_allclose(ours, oracle.mutual_scores(features, 0.3), atol=1e-4)


@given(order=st.permutations(range(7)), seed=seeds)
def test_the_order_of_images_does_not_matter(order: list[int], seed: int) -> None:
    features = unit_vectors(7, 4, 6, seed=seed)
    scores = mutual_scoring.mutual_scores(features)
    permuted = mutual_scoring.mutual_scores(features[order])
    np.testing.assert_allclose(permuted, scores[torch.tensor(order)], atol=1e-3)


@given(image=st.integers(0, 7), patch=st.integers(0, 9), seed=seeds)
def test_the_odd_patch_scores_highest(image: int, patch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = unit_vectors(10, 8, seed=seed)[None] + 0.02 * rng.normal(size=(8, 10, 8))
    features[image, patch] = -features[image].mean(axis=0)  # away from all of them
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    usual = np.delete(features.reshape(-1, 8), image * 10 + patch, axis=0)
    assume(np.linalg.norm(usual - features[image, patch], axis=1).min() > 0.3)
    scores = mutual_scoring.mutual_scores(features)
    assert int(scores.argmax()) == image * 10 + patch


def test_images_that_are_alike_score_nothing() -> None:
    features = np.repeat(unit_vectors(1, 6, 32), 5, axis=0)
    assert mutual_scoring.mutual_scores(features).max() < 1e-3


def test_a_copy_hides_an_anomaly_only_among_few() -> None:
    """Three of ten images are averaged, so one copy does not lower the score."""
    features = np.repeat(unit_vectors(1, 6, 32), 11, axis=0)
    features[:2, 2] = unit_vectors(1, 32, seed=1)
    scores = mutual_scoring.mutual_scores(features)
    apart = np.linalg.norm(features[0, 2] - features[5], axis=1).min()
    np.testing.assert_allclose(scores[:2, 2], 2 / 3 * apart, rtol=1e-3)
    assert scores[2:].max() < 1e-3


def test_half_precision_keeps_small_distances() -> None:
    a = torch.from_numpy(unit_vectors(50, 64))
    b = a + 0.01 * torch.from_numpy(unit_vectors(50, 64, seed=1))
    a, b = a.half(), b.half()
    true = (a.double() - b.double()).norm(dim=1)
    lifted = (
        (mutual_scoring.lift(a, right=False) @ mutual_scoring.lift(b, right=True).T)
        .diagonal()
        .double()
    )
    assert ((-2 * lifted).clamp(min=0).sqrt() / true - 1).abs().max() < 0.02
    plain = (2 - 2 * (a @ b.T).diagonal().double()).clamp(min=0).sqrt()
    assert (plain / true - 1).abs().max() > 0.5


def test_a_single_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 image: expected at least 2"):
        mutual_scoring.mutual_scores(unit_vectors(1, 3, 4))


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
def test_memory_stays_within_the_budget() -> None:
    """All distances at once would be 2.6 GB, and those to each image's nearest patch 10 MB."""
    code = """
import resource, torch
from anomalyncd.detectors import mutual_scoring
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
features = torch.nn.functional.normalize(torch.randn(100, 256, 32), dim=-1).numpy()
mutual_scoring.mutual_scores(features[:5])
before = peak()
mutual_scoring.mutual_scores(features, memory=32 << 20)
print(peak() - before)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 36 << 20


@given(n=st.integers(2, 8), windows=st.lists(st.integers(1, 9), min_size=1), seed=seeds)
def test_reweighting_equals_the_plain_implementation(n: int, windows: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, tokens = rng.uniform(size=n), rng.uniform(0.1, 1, size=(n, 16))
    ours = mutual_scoring.reweight(torch.from_numpy(scores), torch.from_numpy(tokens), windows)
    np.testing.assert_allclose(ours, oracle.reweight(scores, tokens, windows), atol=1e-5)


def test_reweighting_lowers_a_single_peak_among_similar_images() -> None:
    tokens = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    scores = torch.tensor([1.0, 0, 2, 2])
    found = mutual_scoring.reweight(scores, tokens, windows=[2])
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 2, 2]))
    torch.testing.assert_close(mutual_scoring.reweight(scores, tokens, windows=[1]), scores)
    # An image unlike all others counts alone, however wide the window.
    torch.testing.assert_close(
        mutual_scoring.reweight(scores[:2], torch.eye(2), windows=[9]), scores[:2]
    )


def draw_images(folder: Path, count: int = 6, side: int = 128) -> Dataset:
    """One texture, a little noise, and on the third image a pasted square."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    texture = rng.integers(90, 160, (side // 4, side // 4, 3)).repeat(4, 0).repeat(4, 1)
    samples = []
    for index in range(count):
        image = texture + rng.integers(-3, 4, texture.shape)
        if index == 2:
            image[64:96, 16:48] = [250, 20, 20]
        path = folder / f"{index}.png"
        Image.fromarray(image.astype(np.uint8)).save(path)
        samples.append(Sample(path.stem, path))
    return Dataset(tuple(samples), None)


TINY = BackboneConfig("vit_tiny_patch16_224", pretrained=False, image_size=128)
CONFIG = MuscDetectorConfig(backbone=TINY, stages=2, degrees=[1, 3], map_size=64)


def maps_of(config: MuscDetectorConfig, dataset: Dataset, workspace: Path) -> Tensor:
    detector = MuscDetector(config, CPU, workspace)
    return torch.from_numpy(np.stack(list(detector.maps(dataset))))


@pytest.mark.parametrize("network", [TINY, None], ids=["untrained ViT", "descriptors"])
def test_detector_finds_what_one_image_alone_has(
    tmp_path: Path, network: BackboneConfig | None
) -> None:
    workspace = tmp_path / "work"
    config = replace(CONFIG, backbone=network)
    maps = maps_of(config, draw_images(tmp_path / "images"), workspace)
    assert maps.shape == (6, 64, 64) and maps.dtype == torch.float32
    image, at = divmod(int(maps.argmax()), 64 * 64)
    y, x = divmod(at, 64)
    assert image == 2 and 32 <= y < 48 and 8 <= x < 24
    assert maps[2].max() > 1.5 * maps[[0, 1, 3, 4, 5]].max()
    assert not any(workspace.iterdir())


def test_reweighted_maps_are_scaled_as_a_whole(tmp_path: Path) -> None:
    dataset = draw_images(tmp_path / "images")
    plain = maps_of(CONFIG, dataset, tmp_path)
    scaled = maps_of(replace(CONFIG, reweight=True, windows=[6]), dataset, tmp_path)
    peaks, wanted = plain.amax((1, 2)), scaled.amax((1, 2))
    torch.testing.assert_close(scaled, plain * (wanted / peaks)[:, None, None])
    assert peaks.min() < wanted[2] < peaks[2]


def test_descriptors_hold_content_and_position_of_a_cell() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[0, 0, :8, :8] = 0.6  # a red cell
    image[0, :, 20, 20] = 0.9  # a white pixel
    cells = descriptors.describe(image)
    assert cells.shape == (1, 4, 4, 9)
    torch.testing.assert_close(cells[0, 0, 0, :3], torch.tensor([0.6, 0, 0]))
    torch.testing.assert_close(cells[0, 2, 2, 7:], torch.tensor([0.9, 0]))  # brightest, darkest
    assert cells[0, 0, 0, 4] > 0 and cells[0, 0, 0, 3] == 0  # darker to the right
    assert cells[0, 3, 0].abs().max() == 0
    standard = descriptors.standardise(torch.rand(5, 4, 4, 9) * 100)
    torch.testing.assert_close(standard[..., :9].std((0, 1, 2)), torch.ones(9))
    torch.testing.assert_close(standard[2, 0, 3, 9:11], standard[2, 3, 0, 9:11].flip(0))


def test_too_few_images_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MuSc compares images with each other: found 4"):
        maps_of(CONFIG, draw_images(tmp_path, count=4), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": 13}, "stages=13: the backbone has 12 blocks"),
        ({"memory_gb": 1e-6}, "memory_gb=1e-06: .*expected at least"),
    ],
)
def test_impossible_settings_are_reported(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        maps_of(replace(CONFIG, **change), draw_images(tmp_path), tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"degrees": [2]}, {"degrees": []}, {"topmin_max": 0.0}, {"windows": []}, {"stages": 0}],
)
def test_impossible_configurations_are_reported(change: dict) -> None:
    with pytest.raises(InputError, match=f"detector.{next(iter(change))}"):
        MuscDetectorConfig(**change)


def test_key_follows_what_maps_depend_on(tmp_path: Path) -> None:
    def key(config: MuscDetectorConfig = CONFIG) -> object:
        return MuscDetector(config, CPU).key(dataset)

    dataset = draw_images(tmp_path)
    before = key()
    assert key(replace(CONFIG, memory_gb=1.0)) == before
    assert key(replace(CONFIG, topmin_max=0.5)) != before
    weights = tmp_path / "weights"
    with_weights = replace(CONFIG, backbone=replace(TINY, checkpoint=str(weights)))
    weights.write_text("a")
    of_a = key(with_weights)
    weights.write_text("b")
    assert len({str(before), str(of_a), str(key(with_weights))}) == 3
