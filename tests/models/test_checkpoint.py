"""Finished models: strict, self-contained, without pickles."""

from __future__ import annotations

import json
import os
import pickle
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from anomalyncd.config import (
    AttentionConfig,
    BackboneConfig,
    FusionConfig,
    MebinConfig,
    RegionsConfig,
    TrainConfig,
)
from anomalyncd.errors import InputError
from anomalyncd.models import backbone, checkpoint, model
from tests.helpers.tampering import tampered

TRAIN = TrainConfig(hidden=8, bottleneck=4, heads=2)
TINY = BackboneConfig("vit_tiny_patch16_224", pretrained=False, image_size=32)


def trained(config: BackboneConfig = TINY) -> tuple[model.Model, checkpoint.ModelMetadata]:
    pretrained = backbone.build(config)
    network = model.build(pretrained, AttentionConfig(), TRAIN, n_base=1, n_novel=3)
    metadata = checkpoint.ModelMetadata(
        backbone=config,
        backbone_source=pretrained.source,
        attention=AttentionConfig(),
        mebin=MebinConfig(search_range=[3.0, 200.0]),
        regions=RegionsConfig(resize_mode="stretch"),
        fusion=FusionConfig(),
        train=TRAIN,
        raw_range=(0.25, 3.5),
        head=1,
        base_classes=("dent",),
        class_names=("good", "scratch", "class 3"),
        frozen_hash=checkpoint.frozen_hash(pretrained),
    )
    return network, metadata


def views() -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 32, 32, generator=stream), torch.ones(2, 1, 32, 32)


def test_a_saved_model_is_restored_exactly(tmp_path: Path) -> None:
    network, metadata = trained()
    with torch.no_grad():
        for _, p in network.trainable():
            p.add_(torch.randn_like(p))
    checkpoint.save_model(tmp_path / "m.safetensors", network, metadata)
    loaded, again = checkpoint.load_model(tmp_path / "m.safetensors")
    assert again == metadata
    torch.testing.assert_close(loaded.eval()(*views()), network(*views()), rtol=0, atol=0)
    assert not list(tmp_path.glob("*.part"))


def saved_weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32)
    save_file(vit.state_dict(), path)
    return path


def test_frozen_weights_of_a_file_stay_there_and_are_checked(tmp_path: Path) -> None:
    config = replace(TINY, checkpoint=str(saved_weights(tmp_path / "w.safetensors", 1)))
    network, metadata = trained(config)
    path = tmp_path / "m.safetensors"
    checkpoint.save_model(path, network, metadata)
    assert "vit.vit.patch_embed.proj.weight" not in load_file(path)
    assert checkpoint.load_model(path)[1].backbone_source == "file"
    moved = tmp_path / "moved.safetensors"
    (tmp_path / "w.safetensors").rename(moved)
    with pytest.raises(InputError, match=r"set checkpoint=… \(in Python: weights=…\)$"):
        checkpoint.load_model(path)
    assert checkpoint.load_model(path, str(moved))[1] == metadata
    save_file({"cls_token": torch.zeros(1, 1, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"give the file that the run was trained with: checkp"):
        checkpoint.load_model(path)
    saved_weights(tmp_path / "w.safetensors", 2)
    with pytest.raises(InputError, match=r"w\.safetensors: its weights are not those"):
        checkpoint.load_model(path)


def test_weights_that_have_been_moved_are_taken_from_where_they_are(tmp_path: Path) -> None:
    old, new = saved_weights(tmp_path / "w.safetensors", 1), tmp_path / "moved.safetensors"
    path = tmp_path / "m.safetensors"
    network, metadata = trained(replace(TINY, checkpoint=str(old)))
    checkpoint.save_model(path, network, metadata)
    old.rename(new)
    with pytest.raises(InputError, match=r"w\.safetensors: no such weights file"):
        checkpoint.load_model(path)
    loaded, again = checkpoint.load_model(path, str(new))
    assert again == metadata
    torch.testing.assert_close(loaded.eval()(*views()), network(*views()), rtol=0, atol=0)


def test_the_hash_is_that_of_the_stored_weights_and_the_image_size(tmp_path: Path) -> None:
    path = saved_weights(tmp_path / "w.safetensors", 1)

    def hashes(side: int = 64) -> tuple[str, str]:
        pretrained = backbone.build(replace(TINY, checkpoint=str(path), image_size=side))
        return pretrained.weights_hash, checkpoint.frozen_hash(pretrained)

    first = hashes()
    assert hashes() == first
    assert hashes(side=32)[0] == first[0], "not of resampled embeddings"
    assert hashes(side=32)[1] != first[1]
    weights = load_file(path)
    weights["pos_embed"][0, 0, 0] += 1
    save_file(weights, path)
    assert hashes()[0] != first[0]


def test_the_hash_of_hub_weights_is_not_of_resampled_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, seed = timm.create_model, 1

    def from_hub(name: str, *, pretrained: bool, **settings: Any) -> nn.Module:
        assert pretrained
        vit = create(name, pretrained=False, **settings)
        torch.manual_seed(seed)
        stored = create(name, pretrained=False, num_classes=0).state_dict()
        vit.load_state_dict(checkpoint_filter_fn(stored, vit))
        return vit

    monkeypatch.setattr(timm, "create_model", from_hub)
    config = replace(TINY, pretrained=True)
    hashes = {
        side: backbone.build(replace(config, image_size=side)).weights_hash for side in (32, 224)
    }
    assert hashes[32] == hashes[224]
    seed = 2
    assert backbone.build(config).weights_hash != hashes[32]


def test_a_random_backbone_of_another_cpu_comes_from_the_model_file(tmp_path: Path) -> None:
    """Its last bits depend on the CPU, so its hash differs on another machine."""
    network, metadata = trained()
    with torch.no_grad():
        next(p for _, p in network.frozen()).add_(1e-7)
    path = tmp_path / "m.safetensors"
    checkpoint.save_model(path, network, replace(metadata, frozen_hash="of another CPU"))
    loaded, _ = checkpoint.load_model(path)
    torch.testing.assert_close(loaded.eval()(*views()), network(*views()), rtol=0, atol=0)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "format", "nonsense", "foreign"])
