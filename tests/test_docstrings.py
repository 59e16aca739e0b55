"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

import anomalyncd

MODULES = [
    *(
        "api",
        "regions.mebin",
        "regions.gate",
        "regions.adaptive",
        "regions.binarization",
        "regions.boxes",
        "inference.fusion",
    ),
    *("evaluation.metrics", "training.losses", "models.mask_guided_vit"),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"anomalyncd.{name}")
    known = {"anomalyncd": anomalyncd, "np": np}
    result = doctest.testmod(module, extraglobs=known, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", sorted(set(anomalyncd.__all__) - {"__version__"}))
def test_every_public_name_is_explained(name: str) -> None:
    """With an example for each function, unless it only groups settings or results."""
    public = getattr(anomalyncd, name)
    assert public.__doc__ and len(public.__doc__.strip()) > 10
