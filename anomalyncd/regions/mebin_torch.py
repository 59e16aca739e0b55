"""Main element binarization of a batch, on the device of its tensor; equals `mebin` bit for bit.

As in `mebin`, the components at all thresholds are counted together, and only the peaks and
saddles of the eroded ranks matter. Here they become a graph: peaks are its nodes, and at a saddle
edges join the peaks that are reached by climbing from there. The components at or above a rank
are then the peaks less the edges of a maximum spanning forest at or above it. Climbing is pointer
jumping and the forest is Borůvka's, so all maps of a batch advance together.

Meant for CPU and CUDA: maps other than uint8 need float64, which MPS has not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TOP = 255  # thresholds are numbered on the 8-bit scale, whatever the maps' dtype
# Pixels worked on together: few for a CPU's caches, many so that launching a GPU's kernels counts
# little. A pixel takes up to 180 bytes (of pure noise; all pixels above lo), so 3 GB at most.
CHUNK = {"cpu": 2**20, "cuda": 2**24}
WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64}  # torch computes little with those
# (y, x) of a pixel's neighbours within 3 x 3 pixels, clockwise from the north-west
RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))


class Binarized(NamedTuple):
    """The main elements of n maps."""

    masks: Tensor  # (n, h, w) bool
    thresholds: Tensor  # (n,) in the maps' units, int64 or float64; TOP where count is 0
    counts: Tensor  # (n,) int64, components the mask is estimated to have; 0 = none, mask empty


def search_range(maps: Tensor) -> tuple[float, float]:
    """Lowest and highest of the maps' peaks.

    Args:
        maps: (n, h, w), any integer (but uint64) or float dtype.

    Returns:
        Python numbers, int for integer maps.

    Raises:
        ValueError: there is no map, a map holds NaN or infinity, or maps is not (n, h, w).
    """
    maps = _checked(maps)
    if len(maps) == 0:
        raise ValueError("no anomaly maps: the search range needs at least one")
    peaks = maps.amax((1, 2)).tolist()
    return min(peaks), max(peaks)


def component_counts(maps: Tensor, lo: float, hi: float, step: int = 4, erosion: int = 6) -> Tensor:
    """Number of 8-connected components at each threshold.

    Args:
        maps: (n, h, w), any integer (but uint64) or float dtype.
        lo: value that becomes 0; whatever lies below does too.
        hi: value that becomes 255.
        step: distance between thresholds, which run 255, 255 - step, … > 0.
        erosion: side of the square each foreground is eroded by; 0 = no erosion.

    Returns:
        (n, n_thresholds) int64, highest threshold first; all 0 where hi == lo.

    Raises:
        ValueError: hi < lo, step < 1 or step > 255, a map holds NaN or infinity, or maps is not
            (n, h, w).
    """
    if not 1 <= step <= TOP:
        raise ValueError(f"step is {step}; it must lie in 1…{TOP}")
    lo, hi = float(lo), float(hi)
    if not lo <= hi:
        raise ValueError(f"search range ({lo}, {hi}): the first must not exceed the second")
    maps = _checked(maps)
    n_thresholds = len(range(TOP, 0, -step))
    if hi == lo:
        return torch.zeros(len(maps), n_thresholds, dtype=torch.int64, device=maps.device)
    counts = [
        _count(_erode(_ranks(chunk, lo, hi, step), erosion), n_thresholds)
        for chunk in maps.split(_chunk_length(maps))
    ]
    return torch.cat(counts)


def binarize(
    maps: Tensor,
    lo: float,
    hi: float,
    *,
    step: int = 4,
    min_interval: int = 4,
    erosion: int = 6,
) -> Binarized:
    """Binarize maps, given their category's search range.

    No map's result depends on the others'.

    Args:
        maps: (n, h, w), any integer (but uint64) or float dtype.
        lo: lower end of the search range.
        hi: upper end of the search range.
        step: distance between thresholds on the scale 0…255.
        min_interval: number of successive thresholds an equal count must hold to be stable.
        erosion: side of the eroding square; 0 = no erosion.

    Raises:
        ValueError: as `component_counts`.
    """
    lo, hi = float(lo), float(hi)
    counts, last = _longest_interval(component_counts(maps, lo, hi, step, erosion), min_interval)
    maps = maps.to(WIDER.get(maps.dtype, maps.dtype))
    # in Python, whose rounding is that of `mebin` on every device
    scale = [threshold * (hi - lo) / TOP + lo for threshold in range(TOP, 0, -step)] + [TOP]
    if maps.is_floating_point():
        dtype = torch.float64
    else:
        scale, dtype = [math.floor(threshold) for threshold in scale], torch.int64
    thresholds = torch.tensor(scale, dtype=dtype, device=maps.device)[last]
    unstable = (counts == 0).nonzero().squeeze(1)
    length = _chunk_length(maps)
    masks = [
        _erode((chunk > threshold).view(torch.uint8), erosion).view(torch.bool)
        for chunk, threshold in zip(
            maps.split(length), thresholds[:, None, None].split(length), strict=True
        )
    ]
    return Binarized(torch.cat(masks).index_fill_(0, unstable, False), thresholds, counts)


def _checked(maps: Tensor) -> Tensor:
    """The maps, in a dtype that torch can compute with."""
    if maps.ndim != 3:
        raise ValueError(f"maps of shape {tuple(maps.shape)}; expected (n, h, w)")
    if maps.is_floating_point():
        spread = maps.amax((1, 2)).double() - maps.amin((1, 2)).double()
        if not spread.isfinite().all():
            raise ValueError("an anomaly map holds NaN or infinity; all values must be finite")
    return maps.to(WIDER.get(maps.dtype, maps.dtype))


def _chunk_length(maps: Tensor) -> int:
    """Number of maps worked on together."""
    pixels = CHUNK.get(maps.device.type, CHUNK["cpu"])
    return max(1, pixels // (maps.shape[1] * maps.shape[2]))


def _longest_interval(counts: Tensor, min_interval: int) -> tuple[Tensor, Tensor]:
    """Count of each map's longest stable interval and that interval's last index.

    Among equally long intervals the first one's count wins, and of that count the last interval.

    Args:
        counts: (n, n_thresholds).
        min_interval: length from which an interval is stable.

    Returns:
        (n,) counts, 0 = none; (n,) indices, n_thresholds = none.
    """
    n, n_thresholds = counts.shape
    index = torch.arange(n_thresholds, device=counts.device)
    changes = counts[:, 1:] != counts[:, :-1]
    edge = changes.new_ones(n, 1)
    begin = torch.where(torch.cat([edge, changes], 1), index, 0).cummax(1).values
    is_end = torch.cat([changes, edge], 1)
    length = torch.where(is_end & (counts > 0), index - begin + 1, 0)
    longest = length.amax(1, keepdim=True)
    is_longest = (length == longest) & (longest >= max(min_interval, 1))
    first = torch.where(is_longest, index, n_thresholds).amin(1, keepdim=True)
    count = functional.pad(counts, (0, 1)).gather(1, first)
    last = torch.where(is_longest & (counts == count), index, -1).amax(1)
    return count.squeeze(1), torch.where(last < 0, n_thresholds, last)


def _erode(images: Tensor, erosion: int) -> Tensor:
    """Grey erosion of (n, h, w) uint8 by a square of ones; what lies outside lowers no value."""
    before = erosion // 2  # OpenCV's anchor
    for dim in (1, 2) if erosion else ():
        pad = (before, erosion - 1 - before)
        images = functional.pad(images, pad if dim == 2 else (0, 0, *pad), value=TOP)
        reach = 1
        while reach < erosion:  # a minimum over `reach` pixels becomes one over twice as many
            shift = min(reach, erosion - reach)
            rest = images.shape[dim] - shift
            images = torch.minimum(images.narrow(dim, 0, rest), images.narrow(dim, shift, rest))
            reach += shift
    return images


def _ranks(maps: Tensor, lo: float, hi: float, step: int) -> Tensor:
    """(n, h, w) uint8, number of thresholds that each pixel's normalised value exceeds."""
    if maps.dtype == torch.uint8:
        values = torch.arange(TOP + 1, dtype=torch.float64)
        table = _rank_values(values, lo, hi, step).to(maps.device)
        return table.index_select(0, maps.flatten().int()).view_as(maps)
    return _rank_values(maps.double(), lo, hi, step)


