"""The release's training view by Pillow and torchvision, one region at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from anomalyncd.training.augmentation import Parameters

COLOUR = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


def training_views(
    images: Tensor,
    masks: Tensor,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    p: Parameters,
) -> tuple[Tensor, Tensor]:
    """What `augmentation.training_views` returns for the same arguments, on the CPU."""
    views, moved = [], []
    for i in range(len(images)):
        image, mask = training_view(images[i].numpy(), masks[i].numpy(), side, p, i)
        views.append(F.normalize(F.to_dtype(F.pil_to_tensor(image), scale=True), mean, std))
        moved.append(F.to_dtype(F.pil_to_tensor(mask), scale=True))
    return torch.stack(views), torch.stack(moved)


def training_view(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], side: int, p: Parameters, i: int
) -> tuple[Image.Image, Image.Image]:
    """View of `image` (s, s, 3) and `mask` (s, s) by entry i of `p`, before normalisation."""
    view, moved = _crop_and_flip(image, side, p, i), _crop_and_flip(mask, side, p, i)
    for k in p.order[i].tolist():
        view = COLOUR[k](view, p.colour[i, k].item())
    angle = 90 * p.turns[i].item()
    view, moved = F.rotate(view, angle), F.rotate(moved, angle)
    view = F.adjust_sharpness(view, p.sharpness[i].item())
    width, sigma = 2 * int(p.blur_radius[i]) + 1, p.sigma[i].item()
    view = F.gaussian_blur(view, [width, width], [sigma, sigma])
    return F.posterize(view, int(p.bits[i])), moved


def _crop_and_flip(array: NDArray[np.uint8], side: int, p: Parameters, i: int) -> Image.Image:
    top, left = p.offset[i].tolist()
    upside_down, left_to_right = p.flip[i].tolist()
    picture = F.crop(Image.fromarray(array), top, left, side, side)
    if left_to_right:
        picture = F.horizontal_flip(picture)
    return F.vertical_flip(picture) if upside_down else picture
