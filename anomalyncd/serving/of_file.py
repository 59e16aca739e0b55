"""An exported file in a service, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from PIL import Image

from anomalyncd.errors import InputError
from anomalyncd.runtime_onnx.deployed import Deployed
from anomalyncd.serving.models import Answer, Limits, as_answers
from anomalyncd.types import ResizeMode


class OfFile:
    """An exported file. It holds no known regions."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._deployed = Deployed(
            path,
            threads=limits.threads,
            unknown_share=limits.unknown_share,
            max_megapixels=limits.max_megapixels,
        )
        card = self._deployed.card
        if card.detector is None:
            raise InputError(
                f"{path}: holds no detector, and a service is given no anomaly maps; export a run "
                "with detector=reference"
            )
        shown = ("photograph_size", "precision", "dataset", "category", "data", "scores", "licence")
        whole = asdict(card)
        self.card = {
            "kind": "file",
            "class_names": list(card.class_names),
            "knows_regions": False,
            **{name: whole[name] for name in (*shown, "versions")},
        }

    def answers(self, photographs: Sequence[Image.Image]) -> list[Answer]:
        """See `Model`, as the others."""
        found = self._deployed.examine(photographs)
        mode = cast(ResizeMode, self._deployed.card.regions.resize_mode)
        return as_answers(found, self._deployed.class_names, mode)

    def known(self, region: int) -> bytes | None:
        return None
