"""Joint views of a region's image and mask, a batch at a time on the device that holds it.

The same transforms as in the release, which applies them to one 8-bit Pillow image after another.
Here each step processes a whole batch, with separate parameters for every region. Values stay in
[0, 255] and are truncated to whole grey levels where Pillow does so: a view differs from the
release's by at most one grey level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import get_gaussian_kernel1d
from torch import Tensor
from torch.nn import functional as F

from anomalyncd.runtime import devices

BLUR_RADIUS = 16  # of the widest kernel; the widths are 9, 13, ..., 33
CONTRAST, SATURATION = 1, 2  # columns of `Parameters.colour`; brightness is column 0


@dataclass(frozen=True)
class Parameters:
    """What one random view does to each of n regions; the fields are in the order of use."""

    offset: Tensor  # (n, 2) int64, top and left of the crop
    flip: Tensor  # (n, 2) bool, upside down and left to right
    colour: Tensor  # (n, 3) float32, factors of brightness, contrast, saturation
    order: Tensor  # (n, 3) int64, the columns of `colour` in the order of their application
    turns: Tensor  # (n, 1) int64, quarter turns, counter-clockwise
    sharpness: Tensor  # (n, 1) float32, factor: 0 = smoothed, 1 = unchanged
    blur_radius: Tensor  # (n, 1) int64, pixels on either side of the kernel's centre
    sigma: Tensor  # (n, 1) float32, of the blur, in pixels
    bits: Tensor  # (n, 1) int64, leading bits of each 8-bit value that are kept

    def rows(self, index: Tensor) -> Parameters:
        """The parameters of some of the regions."""
        return Parameters(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device) -> Parameters:
        """Move to `device` in one transfer; float32 holds every value here exactly."""
        here = [getattr(self, field.name) for field in fields(self)]
        packed = devices.moved(torch.cat([tensor.float() for tensor in here], 1), device)
        there = packed.split([tensor.shape[1] for tensor in here], 1)
        return Parameters(*(a.to(b.dtype) for a, b in zip(there, here, strict=True)))


def draw_parameters(n: int, room: int, generator: torch.Generator) -> Parameters:
    """Draw the parameters of one view for each of `n` regions, distributed as in the release.

    Args:
        n: number of regions.
        room: stored size minus view size, in pixels; a crop starts at 0 ... room - 1.
        generator: on the CPU, so that a seed means the same views on every device.
    """

    def uniform(low: float, high: float, columns: int = 1) -> Tensor:
        return torch.rand(n, columns, generator=generator) * (high - low) + low

    def integer(low: int, high: int, columns: int = 1) -> Tensor:
        return torch.randint(low, high, (n, columns), generator=generator)

    return Parameters(
        offset=integer(0, room, columns=2),
        flip=integer(0, 2, columns=2).bool(),
        colour=torch.cat((uniform(0.6, 1.4, columns=2), uniform(0.6, 1.8)), 1),
        order=uniform(0, 1, columns=3).argsort(1),
        turns=integer(0, 4),
        sharpness=uniform(0.2, 2.0),
        blur_radius=integer(2, 9) * 2,
        sigma=uniform(0.1, 2.0),
        bits=integer(5, 9),
    )


def training_views(
    images: Tensor,
    masks: Tensor,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    parameters: Parameters,
) -> tuple[Tensor, Tensor]:
    """One random view of each region. Not under autocast.

    Args:
        images: (b, s, s, 3) uint8, s > side.
        masks: (b, s, s) uint8, 255 = anomalous.
        side: side of the view in pixels, more than 16 (the blur reflects that far).
        mean: of each channel, for images in [0, 1].
        std: of each channel, for images in [0, 1].
        parameters: of b views, drawn for room s - side.

    Returns:
        x, (b, 3, side, side) float32, normalised; and the mask, (b, 1, side, side) float32 in
        [0, 1], under the same geometry and untouched by the photometry.
    """
    parameters = parameters.to(images.device)
    x, mask = _move(images, masks, side, parameters)
    _jitter_colour(x, parameters)
    _sharpen(x, parameters)
    _blur(x, parameters)
    _posterize(x, parameters)
    return _normalise(x, mean, std), mask


def evaluation_view(
    images: Tensor, masks: Tensor, side: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """The centre crop of each region. Shapes as in `training_views`, s >= side."""
    start = (images.shape[1] - side) // 2
    centre = slice(start, start + side)
    x = images[:, centre, centre].permute(0, 3, 1, 2).contiguous().float()
    return _normalise(x, mean, std), masks[:, None, centre, centre].float().div_(255)


def _move(images: Tensor, masks: Tensor, side: int, p: Parameters) -> tuple[Tensor, Tensor]:
    """Crop, flip and turn image and mask: one gather by one index, while they are still bytes.

    The release turns after the colour jitter. The jitter treats pixels alike wherever they are
    (contrast by their mean over the crop, which no flip or turn changes), so turning first is the
    same. Sharpness and blur are as symmetric; they come after the turn there as here.
    """
    stored = images.shape[1]
    # Which source row and column a line of the view reads. A flip reverses its axis; a half turn
    # reverses both; a quarter turn swaps the axes and reverses one of them.
    reverse = p.flip ^ torch.cat((p.turns >= 2, (p.turns == 1) | (p.turns == 2)), 1)
    line = torch.arange(side, device=images.device)
    source = torch.where(reverse[..., None], side - 1 - line, line) + p.offset[..., None]
    rows, columns = source[:, 0] * stored, source[:, 1]  # (b, side) each, as flat strides
    swapped = p.turns % 2 == 1
    down, across = torch.where(swapped, columns, rows), torch.where(swapped, rows, columns)
    index = (down[:, :, None] + across[:, None, :]).view(-1, 1, side * side)

    planes = torch.cat((images.permute(0, 3, 1, 2), masks[:, None]), 1).flatten(2)
    planes = planes.gather(2, index.expand(-1, 4, -1)).view(-1, 4, side, side)
    return planes[:, :3].float(), planes[:, 3:].float().div_(255)


def _jitter_colour(x: Tensor, p: Parameters) -> None:
    """Brightness, contrast and saturation of `x` (b, 3, h, w), in place, each in its own order.

    All three blend the image with a reference: black, its mean grey, its grey image. So one
    formula does for a batch in which regions differ in what comes next; kornia's separate
    functions would split the batch by order, and do not cut to whole grey levels.
    """
    factors = p.colour.gather(1, p.order)
    for kind, factor in zip(p.order.split(1, 1), factors.split(1, 1), strict=True):
        kind, factor = kind[..., None, None], factor[..., None, None]
        reference = _whole(rgb_to_grayscale(x))
        mean = _whole(reference.mean((1, 2, 3), keepdim=True))
        reference.mul_(kind == SATURATION).add_(mean * (kind == CONTRAST))
        _blend(x, reference, factor)


def _sharpen(x: Tensor, p: Parameters) -> None:
    """Blend `x` (b, 3, h, w) in place with its 3x3 smoothing; the outermost pixels stay.

    kornia's `sharpness` is the same blend, but its grouped 3x3 convolution takes ten times as long
    on a CPU as these sums, and it does not cut to whole grey levels.
    """
    inner = x[:, :, 1:-1, 1:-1]
    column = x[:, :, :-2] + x[:, :, 1:-1]
    column += x[:, :, 2:]
    smooth = column[..., :-2] + column[..., 1:-1]
    smooth += column[..., 2:]
    smooth.add_(inner, alpha=4).div_(13)
    _blend(inner, _whole(smooth), p.sharpness[..., None, None])


def _blur(x: Tensor, p: Parameters) -> None:
    """Gaussian blur of `x` (b, 3, h, h), in place, with reflected borders, to whole grey levels.

    A blur along a line is a linear map: blurring the identity gives its matrix, border included,
    and two products of matrices blur a region exactly. On a CPU that takes a sixth of the time
    of the grouped convolutions in `kornia.filters.filter2d_separable`.
    """
    side = x.shape[-1]
    taps = get_gaussian_kernel1d(2 * BLUR_RADIUS + 1, p.sigma)  # (b, 33)
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=x.device).abs()
    # The far taps of a small sigma are denormal numbers, which slow the products several times.
    taps *= (offset <= p.blur_radius) & (taps > 1e-9)
    taps /= taps.sum(1, keepdim=True)
    lines = torch.eye(side, device=x.device)[None]
    windows = F.pad(lines, (BLUR_RADIUS, BLUR_RADIUS), mode="reflect")[0].unfold(
        1, taps.shape[1], 1
    )
    blur = torch.einsum("ijt,bt->bij", windows, taps)  # i, j = pixel of the source, of the result
    across = torch.bmm(x.flatten(1, 2), blur).view_as(x)
    for source, target in zip(across.unbind(1), x.unbind(1), strict=True):  # broadcasting copies
        torch.bmm(blur.mT, source, out=target)
    x.round_()


def _posterize(x: Tensor, p: Parameters) -> None:
    """Zero the low bits of whole grey levels `x` (b, 3, h, w), in place."""
    step = torch.exp2(8 - p.bits.float())[..., None, None]
    x.div_(step).floor_().mul_(step)


def _normalise(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise grey levels `x` (b, 3, h, w) in place: by channel, as numbers need no transfer."""
    for channel, centre, scale in zip(x.unbind(1), mean, std, strict=True):
        channel.sub_(255 * centre).div_(255 * scale)
    return x


def _blend(x: Tensor, reference: Tensor, factor: Tensor) -> None:
    """reference + factor·(x - reference) in place, limited and cut to whole levels like Pillow."""
    x.lerp_(reference, 1 - factor).clamp_(0, 255).floor_()


def _whole(x: Tensor) -> Tensor:
    """Round grey levels in place, halves up as Pillow does."""
    return x.add_(0.5).floor_()
