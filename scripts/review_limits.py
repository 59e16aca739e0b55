"""How the review page does with many regions, and what a kill costs.

    python scripts/review_limits.py scale [--regions 100000]   seconds and memory of the page
    python scripts/review_limits.py kills [--kills 100]        decisions lost, which must be none

`scale` needs Chromium. Figures are in docs/results.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

PHOTOGRAPHS = 2000
CLASSES = 12
WRITER = """
import sys
from pathlib import Path
from anomalyncd.decisions.actions import Name, decided_now
from anomalyncd.decisions.journal import Journal
journal = Journal(Path(sys.argv[1]))
while True:
    made = decided_now(Name("0", "n" * 3000))
    journal.append([made])
    print(made.id, flush=True)
"""


def draw_run(folder: Path, regions: int) -> Path:
    """A finished run with drawn features, of photographs of 512 × 512 pixels."""
    from anomalyncd.inference.unknown import Seen
    from anomalyncd.results import known_regions

    run = folder / "run"
    run.mkdir()
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (64, 64, 3), np.uint8)
    for number in range(PHOTOGRAPHS):
        picture = Image.fromarray(np.roll(pixels, number, axis=0)).resize((512, 512))
        picture.save(folder / f"{number}.jpg")
    classes = generator.integers(0, CLASSES, regions)
    centres = generator.normal(0, 1, (CLASSES, 192)).astype(np.float32)
    tokens = centres[classes] + generator.normal(0, 0.6, (regions, 192)).astype(np.float32)
    corners = generator.integers(0, 448, (regions, 2))
    confidences = generator.beta(5, 1, regions)
    columns = "region id left top right bottom area class class_name confidence"
    with (run / "regions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split())
        for row in range(regions):
            left, top = corners[row].tolist()
            box = [left, top, left + 64, top + 64]
            head = [row, f"photo/{row % PHOTOGRAPHS}", *box, 900]
            writer.writerow(
                [*head, classes[row], f"class {classes[row]}", f"{confidences[row]:.4f}"]
            )
    with (run / "predictions.csv").open("w", newline="") as file:
        rows = [[f"photo/{n}", folder / f"{n}.jpg"] for n in range(PHOTOGRAPHS)]
        csv.writer(file).writerows([["id", "image"], *rows])
    photographs = np.arange(PHOTOGRAPHS)
    seen = Seen(tokens[:PHOTOGRAPHS], photographs)
    known_regions.write(run, tokens, tokens, seen, seen)
    return run


def scale(regions: int) -> None:
    """Print seconds and memory."""
    import uvicorn

    from anomalyncd.review.page.app import create
    from anomalyncd.review.session import Review

    def timed(what: str, call: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = call()
        print(f"{what:44} {time.perf_counter() - start:8.3f} s", flush=True)
        return result

    with tempfile.TemporaryDirectory() as folder:
        run = draw_run(Path(folder), regions)
        review = timed("open the run", lambda: Review(run))
        assert isinstance(review, Review)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            server = uvicorn.Server(
                uvicorn.Config(create(review, "t", port), log_level="error", access_log=False)
            )
            threading.Thread(target=server.run, args=([listener],), daemon=True).start()
            root = f"http://127.0.0.1:{port}"
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page(viewport={"width": 1366, "height": 768})
                timed(
                    "first view, until its HTML is shown", lambda: commit(page, f"{root}/?token=t")
                )
                timed("first view again, with its pictures", lambda: page.goto(root))
                timed("all regions, first tiles", lambda: tiles(page, f"{root}/regions"))
                print(f"{'frames while scrolling 100 screens':44} {frames(page)}")
                page.wait_for_selector(".grid .tile")
                print(f"{'tiles in the document':44} {page.locator('.tile').count():8}")
                timed("a question", lambda: page.goto(f"{root}/question"))
                page.keyboard.press("y")
                timed(
                    "its answer and the next question",
                    lambda: page.wait_for_selector("text=/confirmed/"),
                )
                timed("split a class, proposal", lambda: page.goto(f"{root}/split?class=0"))
                timed("map, computed", lambda: ready(page, f"{root}/map"))
                timed("map, kept", lambda: ready(page, f"{root}/map"))
                browser.close()
            server.should_exit = True
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{'memory of the server at most':44} {memory:8.2f} GB")


def commit(page: Page, address: str) -> None:
    page.goto(address, wait_until="domcontentloaded")
    page.wait_for_selector(".class .tile")


def tiles(page: Page, address: str) -> None:
    page.goto(address, wait_until="domcontentloaded")
    page.wait_for_selector(".grid .tile")


def ready(page: Page, address: str) -> None:
    page.goto(address, wait_until="domcontentloaded")
    page.wait_for_selector("#map[data-ready]", timeout=600_000)


def frames(page: Page) -> str:
    """Milliseconds between frames while the page scrolls by half a screen per frame."""
    gaps = page.evaluate(
        """() => new Promise(done => {
            const gaps = []; let last = performance.now(), n = 0;
            const step = now => { gaps.push(now - last); last = now; scrollBy(0, innerHeight / 2);
                ++n < 200 ? requestAnimationFrame(step) : done(gaps); };
            requestAnimationFrame(step); })"""
    )
    return f"median {np.median(gaps):.0f} ms, 95 % below {np.percentile(gaps, 95):.0f} ms"


def kills(count: int) -> None:
    """Kill a process that decides without end, at random moments."""
    from anomalyncd.decisions.actions import Name, decided_now
    from anomalyncd.decisions.journal import Journal

    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        said: list[str] = []
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            said.append(process.stdout.readline().strip())
            time.sleep(generator.uniform(0, 0.05))
            os.kill(process.pid, signal.SIGKILL)
            said += [line for line in process.communicate()[0].split() if len(line) == 12]
        journal = Journal(run)
        journal.append([decided_now(Name("0", "after"))])
        kept = {decision.id for decision in journal.decisions}
        torn = len(list(run.glob("decisions.torn-*")))
        print(f"{count} kills, {len(said)} acknowledged decisions, {len(set(said) - kept)} lost, ")
        print(f"{len(kept)} kept, {torn} lines cut off and kept aside")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["scale", "kills"])
    parser.add_argument("--regions", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=100)
    options = parser.parse_args()
    if options.what == "scale":
        scale(options.regions)
    else:
        kills(options.kills)
