"""Learn from what was decided in a review of a run: a new run, whose classes have the given names.

Decided regions are known, the others follow those that they look like (`decisions.propagation`).
The network learns this by new prototypes for all classes; its class tokens stay as they are. So
what the run keeps of its regions is enough: neither photographs nor a cache are needed, and it
takes seconds. The run itself is only read.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from anomalyncd.decisions.state import active
from anomalyncd.errors import InputError
from anomalyncd.extension import parent, prototypes
from anomalyncd.extension.place import beside, require_ours
from anomalyncd.inference.classify import novel_probabilities
from anomalyncd.learning import result
from anomalyncd.learning.result import Learned
from anomalyncd.learning.taught import Taught, teach
from anomalyncd.models import checkpoint
from anomalyncd.models.checkpoint import ModelMetadata
from anomalyncd.models.model import Model
from anomalyncd.review.session import Review
from anomalyncd.run import RunResult
from anomalyncd.runtime import console
from anomalyncd.storage.cache import digest
from anomalyncd.storage.run_folder import RunFolder

_ROLE = "learning"  # in inputs.json: what the folder is computed from


def learn(
    run: str | Path,
    *,
    output: str | Path | None = None,
    weights: str | Path | None = None,
    quiet: bool = False,
) -> RunResult:
    """Make a classifier of what was decided in a review of a run.

    Args:
        run: the folder of a finished run, of any kind.
        output: the new run's folder; None: beside `run`, named by the content of all inputs.
        weights: the backbone's weights file, if it has been moved.
        quiet: print nothing.

    Returns:
        The new run. The same call returns a finished one.

    Raises:
        InputError: nothing was decided, the run or its decisions cannot be used, or `output` holds
            something else.

    Example:
        >>> result = anomalyncd.learn("outputs/…/seed-1")  # doctest: +SKIP
        >>> result.metrics["learning"]["summary"]  # doctest: +SKIP
        ['Learned from 30 decisions on seed-1.', …]
    """
    start = time.perf_counter()
    root = Path(run)
    if not RunFolder(root).finished:
        raise InputError(f"{root}: not a finished run; repeat its command, or name another folder")
    review = Review(root)
    if all(one.is_carried for one in active(review.decisions)):
        raise InputError(
            f"{root}: nothing to learn from, no decision so far; decide something first: "
            f"anomalyncd review {root}"
        )
    made_of = digest(parent.identity(root))
    folder = RunFolder(Path(output) if output else beside(root, made_of))
    with folder.held():
        require_ours(folder, _ROLE, made_of, "what is learned from these decisions on this run")
        if folder.finished:
            if not quiet:
                console.say(f"Finished before: {folder.root}")
            return RunResult(folder.root, folder.metrics, was_finished=True)
        file = root / parent.MODEL
        network, metadata = checkpoint.load_model(file, None if weights is None else str(weights))
        before = parent.read(root, metadata, network.vit.width)
        known = before.known
        taught = teach(
            review.state,
            review.kinds(review.state),
            known.areas,
            known.classes,
            before.classes,
            before.number + 1,
        )
        if not taught.shares.any():
            raise InputError(
                f"{root}: of no region is known what it is, only what it is not; say it of some: "
                f"anomalyncd review {root}"
            )
        agreeing = _relearn(network, metadata, known.tokens, taught)
        folder.create()
        folder.note_inputs({_ROLE: {"made_of": made_of}, "image": parent.photographs(root)})
        seconds = time.perf_counter() - start
        done = Learned(before, review, taught, network, metadata, agreeing, made_of, seconds)
        metrics = result.write(folder, done)
    return RunResult(folder.root, metrics, was_finished=False)


def _relearn(
    network: Model, metadata: ModelMetadata, tokens: NDArray[np.float32], taught: Taught
) -> float:
    """Give the network its new prototypes; the share of regions whose class it then says."""
    rows = np.flatnonzero(taught.shares.any(axis=1))
    heads, temperature = network.heads, metadata.train.student_temperature
    base, old = heads.prototypes[:, : network.n_base], heads.prototypes[:, network.n_base :]
    new = prototypes.relearn(old, tokens[rows], taught.shares[rows], temperature)
    heads.prototypes = nn.Parameter(torch.cat([base.detach(), new], dim=1))
    with torch.inference_mode():
        logits = heads.classify(torch.from_numpy(tokens[rows]))[metadata.head]
        said = novel_probabilities(logits, network.n_base, temperature).argmax(-1).numpy()
    return float((said == taught.region_class[rows]).mean())
