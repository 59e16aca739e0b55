"""What a deployed model says of itself, as JSON inside its file: all that is not a tensor."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from anomalyncd.config import (
    MAX_CLASSES,
    MAX_SIDE,
    FusionConfig,
    MebinConfig,
    RegionsConfig,
)
from anomalyncd.errors import InputError
from anomalyncd.inference.unknown import MOST, Seen
from anomalyncd.storage import foreign
from anomalyncd.storage.class_list import require_names

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

FORMAT = 1  # raise it when the meaning of a graph's inputs or outputs, or of the card, changes
_CARD, _SEEN = "anomalyncd", "anomalyncd_seen"  # keys of a file's metadata
_KINDS = ("regions", "images")


@dataclass(frozen=True)
class DetectorCard:
    """How the detector's graph is fed, and how its outputs become a map."""

    image_sizes: tuple[int, ...]  # of the squares that a photograph is made, one input each
    peaks: tuple[float, ...]  # of each: what its output is divided by, before their mean
    members: tuple[str, ...]  # digests of the photographs that it compares with, if it leaves out
    # the one that it scores

    def __post_init__(self) -> None:
        sizes = all(0 < size <= MAX_SIDE for size in self.image_sizes)
        if not self.image_sizes or not sizes or len(self.peaks) != len(self.image_sizes):
            raise InputError(f"image_sizes {self.image_sizes} with peaks {self.peaks}")
        if min(self.peaks) <= 0:
            raise InputError(f"peaks {self.peaks}: expected numbers above 0")


@dataclass(frozen=True)
class Card:
    """All that prediction needs besides the graphs, and where the model is from."""

    format: int
    class_names: tuple[str, ...]  # of the K classes
    image_size: int  # of a region's view, in pixels
    mebin: MebinConfig  # with the search range, and the gate, of the run's maps
    regions: RegionsConfig
    fusion: FusionConfig
    raw_range: tuple[float, float] | None  # of the run's maps before they became 8-bit
    detector: DetectorCard | None  # None: maps must be given
    precision: str  # of the weights
    photograph_size: tuple[int, int]  # width and height of the run's photographs, most frequent
    dataset: str
    category: str
    data: str  # digest of all photographs and other inputs of the run
    scores: dict[str, Any]  # of the run
    licence: str  # of the weights
    versions: dict[str, Any]  # that the run and the export were made with

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"format {self.format}; this version reads format {FORMAT}")
        if not 2 <= len(self.class_names) <= MAX_CLASSES:
            raise InputError(f"{len(self.class_names)} class_names; expected 2 to {MAX_CLASSES}")
        require_names(self.class_names)
        try:
            json.dumps(asdict(self), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError("a text that cannot be encoded; expected Unicode") from None
        if not 0 < self.image_size <= MAX_SIDE:
            raise InputError(f"image_size is {self.image_size}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision[:60]!r}")
        if self.mebin.search_range is None:
            raise InputError("mebin.search_range is missing")
        if self.mebin.method == "adaptive" and self.mebin.gate is None:
            raise InputError("mebin.gate is missing")


def as_metadata(card: Card, seen: tuple[Seen, Seen] | None) -> dict[str, str]:
    """Texts by key, as a file's metadata holds them; `seen` are regions and images of the run."""
    found = {_CARD: json.dumps(asdict(card))}
    if seen is not None:
        kept = {kind: _packed(one) for kind, one in zip(_KINDS, seen, strict=True)}
        found[_SEEN] = json.dumps(kept)
    return found


def from_metadata(metadata: Mapping[str, str], where: str) -> tuple[Card, tuple[Seen, Seen] | None]:
    """What `as_metadata` was given.

    Raises:
        InputError: the metadata are not of this program, or damaged; `where` names the file.
    """
    if _CARD not in metadata:
        raise InputError(f"{where}: not written by anomalyncd export; expected such a file")
    parsed = foreign.parse_json(metadata[_CARD], f"{where}: its card")
    card = foreign.build(Card, parsed, f"{where}: its card", complete=True)
    if _SEEN not in metadata:
        return card, None
    try:
        kept = json.loads(metadata[_SEEN])
        regions, images = (_unpacked(kept[kind]) for kind in _KINDS)
        if regions.features.shape[1] != images.features.shape[1]:
            raise ValueError("features of two widths")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where}: {_SEEN}: damaged ({error}); export the run again") from error
    return card, (regions, images)


def _packed(seen: Seen) -> dict[str, Any]:
    features = seen.features.astype("<f2")
    return {
        "width": features.shape[1],
        "features": base64.b64encode(features.tobytes()).decode("ascii"),
        "images": seen.images.tolist(),
    }


def _unpacked(packed: dict[str, Any]) -> Seen:
    values = np.frombuffer(base64.b64decode(packed["features"], validate=True), "<f2")
    images = np.array(packed["images"], np.int64)
    features = values.astype(np.float32).reshape(len(images), packed["width"])
    if images.ndim != 1 or len(images) > MOST or not np.isfinite(features).all():
        raise ValueError("features that do not fit")
    return Seen(features, images)
