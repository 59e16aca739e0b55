"""A finished run in a service: computed with torch, and with the known regions of the run."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from PIL import Image

from anomalyncd.errors import InputError
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.prediction.neighbours import Neighbours
from anomalyncd.results.prediction_page import picture_of_known
from anomalyncd.serving.models import Answer, Limits, as_answers
from anomalyncd.types import ResizeMode


class OfRun:
    """See `Model`."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._classifier = Classifier(
            path, max_megapixels=limits.max_megapixels, unknown_share=limits.unknown_share
        )
        if not self._classifier.scores_alone:
            raise InputError(
                f"{path}: its detector needs more than one new photograph, which a service cannot "
                "give it; use a run with detector=reference"
            )
        self._neighbours = Neighbours.of_run(path)
        self.card = {
            "kind": "run",
            "class_names": list(self._classifier.class_names),
            "knows_regions": self._neighbours.known is not None,
        }

    def answers(self, photographs: Sequence[Image.Image]) -> list[Answer]:
        mode = cast(ResizeMode, self._classifier.metadata.regions.resize_mode)
        known = self._neighbours.known
        names = known.class_names if known else ()  # without known regions, none is similar
        with self._classifier.examined(photographs) as found:
            answers = as_answers(found, self._classifier.class_names, mode)
            regions = (region for answer in answers for region in answer["regions"])
            for region, token in zip(regions, found.tokens, strict=True):
                region["similar"] = [
                    {"region": row, "class_name": names[row], "cosine": cosine}
                    for row, cosine in self._neighbours.of(token)
                ]
        return answers

    def known(self, region: int) -> bytes | None:
        known = self._neighbours.known
        if known is None or not 0 <= region < len(known.images):
            return None
        return base64.b64decode(picture_of_known(known, region)) or None
