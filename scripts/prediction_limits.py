"""How soon the first new photograph is classified, and how much memory many take.

    python scripts/prediction_limits.py RUN PHOTO [--counts 100,1000,10000] [--side 256]

RUN is a finished run, PHOTO one photograph of its product. Each count is a call of
`anomalyncd predict` in a process of its own, on copies of PHOTO at this size with other noise in
each. Prints seconds to the first answer, photographs per second after it, and the peak of resident
memory. Figures are in docs/results.md; for speed beside the networks alone, see
`python -m scripts.benchmark new_images`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PEAK = """
import resource, sys
from anomalyncd.cli.main import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


def draw_like(photo: Path, folder: Path, count: int, side: int) -> None:
    """Copies of a photograph, each with other noise."""
    with Image.open(photo) as file:
        pixels = np.asarray(file.convert("RGB").resize((side, side)), np.int16)
    generator = np.random.default_rng(0)
    for number in range(count):
        noisy = pixels + generator.integers(-4, 5, pixels.shape, np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06}.png")


def measured(run: Path, photos: Path) -> tuple[float, float, float]:
    """Seconds to the first answer and to the last, and the peak of memory in MB."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-c", PEAK, "predict", str(run), str(photos), "--jsonl"]
        begun = time.perf_counter()
        with subprocess.Popen(
            [*command, "--output", output],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.readline()
            first = time.perf_counter() - begun
            process.stdout.read()
            last = time.perf_counter() - begun
            said = process.stderr.read().splitlines()
        if process.returncode:
            raise SystemExit("\n".join(said))
    return first, last, int(said[-1]) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--counts", default="1,100,1000", help="numbers with commas between them")
    parser.add_argument("--side", type=int, default=256, help="height and width in pixels")
    given = parser.parse_args()
    for count in map(int, given.counts.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            draw_like(given.photo, Path(folder), count, given.side)
            first, last, memory = measured(given.run, Path(folder))
        speed = f"{(count - 1) / (last - first):.1f} per second after it" if count > 1 else "alone"
        print(f"{count:,} photographs: first answer {first:.1f} s, {speed}, peak {memory:.0f} MB")


if __name__ == "__main__":
    main()
