"""Pretrained weights that are on this machine, found without the network."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from timm.models import get_pretrained_cfg

from anomalyncd.models import embedded

DINO = "vit_base_patch8_224.dino"  # the published backbone
CLIP = "vit_large_patch14_clip_336.openai"  # of the published MuSc


def at_hand(name: str) -> bool:
    """Whether a network's weights are in the package or in the hub's cache."""
    if name == embedded.NAME:
        return True
    known = get_pretrained_cfg(name)
    if not known or not known.hf_hub_id:
        return False
    found = try_to_load_from_cache(known.hf_hub_id, "model.safetensors")
    return isinstance(found, str) and Path(found).is_file()
