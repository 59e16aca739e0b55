"""Train the embedded backbone on drawn pictures, with a MobileNetV2 as its teacher.

    python scripts/pretrain_backbone.py OUT --teacher FILE.tflite [--data SHARED_DATA]

First the stem imitates the teacher block by block, then the transformer learns on top of it:
scripts/pretraining/distillation.py. OUT gets the state, from which the same command resumes after a
break, and `embedded.safetensors`, which belongs beside `models/embedded.py`. With `--data` the
real sets of `probe_backbone.py` are read now and then: to measure, never to learn from.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anomalyncd.config import AttentionConfig
from anomalyncd.models import embedded
from anomalyncd.storage.atomic import atomic_write
from scripts import probe_backbone
from scripts.pretraining import distillation, stream
from scripts.pretraining.distillation import Student, Targets
from scripts.pretraining.stream import Batches
from scripts.pretraining.teacher import load_teacher

_FIRST_LOOK = 24  # batches used to standardise the teacher's features
_CHAINED = 0.6  # share of the imitation after which the stem's blocks are chained
_WARMUP = 100  # steps
_DECAY = 0.4  # share of the steps in which the rate falls to 0
_IMITATION_SIDES = (96,)
_KEPT_FROM = (0.5, 0.25, 0.1)  # shares of a patch under the mask; low ones for thin defects
_SIDES = (96, 112, 112, 128, 160)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, required=True, help="MobileNetV2 as a TFLite file")
    parser.add_argument("--imitation", type=int, default=1500, help="steps of the stem alone")
    parser.add_argument("--steps", type=int, default=2400, help="steps of the transformer")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data", type=Path, help="real sets to measure on")
    parser.add_argument("--every", type=int, default=300, help="steps between measurements")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    sets = probe_backbone.load_sets(options.data) if options.data else []

    teacher = load_teacher(options.teacher)
    student = Student()
    channels = teacher.stride16(torch.zeros(1, 3, 32, 32))[0].shape[1]
    targets = Targets(channels, student.vit.width)

    def imitate(step: int, pictures: Tensor, _: Tensor) -> Tensor:
        chained = step >= _CHAINED * options.imitation
        return distillation.imitation(student.stem, teacher, pictures, chained=chained)

    def distil(step: int, pictures: Tensor, masks: Tensor) -> Tensor:
        chance = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        turn = int(torch.randint(8, (), generator=chance))
        dense = targets(teacher, pictures).permute(0, 3, 1, 2)
        x, masks, dense = (
            distillation.turned(t, turn)
            for t in (distillation.disturbed(pictures, chance), masks, dense)
        )
        student.vit.keep_threshold = _KEPT_FROM[step % len(_KEPT_FROM)]
        return student(x, masks, dense.permute(0, 2, 3, 1))

    def measure(step: int) -> None:
        digest = export(student, options.out / "embedded.safetensors")
        print(f"{step}: sha256 {digest}", flush=True)
        if sets:
            student.eval()
            student.vit.keep_threshold = AttentionConfig().mask_threshold
            readings = probe_backbone.probe(describe(student), sets)
            student.train()
            figures = ", ".join(f"{name} {r.nmi:.3f}" for name, r in readings.items())
            mean = probe_backbone.mean_nmi(readings)
            print(f"{step}: NMI {figures}, mean {mean:.3f}", flush=True)

    def drawn(seed: int, sides: tuple[int, ...]) -> Callable[[int], Batches]:
        return lambda first: stream.batches(first, options.batch, seed, sides, options.workers)

    state = options.out / "imitation.pt"
    parts = nn.ModuleDict({"student": student, "targets": targets})
    stem = [p for name, p in student.stem.named_parameters() if not name.startswith("to_tokens")]
    optimizer: torch.optim.Optimizer = torch.optim.Adam(stem, lr=3e-3)
    source = drawn(options.seed, _IMITATION_SIDES)
    if not state.exists():
        pictures = drawn(options.seed + 1, _SIDES)(0)
        targets.fit(teacher, (next(pictures)[0] for _ in range(_FIRST_LOOK)))
    train(parts, optimizer, imitate, source, options.imitation, options.every, state)

    student.settle(targets)
    rest = [p for p in student.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim > 1]},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=1e-3,
        betas=(0.9, 0.98),
        weight_decay=0.05,
    )
    source = drawn(options.seed + 2, _SIDES)
    state = options.out / "distillation.pt"
    train(parts, optimizer, distil, source, options.steps, options.every, state, measure)


def train(
    parts: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_terms: Callable[[int, Tensor, Tensor], Tensor],
    source: Callable[[int], Batches],
    steps: int,
    every: int,
    state: Path,
    measure: Callable[[int], None] = lambda _: None,
) -> None:
    """Minimise the sum of `loss_terms`, resuming from `state` if it exists.

    Args:
        parts: all that learns or was fitted, saved and restored together.
        optimizer: its rates are the peaks.
        loss_terms: of (step, pictures, masks).
        source: batches from a number on.
        steps: in all.
        every: steps between two states and measurements.
        state: file of the last state.
        measure: called with the number of steps done.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    first = 0
    if state.exists():
        stored = torch.load(state, weights_only=True)
        parts.load_state_dict(stored["parts"])
        optimizer.load_state_dict(stored["optimizer"])
        first = stored["step"]
        print(f"{state.stem} resumes after step {first}", flush=True)
    if first == steps:
        return
    parts.train()
    pictures = source(first)
    sums, started = torch.zeros(()), time.perf_counter()
    for step in range(first, steps):
        images, masks = next(pictures)
        terms = loss_terms(step, images, masks)
        share = min(1, (step + 1) / _WARMUP, (steps - step) / (_DECAY * steps))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        optimizer.zero_grad()
        terms.sum().backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        sums = sums + terms.detach()
        done = step + 1
        if done % 50 == 0:
            seconds = (time.perf_counter() - started) / (done - first)
            means = " ".join(f"{mean:.3f}" for mean in (sums / 50).tolist())
            print(f"{state.stem} {done}/{steps}, {seconds:.2f} s each: {means}", flush=True)
            sums = torch.zeros(())
        if done % every == 0 or done == steps:
            with atomic_write(state) as draft:
                torch.save(
                    {
                        "parts": parts.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "step": done,
                    },
                    draft,
                )
            measure(done)


def describe(student: Student) -> probe_backbone.Describe:
    """The class token, as the method uses it."""
    return lambda images, masks: student.vit(distillation.normalised(images), masks)


def export(student: Student, path: Path) -> str:
    """Write the network in its final form; returns the file's SHA-256."""
    with atomic_write(path) as draft:
        safetensors.torch.save_file(embedded.as_shipped(student.vit.vit), draft)
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