def _rank_values(values: Tensor, lo: float, hi: float, step: int) -> Tensor:
    n_thresholds = len(range(TOP, 0, -step))
    lowest = TOP - (n_thresholds - 1) * step
    # tensors: CUDA divides by a plain number by multiplying with its rounded reciprocal
    span, unit = values.new_tensor(hi - lo), values.new_tensor(step)
    normalised = (values - lo).div_(span).mul_(TOP)
    # The ceiling is exact: from `lowest` up the difference of a float and a smaller integer is not
    # rounded, and a quotient above an integer is too far from it to be rounded to it.
    return normalised.sub_(lowest).div_(unit).ceil_().clamp_(0, n_thresholds).to(torch.uint8)


def _count(ranks: Tensor, n_thresholds: int) -> Tensor:
    """(n, n_thresholds), components of {rank ≥ n_thresholds}, … {rank ≥ 1} of (n, h, w) uint8.

    Pixels are thought to be let in one by one, as in `mebin`: from high rank to low and in raster
    order within a rank. No two pixels are equal then, and every climb ends at a peak.
    """
    n, height, width = ranks.shape
    earlier, steepest = (image.flatten() for image in _surroundings(ranks))
    ranks = ranks.flatten()
    # from here on, only pixels of rank above 0, by their number in the list of them
    place = ranks.nonzero().squeeze(1)
    number = torch.empty_like(ranks, dtype=torch.int64)
    number.scatter_(0, place, torch.arange(len(place), device=place.device))
    rank, earlier = ranks.gather(0, place), earlier.gather(0, place)
    image = place // (height * width)

    up = steepest.gather(0, place).long()
    up = place + (1 - (up >> 2) % 4) * width + 1 - up % 4
    peak_of = _roots(number.gather(0, up))

    # going round a pixel, gaps on its four sides separate groups of earlier neighbours
    is_in_one_back = (earlier << 1) | (earlier >> 7)
    is_in_two_back = (earlier << 2) | (earlier >> 6)
    gaps = ~earlier & (is_in_one_back | is_in_two_back) & 0b10101010
    saddle = (gaps & (gaps - 1)).nonzero().squeeze(1)  # two gaps or more
    bit = torch.arange(len(RING), dtype=torch.uint8, device=place.device)
    row, direction = ((earlier[saddle, None] >> bit) & 1).nonzero(as_tuple=True)
    saddle = saddle[row]
    ring = torch.tensor([(y - 1) * width + x - 1 for y, x in RING], device=place.device)
    ends = peak_of[torch.stack([saddle, number[place[saddle] + ring[direction]]])]

    peak = (earlier == 0).nonzero().squeeze(1)
    node = torch.empty_like(place)
    node.scatter_(0, peak, torch.arange(len(peak), device=place.device))
    heaviest_first = rank[saddle].argsort(descending=True, stable=True)
    saddle, ends = saddle[heaviest_first], node[ends[:, heaviest_first]]
    merging = saddle[_spanning_forest(ends, len(peak))]

    def per_rank(pixels: Tensor) -> Tensor:
        bins = image[pixels] * (TOP + 1) + rank[pixels]
        return torch.bincount(bins, minlength=n * (TOP + 1)).view(n, TOP + 1)

    changes = per_rank(peak) - per_rank(merging)
    return changes[:, 1 : n_thresholds + 1].flip(1).cumsum(1)


