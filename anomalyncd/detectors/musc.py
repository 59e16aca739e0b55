"""MuSc: anomaly maps by comparing unlabelled images with each other, without training.

The published network is CLIP ViT-L/14-336 at 518 pixels; any timm Vision Transformer with a class
token works. Three things differ from the release; none changes the score of a patch:

- Re-weighting uses the class token before CLIP's projection to the text space, which timm lacks.
- When scores are enlarged to a map, each stays at the centre of its patch; the release moves the
  outer ones to the border (`align_corners`).
- The release re-weights an image's score, never its map. Here the map is scaled (`reweight=true`),
  since later stages see only maps. The published figures of AnomalyNCD are without re-weighting.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from anomalyncd.config import BackboneConfig, MuscDetectorConfig
from anomalyncd.data.images import read_image
from anomalyncd.detectors import descriptors, mutual_scoring
from anomalyncd.errors import InputError
from anomalyncd.models import backbone
from anomalyncd.runtime import console
from anomalyncd.storage.cache import digest_files
from anomalyncd.storage.identity import weights_file
from anomalyncd.types import Dataset, Sample

VERSION = 1  # part of the cache key: raise it when maps change
_BACKBONE = "detector.backbone"  # its key
FEWEST = 5  # images; with four, 30 % of the three others would be none
_BATCH = 8  # images per forward pass


class MuscDetector:
    """Scores the patches of every image by all other images of the dataset.

    Tokens are kept on disk in half precision, so that memory does not grow with their number: they
    take (stages + 1) · n · patches · width · 2 bytes for n images.

    Args:
        config: what is compared and how.
        device: where the network and the comparison run.
        workspace: folder for the tokens, which are removed at the end; None: the system's own.
    """

    def __init__(
        self, config: MuscDetectorConfig, device: torch.device, workspace: Path | None = None
    ) -> None:
        self.config = config
        self.device = device
        self.workspace = workspace

    def key(self, dataset: Dataset) -> Any:
        settings = asdict(self.config)
        del settings["memory_gb"]  # affects only the speed
        network = self.config.backbone
        if weights := network and weights_file(network, _BACKBONE):
            settings["backbone"]["checkpoint"] = digest_files([weights])
        return VERSION, settings, self.device.type, torch.__version__, PIL.__version__

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        """One (map_size, map_size) float32 map per image, ≥ 0, comparable between images.

        Raises:
            InputError: fewer than five images, an unreadable one, or a backbone that cannot be
                loaded or has fewer blocks than `stages`.
        """
        n = len(dataset.samples)
        if n < FEWEST:
            raise InputError(
                f"MuSc compares images with each other: found {n}, expected at least {FEWEST}; add "
                "images or use another detector"
            )
        if self.workspace is not None:
            self.workspace.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="musc-", dir=self.workspace) as folder:
            scores, class_tokens = self._score(dataset.samples, Path(folder))
        scale = np.ones(n, np.float32)
        if self.config.reweight:
            peaks = torch.tensor([self._enlarge(patches).max() for patches in scores])
            wanted = mutual_scoring.reweight(peaks, class_tokens, self.config.windows)
            scale = (wanted / peaks.clamp(min=torch.finfo().tiny)).numpy()
        for patches, factor in zip(scores, scale, strict=True):
            yield self._enlarge(patches) * factor

    def _enlarge(self, patches: Tensor) -> NDArray[np.float32]:
        """(h, w) → (map_size, map_size), bilinear."""
        size = (self.config.map_size, self.config.map_size)
        return F.interpolate(patches[None, None], size, mode="bilinear")[0, 0].numpy()

    @torch.inference_mode()
    def _score(self, samples: Sequence[Sample], folder: Path) -> tuple[Tensor, Tensor]:
        """Scores of patches (n, h, w), and class tokens (n, d), both on the CPU."""
        network = self.config.backbone
        stages, class_tokens = (
            _describe(samples) if network is None else self._tokens(network, samples, folder)
        )
        n, h, w, d = stages[0].shape
        features = _on_disk(folder / "features", (n, h * w, d))  # for each stage and degree in turn
        total = torch.zeros(n, h * w)
        rounds = [(stage, degree) for stage in stages for degree in self.config.degrees]
        with console.steps("Maps: comparing images") as step:

            def report(number: int, share: float) -> None:
                step(round((number + share) * n), len(rounds) * n)

            for number, (stage, degree) in enumerate(rounds):
                for part in _parts(n):
                    tokens = torch.from_numpy(np.array(stage[part])).to(self.device)
                    features[part] = mutual_scoring.aggregate(tokens, degree).half().cpu().numpy()
                total += self._mutual_scores(features, partial(report, number))
        scores = total / len(rounds)
        return scores.view(n, h, w), class_tokens

    def _tokens(
        self, network: BackboneConfig, samples: Sequence[Sample], folder: Path
    ) -> tuple[list[NDArray[np.float16]], Tensor]:
        """Tokens of each stage (n, h, w, d), and final class tokens (n, d), by the network."""
        pretrained = backbone.build(network, key=_BACKBONE)
        vit = pretrained.vit.to(self.device)
        blocks = _blocks(vit, self.config.stages)
        n, d, (h, w) = len(samples), vit.embed_dim, vit.patch_embed.grid_size
        stages = [_on_disk(folder / f"stage{k}", (n, h, w, d)) for k in range(len(blocks))]
        class_tokens = torch.empty(n, d)
        mean, std = (torch.tensor(stat).view(3, 1, 1) for stat in (pretrained.mean, pretrained.std))
        half = torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")
        with console.steps("Maps: features") as step:
            for part, images in _batches(samples, network.image_size):
                x = ((images - mean) / std).to(self.device)
                with half:
                    returned = vit.forward_intermediates(x, indices=blocks, output_fmt="NLC")
                final, intermediates = cast(tuple[Tensor, list[Tensor]], returned)
                class_tokens[part] = final[:, 0].float().cpu()
                for stage, tokens in zip(stages, intermediates, strict=True):
                    stage[part] = tokens.reshape(-1, h, w, d).half().cpu().numpy()
                step(part.stop, n)
        return stages, class_tokens

    def _mutual_scores(
        self, features: NDArray[np.float16], on_share: Callable[[float], None]
    ) -> Tensor:
        memory = int(self.config.memory_gb * 2**30)
        try:
            return mutual_scoring.mutual_scores(
                features,
                topmin_max=self.config.topmin_max,
                device=self.device,
                memory=memory,
                on_share=on_share,
            )
        except ValueError as error:
            raise InputError(f"detector.memory_gb={self.config.memory_gb}: {error}") from error


def _describe(samples: Sequence[Sample]) -> tuple[list[NDArray[np.float16]], Tensor]:
    """One stage of hand-made descriptors, and their means as class tokens."""
    cells = torch.cat([descriptors.describe(x) for _, x in _batches(samples, descriptors.SIDE)])
    return [descriptors.standardise(cells).half().numpy()], cells.mean(dim=(1, 2))


def _batches(samples: Sequence[Sample], side: int) -> Iterator[tuple[slice, Tensor]]:
    """Images as (b, 3, side, side) in [0, 1]: squeezed to a square, bicubic and antialiased."""

    def read(sample: Sample) -> NDArray[np.uint8]:
        image = Image.fromarray(read_image(sample.image))
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor() as pool:
        for part in _parts(len(samples)):
            images = np.stack(list(pool.map(read, samples[part])))
            yield part, torch.from_numpy(images).permute(0, 3, 1, 2) / 255


def _blocks(vit: VisionTransformer, count: int) -> list[int]:
    depth = len(vit.blocks)
    if count > depth:
        raise InputError(f"detector.stages={count}: the backbone has {depth} blocks")
    return [depth * (stage + 1) // count - 1 for stage in range(count)]


def _parts(n: int) -> list[slice]:
    return [slice(start, min(start + _BATCH, n)) for start in range(0, n, _BATCH)]


def _on_disk(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    # Space is allocated at once if the system can: a mapped file on a disk that is full later would
    # end the process without a message.
    if hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * math.prod(shape))
        return np.memmap(path, np.float16, mode="r+", shape=shape)
    return np.memmap(path, np.float16, mode="w+", shape=shape)