def test_loading_is_strict(tmp_path: Path, change: str) -> None:
    path = tmp_path / "m.safetensors"
    checkpoint.save_model(path, *trained())
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["anomalyncd"])
    tensors = load_file(path)
    match change:
        case "missing":
            del tensors["heads.prototypes"]
        case "extra":
            tensors["surplus"] = torch.zeros(1)
        case "shape":
            tensors["heads.prototypes"] = torch.zeros(2, 9, 192)
        case "format":
            header["format"] = 99
    if change == "nonsense":
        path.write_bytes(b"nonsense")
    elif change == "foreign":
        save_file(tensors, path)
    else:
        save_file(tensors, path, metadata={"anomalyncd": json.dumps(header)})
    with pytest.raises(InputError, match=r"m\.safetensors"):
        checkpoint.load_model(path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor], Any]:
    """A model's file, its weights and its header; tests write their own beside it."""
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    checkpoint.save_model(path, *trained())
    with safe_open(path, "pt") as file:
        return path, load_file(path), json.loads(file.metadata()["anomalyncd"])


def fault(path: Path, tensors: dict[str, Tensor], header: Any) -> str:
    """Why a model of these is not loaded; empty if it is loaded."""
    odd = path.with_name("odd.safetensors")
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(tensors, odd, metadata={"anomalyncd": text})
    try:
        checkpoint.load_model(odd)
    except InputError as error:
        return str(error)
    return ""