def _surroundings(ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Which neighbours are let in before a pixel, and which is let in first of all.

    Args:
        ranks: (n, h, w) uint8.

    Returns:
        (n, h, w) uint8, bits in the order of `RING`; (n, h, w) int16, the lowest two bits 1 - x
        and the next two 1 - y of the steps (x, y) there, (0, 0) = the pixel itself.
    """
    _, height, width = ranks.shape
    padded = functional.pad(ranks, (1, 1, 1, 1))
    earlier = torch.zeros_like(ranks)
    for bit, (y, x) in enumerate(RING):
        neighbour = padded[:, y : y + height, x : x + width]
        is_earlier = neighbour >= ranks if (y, x) < (1, 1) else neighbour > ranks
        earlier.add_(is_earlier.view(torch.uint8), alpha=1 << bit)
    # the maximum of (rank, 1 - y, 1 - x) in one number: the highest, of these the first in raster
    packed = padded.short() << 4
    for dim, unit in ((2, 1), (1, 4)):
        size = packed.shape[dim] - 2
        first, second, third = (packed.narrow(dim, i, size) for i in range(3))
        packed = torch.maximum(first + 2 * unit, torch.maximum(second + unit, third))
    return earlier, packed


def _roots(parent: Tensor) -> Tensor:
    """The root of each node of a forest of (n,) parents, by pointer jumping."""
    while True:
        grandparent = parent.gather(0, parent)
        if torch.equal(grandparent, parent):
            return parent
        parent = grandparent


def _spanning_forest(ends: Tensor, n_nodes: int) -> Tensor:
    """Edges of a maximum spanning forest, by Borůvka's rounds.

    Args:
        ends: (2, n_edges) nodes; the heaviest edge first. Those from a node to itself are ignored.
        n_nodes: number of nodes.

    Returns:
        (n_forest_edges,) indices into the edges.
    """
    forest: list[Tensor] = []
    edge = torch.arange(ends.shape[1], device=ends.device)
    node = torch.arange(n_nodes, device=ends.device)
    while True:
        joins = ends[0] != ends[1]
        ends, edge = ends[:, joins], edge[joins]
        n_edges = len(edge)
        if n_edges == 0:
            return torch.cat(forest) if forest else edge
        # every tree takes its heaviest edge; none is as heavy as another, so no cycle can form
        order = torch.arange(n_edges, device=ends.device).expand_as(ends)
        best = torch.full_like(node, n_edges)
        best.scatter_reduce_(0, ends.flatten(), order.flatten(), "amin")
        tree = (best < n_edges).nonzero().squeeze(1)
        taken = best[tree]
        parent = node.clone()
        parent[tree] = ends[0, taken] + ends[1, taken] - tree
        # two trees that took the same edge: the first becomes the root
        is_root = (parent[parent] == node) & (node <= parent)
        parent = torch.where(is_root, node, parent)
        forest.append(edge[taken[~is_root[tree]]])
        ends = _roots(parent)[ends]
