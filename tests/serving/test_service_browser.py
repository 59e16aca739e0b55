"""The page in a real browser: a photograph is chosen; its regions, class and neighbours show."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from anomalyncd.serving import server
from anomalyncd.serving.app import Bounds, Service
from anomalyncd.serving.models import Model
from tests.helpers import chromium
from tests.helpers.drawn_file import RED, photograph
from tests.helpers.served import KEY, encoded, file_model

expect.set_options(timeout=30_000)  # a shared machine is slow

pytestmark = chromium.needs_chromium


class Knowing:
    """A file's model that says of each region that it is like known ones, as a run's does."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.card = {**model.card, "knows_regions": True}

    def answers(self, photographs: list[Image.Image]) -> list[dict]:
        answers = self._model.answers(photographs)
        for region in (region for answer in answers for region in answer["regions"]):
            region["similar"] = [{"region": 4, "class_name": "dent", "cosine": 0.91}]
        return answers

    def known(self, region: int) -> bytes | None:
        return encoded(photograph(RED), "JPEG") if region == 4 else None


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = file_model(tmp_path_factory.mktemp("page"))
    listening = server.listener("127.0.0.1", 0)
    port = listening.getsockname()[1]
    service = Service({"file": file, "run": Knowing(file)}, Bounds(), port=port, key=KEY)
    web = uvicorn.Server(uvicorn.Config(service.app, log_level="error"))
    thread = threading.Thread(target=web.run, args=([listening],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    web.should_exit = True
    thread.join(10)
    service.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """Of scripts and of the content security policy."""
    found: list[str] = []
    yield found
    assert [text for text in found if "401" not in text] == []  # the page asks before it has a key


def opened(browser: Browser, address: str, errors: list[str], width: int) -> Page:
    page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(address)
    return page


def choose(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)


@pytest.mark.parametrize("width", [1366, 390])
def test_a_photograph_shows_its_class_regions_and_neighbours(
    browser: Browser, address: str, errors: list[str], tmp_path: Path, width: int
) -> None:
    path = tmp_path / "tile.png"
    path.write_bytes(encoded(photograph(RED)))
    page = opened(browser, address, errors, width)
    page.get_by_label("Key of this service").fill(KEY)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_label("Model")).to_be_visible()

    choose(page, path)
    expect(page.get_by_role("heading", name="red")).to_be_visible()
    expect(page.get_by_text("holds no known regions")).to_be_visible()
    expect(page.get_by_role("img", name="tile.png with regions: red")).to_be_visible()
    drawn = "canvas => [...canvas.getContext('2d').getImageData(416, 416, 1, 1).data].slice(0, 3)"
    assert page.eval_on_selector("#picture", drawn) == list(RED)
    edge = "canvas => [...canvas.getContext('2d').getImageData(300, 300, 240, 240).data]"
    assert 255 in page.eval_on_selector("#picture", edge)[1::4]  # the line's green

    page.get_by_label("Model").select_option("run")
    choose(page, path)
    expect(page.get_by_role("img", name="Known region of dent")).to_be_visible()
    expect(page.get_by_text("dent 0.91")).to_be_visible()
    expect(page.get_by_text("holds no known regions")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    path.write_bytes(b"no photograph")
    choose(page, path)
    expect(page.get_by_role("status")).to_contain_text("cannot read this image")
    errors[:] = [text for text in errors if "422" not in text]


def test_the_example_for_programs_works(browser: Browser, address: str, errors: list[str]) -> None:
    page = opened(browser, f"{address}/docs", errors, 1366)
    expect(page.get_by_role("heading", name="POST /predict")).to_be_visible()
    page.get_by_label("Key, if the service has one").fill(KEY)
    page.get_by_role("button", name="POST /predict").click()
    expect(page.get_by_role("status")).to_contain_text('"class_name": "white"')