HUGE = 10**15
ODD_HEADERS: list[tuple[str, Any]] = [
    *(("metadata", value) for value in (..., None, [], "text", {})),
    *(("metadata.backbone", value) for value in (..., None, [], {"image_size": 32}, "vit")),
    *(
        ("metadata.backbone.name", value)
        for value in (..., 5, None, "no_such", "a/../b", "x" * 9999)
    ),
    *(
        ("metadata.backbone.image_size", value)
        for value in ("32", 32.5, True, -32, 0, HUGE, 33, 64, None)
    ),
    *(("metadata.backbone.checkpoint", value) for value in (7, "nowhere.safetensors", "/dev/zero")),
    *(("metadata.backbone.pretrained", value) for value in (1, "yes", None)),
    ("metadata.backbone.patch", 16),
    *(("metadata.backbone_source", value) for value in (..., "elsewhere", 5, "hub", "file")),
    *(("metadata.attention.masked_blocks", value) for value in (-1, HUGE, "9", 9.5)),
    ("metadata.attention.masked_queries", "everything"),
    ("metadata.attention.mask_threshold", float("nan")),
    *(("metadata.mebin.search_range", v) for v in (None, [1], [9, 3], "all", [0, float("inf")])),
    *(("metadata.mebin.step", value) for value in (0, "4", HUGE)),
    *(("metadata.mebin.gate", value) for value in (-1, 256, "high", float("nan"))),
    ("metadata.mebin.method", "adaptive"),  # without a gate
    ("metadata.regions.padding", 1e308),
    ("metadata.fusion.temperature", 0),
    ("metadata.fusion.weighting", None),
    *(("metadata.train.heads", value) for value in (..., 0, 1, 3, HUGE, "2", 2.0)),
    *(("metadata.train.hidden", value) for value in (..., 9, 65_536, HUGE)),
    *(("metadata.train.bottleneck", value) for value in (5, HUGE, None)),
    *(("metadata.train.student_temperature", value) for value in (0, float("inf"), "0.1", 10**400)),
    ("metadata.train.warmup", 3),
    *(("metadata.raw_range", value) for value in (5, [1], [1, 2, 3], [3, 1], ["a", "b"], {})),
    *(("metadata.head", value) for value in (..., -1, 2, 1.0, True, "1", HUGE)),
    *(("metadata.base_classes", value) for value in (..., "dent", [1], [], ["a", "b"])),
    *(("metadata.class_names", value) for value in ("abc", [], ["one"], ["a"] * 20_000, {"a": 1})),
    *(("metadata.frozen_hash", value) for value in (..., 5)),
    ("metadata.from_the_future", 1),
    *(("format", value) for value in (..., 99, "1", None, [1], {})),
]


@pytest.mark.parametrize(("key", "value"), ODD_HEADERS)
def test_a_tampered_header_is_one_line(saved: Any, key: str, value: Any) -> None:
    path, tensors, header = saved
    message = fault(path, tensors, tampered(header, key, value))
    assert message and "\n" not in message


@pytest.mark.parametrize(("key", "value"), [("raw_range", None), ("raw_range", [2.0, 2.0])])
def test_a_header_may_be_of_constant_or_of_8_bit_maps(saved: Any, key: str, value: Any) -> None:
    path, tensors, header = saved
    assert fault(path, tensors, tampered(header, f"metadata.{key}", value)) == ""


@pytest.mark.parametrize("text", ["", "5", "[]", "null", '"text"', "{", "[" * 100_000, "{}"])
def test_a_header_of_another_shape_is_one_line(saved: Any, text: str) -> None:
    assert "odd.safetensors" in fault(saved[0], saved[1], text)


def test_a_setting_that_this_version_does_not_know_is_named(saved: Any) -> None:
    path, tensors, header = saved
    message = fault(path, tensors, tampered(header, "metadata.train.warmup", 3))
    assert "train: warmup: this version does not know it; written by a newer version?" in message
    message = fault(path, tensors, tampered(header, "metadata.backbone.side", 224))
    assert "backbone: side: this version does not know it; written by an earlier version" in message


