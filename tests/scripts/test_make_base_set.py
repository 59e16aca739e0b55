"""The base set inside the package: complete, small, and the one that its script draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyncd.config import EmbeddedBaseConfig
from anomalyncd.data import datasets
from anomalyncd.data.datasets import EMBEDDED_BASE
from anomalyncd.data.images import read_image, read_mask
from anomalyncd.storage.cache import Cache
from scripts import make_base_set


def test_the_package_holds_as_many_pictures_of_each_kind() -> None:
    base = datasets.load_base(EmbeddedBaseConfig(), Cache(Path("unused")))
    assert base is not None and base.labels is not None
    assert base.labels.classes == tuple(make_base_set.KINDS)
    counts = np.bincount(base.labels.targets)
    assert counts.tolist() == [make_base_set.PER_CLASS] * len(make_base_set.KINDS)
    assert datasets.count_base(EmbeddedBaseConfig()) == len(base.samples)
    for sample in base.samples:
        assert sample.truth_mask is not None
        share = read_mask(sample.truth_mask).mean()
        assert 0 < share < 0.6, sample.id
    files = [path for path in EMBEDDED_BASE.rglob("*") if path.is_file()]
    assert len(files) == 2 * len(base.samples)
    assert sum(path.stat().st_size for path in files) < 3_000_000


@pytest.mark.parametrize("kind", make_base_set.KINDS)
def test_the_script_draws_what_is_in_the_package(kind: str, tmp_path: Path) -> None:
    kinds = {kind: make_base_set.KINDS[kind]}
    make_base_set.draw(tmp_path, seed=0, per_class=2, kinds=kinds)
    for stem in ("000", "001"):
        masks = [root / "masks" / kind / f"{stem}.png" for root in (tmp_path, EMBEDDED_BASE)]
        assert (read_mask(masks[0]) == read_mask(masks[1])).mean() > 0.99
        images = [root / "images" / kind / f"{stem}.jpg" for root in (tmp_path, EMBEDDED_BASE)]
        drawn, kept = (read_image(path).astype(float) for path in images)
        # Libraries differ in their last bits, and JPEG enlarges that a little.
        assert np.abs(drawn - kept).mean() < 3
        assert drawn.shape == (make_base_set.SIDE, make_base_set.SIDE, 3)


def test_another_seed_gives_another_set(tmp_path: Path) -> None:
    kinds = {"hole": make_base_set.KINDS["hole"]}
    for seed in (0, 1):
        make_base_set.draw(tmp_path / str(seed), seed=seed, per_class=1, kinds=kinds)
    first, second = (
        np.asarray(Image.open(tmp_path / str(seed) / "images/hole/000.jpg"), float)
        for seed in (0, 1)
    )
    assert np.abs(first - second).mean() > 10


def test_a_defect_changes_what_its_mask_shows() -> None:
    """A mask over a place that looks as before would teach nothing."""
    for name, kind in make_base_set.KINDS.items():
        image, mask = make_base_set.picture(np.random.SeedSequence([5, len(name)]), kind)
        assert mask.any() and not mask.all(), name
        assert image.std() > 1
