"""Settings, detectors and weights files that no run can use, or only just."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.campaign import files
from scripts.campaign.trials import Expected, Given, Trial


def trials() -> Iterator[Trial]:
    yield from _detectors()
    yield from _settings()


CUSTOM = """
import numpy as np
import torch

class Mine:
    def __init__(self, **options):
        {init}
    def key(self, dataset):
        return {key}
    def maps(self, dataset):
        n = len(dataset.samples)
        {body}
"""


def _detectors() -> Iterator[Trial]:
    def custom(
        name: str,
        body: str,
        expected: Expected = "refused",
        *,
        key: str = "'1'",
        init: str = "pass",
    ) -> Trial:
        def written(given: Given) -> None:
            source = CUSTOM.format(init=init, key=key, body=body)
            (given.work / "mine.py").write_text(source)

        settings = (
            *("dataset=folder", "dataset.path=product/photos", "base=none", "backbone=embedded"),
            *("backbone.image_size=32", "train.epochs=1", "train.hidden=16", "train.bottleneck=8"),
            *("train.heads=2", "tracker=none", "quiet=true", "device=cpu", "output_root=out"),
            *("detector=custom", "detector.target=mine:Mine", "train.features=cached"),
        )

        return Trial(
            "custom detector", name, written, "detector|map of", expected, settings=settings
        )

    good = (
        "yield from [np.pad(np.full((18, 18), 50.0 * i), ((12, 18), (20, 26))) for i in range(n)]"
    )
    yield custom("sound", good, "finished")
    yield custom("maps of NaN", "yield from np.full((n, 48, 64), np.nan)")
    yield custom(
        "one map of NaN",
        "yield from [np.full((48, 64), np.nan if i == 3 else i) for i in range(n)]",
    )
    yield custom("infinite maps", "yield from np.full((n, 48, 64), np.inf)")
    yield custom("too few maps", "yield from np.zeros((n - 1, 48, 64))")
    yield custom("too many maps", "yield from np.zeros((n + 1, 48, 64))")
    yield custom("no map", "yield from ()")
    yield custom("None instead of maps", "return None")
    yield custom("maps of shape (1, h, w)", "yield from np.random.rand(n, 1, 48, 64)", "either")
    yield custom("maps of one dimension", "yield from np.zeros((n, 48))")
    yield custom("maps of no pixel", "yield from np.zeros((n, 0, 64))")
    yield custom(
        "tensors",
        good.replace("from [", "from [torch.from_numpy(").replace(" for", ") for"),
        "finished",
    )
    yield custom("lists", "yield from np.zeros((n, 48, 64)).tolist()", "either")
    yield custom("text", "yield from ['a'] * n")
    yield custom("objects", "yield from np.full((n, 48, 64), None)")
    yield custom("complex numbers", "yield from np.zeros((n, 48, 64), complex)")
    yield custom(
        "of mixed types", "yield from [np.zeros((48, 64), 'f4' if i else 'f8') for i in range(n)]"
    )
    yield custom("of another aspect ratio", "yield from np.random.rand(n, 90, 10)")
    halves = "np.where(np.arange(64) > 30, 1e308, -1e308) * np.ones((48, 1))"
    yield custom("1e308 and −1e308", f"yield from [{halves}] * n", "either")
    yield custom("its own ValueError", "raise ValueError('broken')")
    yield custom("key that is no JSON", good, key="object()")
    yield custom("constructor that fails", good, init="raise ValueError('no')")

    def target(name: str, value: str) -> Trial:
        return Trial("custom detector", name, lambda _: None, "detector.target", settings=(
            *("dataset=folder", "dataset.path=product/photos", "base=none", "backbone=embedded"),
            *("tracker=none", "quiet=true", "detector=custom", f"detector.target={value}"),
            "output_root=out",
        ))  # fmt: skip

    yield target("module that is not there", "nowhere:Mine")
    yield target("target without a class", "os")
    yield target("target that is no class", "os:sep")
    yield target("empty target", "':'")


def _settings() -> Iterator[Trial]:
    def setting(
        value: str, expected: Expected = "refused", names: str | None = None, *more: str
    ) -> Trial:
        key = value.partition("=")[0].lstrip("+~")
        return Trial(
            "setting", " ".join([value[:60], *more]), lambda _: [value, *more],
            key.rpartition(".")[2] if names is None else names, expected,
        )  # fmt: skip

    refused = (
        *(
            "train.heads=1000000000",
            "train.heads=0",
            "train.heads=-1",
            "train.heads=1.5",
            "train.heads=many",
        ),
        *(
            "train.hidden=1000000000",
            "train.bottleneck=1000000000",
            "train.epochs=0",
            "train.epochs=-3",
        ),
        *(
            "train.batch_size=1",
            "train.batch_size=-2",
            "train.cached_views=1",
            "train.cached_views=1000000000",
        ),
        *("train.learning_rate=0", "train.learning_rate=-1", "train.learning_rate=nan"),
        *(
            "train.learning_rate=inf",
            "train.momentum=1",
            "train.momentum=nan",
            "train.sup_weight=1.5",
        ),
        *("train.student_temperature=0", "train.student_temperature=nan", "train.weight_decay=nan"),
        *(
            "train.features=fast",
            "train.precision=int8",
            "backbone.image_size=1000000000",
            "backbone.image_size=33",
        ),
        *(
            "backbone.image_size=0",
            "backbone.image_size=-32",
            "backbone.name=resnet18",
            "backbone.name=nothing",
        ),
        *("backbone.name=../../etc", "backbone.checkpoint=nowhere.pth", "device=cuda:99"),
        *("device=tpu", "device=meta", "novel_classes=9223372036854775807", "novel_classes=0"),
        *("novel_classes=1", "novel_classes=-1", "novel_classes=many", "novel_classes=2.5"),
        *("novel_classes=500", "seed=-1", "seed=9223372036854775808", "seed=1.5", "seed=null"),
        *("mebin.step=0", "mebin.step=1000", "mebin.min_interval=0", "mebin.erosion=-1"),
        *("mebin.search_range=[9,3]", "mebin.search_range=[1]", "mebin.search_range=[a,b]"),
        *("mebin.method=magic", "mebin.threshold=2", "regions.padding=-1", "regions.padding=nan"),
        *(
            "regions.min_size=9",
            "regions.resize_mode=crop",
            "fusion.temperature=0",
            "fusion.temperature=nan",
        ),
        *("fusion.weighting=max", "attention.mask_threshold=0", "attention.masked_queries=all"),
        *("attention.masked_blocks=-1", "compat=old", "tracker=mlflow", "dataset=cifar"),
        *("detector=magic", "detector.kind=musc", "dataset.kind=demo", "train.epoch=3", "epochs=3"),
        *("output_root=''", "train=null", "dataset=null", "hydra.run.dir=/proc/nope"),
        *("train.heads=${nowhere}"),
        *(
            "output_root=/proc/nope",
            "cache_root=/proc/nope",
            "train.heads=[1,2]",
            "train.heads={a:1}",
        ),
    )
    for value in refused:
        yield setting(value)
    yield setting("train.learning_rate=1e20", "refused", "")
    yield setting("train.learning_rate=1e300", "refused", "")
    yield setting("train.memax_weight=1e300", "refused", "")
    yield setting("mebin.erosion=100000", "either")
    yield setting("mebin.min_interval=1000000000", "either", "mebin")
    yield setting("category=${oc.env:NOT_SET_AT_ALL}", "refused", "category|NOT_SET_AT_ALL")
    yield setting("attention.masked_blocks=1000000000", "either")
    yield setting("fusion.temperature=1e-300", "either")
    yield setting("fusion.temperature=1e300", "either")
    yield setting("train.student_temperature=1e-30", "either", "")
    yield setting("train.temperature_hold=1000000000", "either")
    yield setting("train.batch_size=1000000000", "either")
    yield setting("train.hidden=3000000", "either")
    yield setting("+train.new=1", "refused", "train.new")
    yield setting("~train.heads", "refused", "heads")
    yield setting("train.heads", "refused", "heads")
    yield setting("=3", "refused", "=3")
    yield setting("train.heads = 3", "refused", "heads")
    yield setting("category=Größe", "either", "Größe")
    yield setting("", "either", "")

    def taken(given: Given) -> list[str]:
        (given.work / "taken").write_text("mine")
        return ["output_root=taken"]

    def taken_cache(given: Given) -> list[str]:
        (given.work / "taken").write_text("mine")
        return ["cache_root=taken"]

    def of_a_link(given: Given) -> list[str]:
        (given.work / "loop").symlink_to("loop")
        return ["output_root=loop"]

    yield Trial("setting", "output_root that is a file", taken, "taken")
    yield Trial("setting", "cache_root that is a file", taken_cache, "taken")
    yield Trial("setting", "output_root that links to itself", of_a_link, "loop")

    def weights(name: str, write: Callable[[Path], object], suffix: str = ".pth") -> Trial:
        def spoil(given: Given) -> list[str]:
            write(given.work / f"weights{suffix}")
            return [f"backbone.checkpoint=weights{suffix}", "backbone.name=vit_tiny_patch16_224"]

        return Trial("backbone's weights file", name, spoil, f"weights{suffix}")

    yield weights("empty file", lambda path: path.write_bytes(b""))
    yield weights("random bytes", lambda path: path.write_bytes(os.urandom(4000)))
    yield weights("pickle that runs code", files.planted_pickle)
    yield weights(
        "safetensors of random bytes", lambda p: p.write_bytes(os.urandom(99)), ".safetensors"
    )
    yield weights(
        "safetensors header of 2⁶² bytes",
        lambda p: p.write_bytes(struct.pack("<Q", 2**62)),
        ".safetensors",
    )
    yield weights(
        "safetensors without tensors",
        lambda p: p.write_bytes(struct.pack("<Q", 2) + b"{}"),
        ".safetensors",
    )