def test_a_header_cannot_ask_for_more_than_its_weights(
    saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any network is made."""
    path, tensors, header = saved
    monkeypatch.setattr(backbone, "build", lambda *_: pytest.fail("made"))
    header = tampered(header, "metadata.train.hidden", 16_384)
    message = fault(path, tensors, header)
    assert "heads.projector.0.weight is 8 × 192, and its header says 16384 × any" in message


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.data())
def test_any_header_loads_or_is_reported(saved: Any, data: st.DataObject) -> None:
    path, tensors, header = saved
    metadata = header["metadata"]
    groups = [key for key, value in metadata.items() if isinstance(value, dict)]
    below = [f"metadata.{group}.{key}" for group in groups for key in metadata[group]]
    # A name without junk in it may be one that timm knows, and a large network to make.
    keys = [f"metadata.{key}" for key in metadata] + [
        k for k in below if k != "metadata.backbone.name"
    ]
    odd = tampered(header, data.draw(st.sampled_from(keys)), data.draw(JUNK))
    assert "\n" not in fault(path, tensors, odd)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to(torch.int32), "has type torch.int32; expected torch.float32"),
        (lambda t: t.half(), "has type torch.float16; expected torch.float32"),
        (lambda t: t.bfloat16(), "has type torch.bfloat16"),
        (lambda t: t.double(), "has type torch.float64"),
        (lambda t: t.to(torch.float8_e4m3fn), "has type torch.float8_e4m3fn"),
        (lambda t: t > 0, "has type torch.bool"),
        (lambda t: torch.full_like(t, torch.nan), "values that are not finite"),
        (lambda t: torch.full_like(t, -torch.inf), "values that are not finite"),
    ],
)
def test_impossible_weights_are_reported(saved: Any, change: Any, message: str) -> None:
    path, tensors, header = saved
    odd = {name: change(t) if name == "heads.prototypes" else t for name, t in tensors.items()}
    assert message in fault(path, odd, header)
    assert message in fault(path, {name: change(t) for name, t in tensors.items()}, header)


def test_an_unwritable_path_is_reported_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.safetensors: cannot be written"):
        checkpoint.save_model(tmp_path / "absent" / "m.safetensors", *trained())


def test_the_random_backbone_is_the_same_every_time_and_leaves_the_seed_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = backbone.build(TINY).vit.state_dict()
    assert torch.equal(torch.rand(1), expected)
    second = backbone.build(TINY).vit.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_position_embeddings_are_resampled_to_the_side(tmp_path: Path) -> None:
    path = str(saved_weights(tmp_path / "w.safetensors", 1))
    vit = backbone.build(replace(TINY, checkpoint=path, image_size=64)).vit
    assert vit.pos_embed.shape == (1, 17, 192)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(TINY, name="vit_tinny"), "timm knows no such model"),
        (replace(TINY, name="resnet18"), "expected one such as vit_base_patch8_224.dino"),
        (replace(TINY, image_size=40), "backbone.image_size=40"),
        (replace(TINY, checkpoint="absent.pth"), "absent.pth: no such weights file"),
    ],
)
def test_unusable_backbones_are_reported(config: BackboneConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.build(backbone.build(config), AttentionConfig(), TRAIN, n_base=0, n_novel=2)


def test_weights_of_another_network_are_reported(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    config = replace(TINY, checkpoint=str(tmp_path / "w.safetensors"))
    with pytest.raises(InputError, match=r"w\.safetensors: these weights do not fit"):
        backbone.build(config)


class MakesAFolder:
    """A harmless stand-in for code that runs when a pickle is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("saved", ["as a zip", "as old versions do", "as a pickle"])
def test_a_weights_file_that_would_run_code_is_named_as_such(saved: str, tmp_path: Path) -> None:
    path, made = tmp_path / "w.pth", tmp_path / "made by the pickle"
    content = {"cls_token": torch.zeros(1), "other": MakesAFolder(made)}
    if saved == "as a pickle":
        path.write_bytes(pickle.dumps(content["other"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=saved == "as a zip")
    wanted = r"w\.pth: holds more than tensors \(\w+\.mkdir\); refused, because .* could run code"
    with pytest.raises(InputError, match=wanted):
        backbone.build(replace(TINY, checkpoint=str(path)))
    assert not made.exists()
    with suppress(RuntimeError):  # a bare pickle is none of torch's
        torch.load(path, weights_only=False)  # the pickle is what it is meant to be
    assert made.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut", b"\xff" * 64])
def test_a_damaged_weights_file_is_reported_as_damaged(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: cannot be read as weights \(.*\); expected"):
        backbone.build(replace(TINY, checkpoint=str(tmp_path / name)))


def test_plain_weights_in_a_pickle_are_accepted(tmp_path: Path) -> None:
    other = saved_weights(tmp_path / "w.safetensors", 1)
    torch.save({"state_dict": load_file(other)}, tmp_path / "w.pth")
    vit = backbone.build(replace(TINY, checkpoint=str(tmp_path / "w.pth"))).vit
    expected = backbone.build(replace(TINY, checkpoint=str(other))).vit.state_dict()
    assert all(torch.equal(tensor, expected[k]) for k, tensor in vit.state_dict().items())


def test_without_a_network_the_hub_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = BackboneConfig("vit_small_patch16_224.dino", image_size=32)
    with pytest.raises(InputError, match=r"could not be fetched .* backbone\.checkpoint="):
        backbone.build(config)
