"""What the two forms of `anomalyncd predict` say of their result: with a run, and with a file."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from anomalyncd.config import PredictConfig
from anomalyncd.errors import InputError
from anomalyncd.prediction.journal import Stamp
from anomalyncd.prediction.predict import Predicted
from anomalyncd.runtime.console import printable, say
from anomalyncd.types import VERDICTS

FOUND = 3  # exit status of --fail-on


def on_record(config: PredictConfig, record: dict[str, Any]) -> None:
    """Print the record of an image, if JSON lines were asked for."""
    if config.jsonl:
        hidden = {"kind", "key", *(field.name for field in fields(Stamp))}
        print(json.dumps({k: v for k, v in record.items() if k not in hidden}), flush=True)


def tell(result: Predicted, config: PredictConfig) -> list[str]:
    """Say what was found and where it is; which kinds of --fail-on there are."""
    show = say if config.jsonl else _print
    show(_summary(result))
    if result.known and not result.new:
        show("Nothing new: all of these photographs were classified before.")
    elif result.known:
        show(f"{result.new} new; {result.known} were classified before.")
    show(f"Report: {result.folder / 'report.html'}")
    show(f"Predictions: {result.folder}")
    found = result.found(config.fail_on)
    if found:
        say(f"found: {', '.join(found)} (--fail-on)")
    return found


def require_all(result: Predicted) -> None:
    """
    Raises:
        InputError: some photographs could not be classified.
    """
    if result.problems:
        first = next(iter(result.problems.values()))
        raise InputError(
            f"{len(result.problems)} of {sum(result.counts.values()) + len(result.problems)} "
            f"photographs could not be classified ({first}); all are listed in "
            f"{result.folder / 'unreadable.csv'}, the others are done"
        )


def _print(text: str) -> None:
    print(printable(text))


def _summary(result: Predicted) -> str:
    """Images of each class: verdicts first, then the most frequent."""
    first = {name: result.counts[name] for name in VERDICTS.values() if result.counts[name]}
    others = {name: count for name, count in result.counts.most_common() if name not in first}
    return ", ".join(f"{name}: {count}" for name, count in {**first, **others}.items())
