"""Create Vision Transformers, timm's and the package's own, with clear errors if that fails."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants as hub
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from anomalyncd.config import BackboneConfig
from anomalyncd.errors import InputError
from anomalyncd.models import embedded
from anomalyncd.storage.cache import digest
from anomalyncd.storage.identity import weights_file

Source = Literal["package", "hub", "file", "random"]

_RANDOM_SEED = 0  # an untrained backbone is the same in every run


@dataclass(frozen=True)
class Backbone:
    vit: VisionTransformer
    source: Source  # where the weights come from
    # Of the stored weights, which are the same on every CPU. In the network, position embeddings
    # are resampled to its image size, and their last bits depend on the CPU.
    weights_hash: str
    mean: tuple[float, ...]  # per channel, of images in [0, 1], as the weights were trained
    std: tuple[float, ...]


def build(config: BackboneConfig, key: str = "backbone", moved: str = "") -> Backbone:
    """Create the network for its image size; position embeddings are resampled.

    Args:
        config: which network and weights.
        key: the configuration key, for messages.
        moved: for the network of a finished run: how to pass the weights file's new place.

    Raises:
        InputError: the network does not exist or has no class token, the patch size does not divide
            the image size, the weights file is missing or does not fit, or the hub is unreachable.
    """
    source: Source
    path = weights_file(config, key, moved)
    if path is not None:
        vit, source = _create(config, key, pretrained=False), "file"
        weights_hash = _load_file(vit, path, config.name, key, moved)
    elif config.pretrained and config.name == embedded.NAME:
        vit, source = _create(config, key, pretrained=False), "package"
        weights_hash = embedded.load_weights(vit)
    elif config.pretrained:
        vit, source = _create(config, key, moved, pretrained=True), "hub"
        # At the image size that they were trained at, weights are loaded as they are stored.
        native = cast(dict[str, Any], vit.pretrained_cfg)["input_size"][-1]
        if native == config.image_size:
            weights_hash = _hash_of(vit.state_dict())
        else:
            native_vit = _create(replace(config, image_size=native), key, moved, pretrained=True)
            weights_hash = _hash_of(native_vit.state_dict())
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_RANDOM_SEED)
            vit, source = _create(config, key, pretrained=False), "random"
        # Random numbers differ in their last bits between CPUs as well.
        made_by = torch.__version__, timm.__version__
        weights_hash = digest("random", config.name, _RANDOM_SEED, made_by)
    trained_with = cast(dict[str, Any], vit.pretrained_cfg)
    mean, std = tuple(trained_with["mean"]), tuple(trained_with["std"])
    return Backbone(vit.eval(), source, weights_hash, mean, std)


def _hash_of(weights: Mapping[str, Any]) -> str:
    """Hash names, shapes, types and values of all tensors; a file may hold other things too."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights.items()):
        if not isinstance(tensor, Tensor):
            continue
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(values.view(torch.uint8).numpy().data)
    return found.hexdigest()


def _create(
    config: BackboneConfig, key: str, moved: str = "", *, pretrained: bool
) -> VisionTransformer:
    if config.name != embedded.NAME and not timm.is_model(config.name.partition(".")[0]):
        close = ", ".join(timm.list_models(f"*{config.name[:12]}*")[:5])
        raise InputError(
            f"{key}.name={config.name}: timm knows no such model"
            + (f"; close: {close}" if close else "; timm.list_models('vit*') lists them")
        )
    not_a_vit = InputError(
        f"{key}.name={config.name}: not a Vision Transformer with a class token; "
        "expected one such as vit_base_patch8_224.dino"
    )
    try:
        with _no_waiting_for_the_hub() if pretrained else nullcontext():
            vit = (
                embedded.create(config.image_size)
                if config.name == embedded.NAME
                else timm.create_model(
                    config.name, pretrained=pretrained, num_classes=0, img_size=config.image_size
                )
            )
    except TypeError as error:  # the network has no img_size
        raise not_a_vit from error
    except Exception as error:
        if not pretrained:
            raise
        remedy = (
            f"go online, or give a local file: {moved}"
            if moved
            else f"give a local file with {key}.checkpoint=…, go online, or try the software "
            "without weights: backbone=embedded, detector=musc_embedded"
        )
        raise InputError(
            f"{key}.name={config.name}: its weights could not be fetched from the hub "
            f"({type(error).__name__}: {_first_line(error)}); {remedy}"
        ) from error
    if not isinstance(vit, VisionTransformer):
        raise not_a_vit
    patch = vit.patch_embed.patch_size[0]
    if config.image_size % patch:
        raise InputError(
            f"{key}.image_size={config.image_size}: {config.name} has patches of {patch} pixels; "
            f"expected a multiple, such as {round(config.image_size / patch) * patch or patch}"
        )
    return vit


@contextmanager
def _no_waiting_for_the_hub() -> Iterator[None]:
    """If the hub is unreachable, use weights from its local cache or fail at once.

    Its client would retry for two minutes. Behind a proxy this cannot be tested.
    """
    was_offline = hub.HF_HUB_OFFLINE
    if not getproxies():
        address = urlsplit(hub.ENDPOINT)
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname, port), timeout=5).close()
        except OSError:
            hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = was_offline


def _load_file(vit: VisionTransformer, path: Path, name: str, key: str, moved: str) -> str:
    """Load a weights file; returns the hash of its content."""
    stored = _read_weights(path)
    weights_hash = _hash_of(stored)
    try:
        weights = checkpoint_filter_fn(stored, vit)
        # Additional weights in the file, such as heads, are ignored; missing ones are an error.
        missing = vit.load_state_dict(weights, strict=False).missing_keys
    except Exception as error:  # any error of torch or timm for weights of another network
        missing = [_first_line(error)]
    if missing:
        remedy = f"set {key}.name to the network that they belong to"
        if moved:
            remedy = f"give the file that the run was trained with: {moved}"
        raise InputError(f"{path}: these weights do not fit {name} ({missing[0]}); {remedy}")
    return weights_hash


def _read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a weights file by name; nothing else is loaded."""
    try:
        return load_state_dict(str(path), weights_only=True)
    except PermissionError as error:
        raise InputError(f"{path}: {error.strerror}; make this weights file readable") from error
    except Exception as error:  # any error of safetensors, torch or timm
        # Recent versions of timm wrap torch's error, which names what it did not load.
        for refusal in (error, error.__cause__):
            if isinstance(refusal, UnpicklingError) and (
                found := re.search(r"GLOBAL ([\w.]+)", str(refusal))
            ):
                raise InputError(
                    f"{path}: holds more than tensors ({found[1]}); refused, because loading it "
                    "could run code; save only its state_dict, preferably as .safetensors"
                ) from error
        raise InputError(
            f"{path}: cannot be read as weights ({_first_line(error)}); expected .safetensors or a "
            "state_dict saved by torch; get the file again"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def with_absolute_path(config: BackboneConfig) -> BackboneConfig:
    """The same with an absolute path of the weights file, which a file that is kept needs."""
    if config.checkpoint is None:
        return config
    return replace(config, checkpoint=str(Path(config.checkpoint).resolve()))
