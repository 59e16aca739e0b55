"""The losses of a fixed tiny training, epoch by epoch; `tests/golden/loss_curve.json` keeps them.

`python -m tests.helpers.loss_curve` renews that file; do it only for a change that is meant to
change what is learned, and say so in its commit.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from anomalyncd.config import TrainConfig
from anomalyncd.training import train
from anomalyncd.training.state import TrainingState
from tests.helpers.training import small_model, training_set

PLACE = Path(__file__).parents[1] / "golden" / "loss_curve.json"
SOURCES = ("online", "cached")


def loss_curve(features: str, folder: Path) -> list[list[float]]:
    """(epochs, terms): no setting at its default, a high learning rate, and short holds, so that
    every weight, temperature and schedule shows."""
    config = TrainConfig(
        features=features,
        cached_views=3,
        precision="float32",
        epochs=6,
        batch_size=6,
        learning_rate=0.1,
        final_learning_rate=0.02,
        weight_decay=0.05,
        temperature_hold=1,
        temperature_steps=4,
        teacher_temperature=0.2,
        final_teacher_temperature=0.05,
        student_temperature=0.15,
        memax_weight=2.5,
        sup_weight=0.55,
        momentum=0.7,
    )
    return train.train(
        small_model(),
        training_set(),
        config,
        seed=1,
        state=TrainingState(folder / f"{features}.safetensors", "data"),
        on_epoch=lambda *_: None,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        curves = {source: loss_curve(source, Path(folder)) for source in SOURCES}
    rounded = {
        source: [[round(x, 6) for x in epoch] for epoch in c] for source, c in curves.items()
    }
    made_by = "python -m tests.helpers.loss_curve (our own code, on a CPU, in float32)"
    text = json.dumps({"made_by": made_by, **rounded})
    PLACE.write_text(text.replace("[[", "[\n[").replace("], [", "],\n[") + "\n")
