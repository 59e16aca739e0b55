"""The page in a real browser: with the mouse, with keys alone, and as a screen reader sees it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from anomalyncd.decisions.actions import Name
from anomalyncd.review.page import making
from anomalyncd.review.page.app import create
from anomalyncd.review.session import Review
from anomalyncd.types import Box
from tests.helpers import chromium
from tests.helpers.reviewed import make_finished_run, make_run

expect.set_options(timeout=30_000)  # a shared machine is slow

pytestmark = chromium.needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


class Served:
    """A review and its page on this machine."""

    def __init__(self, review: Review) -> None:
        self.review = review
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        port = self._listener.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.address = f"{self.root}/?token=secret"
        self._server = uvicorn.Server(
            uvicorn.Config(create(review, "secret", port), log_level="error")
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), daemon=True
        )
        self._thread.start()

    def class_of(self, row: int) -> str:
        state = self.review.state
        return state.name_of(state.class_of(row))

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(Review(make_run(tmp_path)))
    yield made
    made.stop()


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[Served]:
    """With a network, so that it can be learned from."""
    made = Served(Review(make_finished_run(tmp_path)))
    yield made
    made.stop()


def opened(browser: Browser, served: Served, errors: list[str], width: int = 1366) -> Page:
    context = browser.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(served.address)
    return page


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """Of scripts and of the content security policy, on all pages of a test."""
    found: list[str] = []
    yield found
    assert found == []


def says(page: Page, text: str) -> None:
    expect(page.get_by_role("status").last).to_contain_text(text)


def test_a_person_walks_the_whole_way(
    browser: Browser, finished: Served, errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = finished
    found = [Box(0, 0, 9, 9)], served.review.regions.tokens[[9]]
    monkeypatch.setattr(making.runs, "regions_of", lambda run, photo: found)  # has no detector
    page = opened(browser, served, errors)
    assert "secret" not in page.url
    other = opened(browser, served, errors)

    # Name
    page.get_by_role("button", name="Rename class 0").click()
    page.get_by_label("What is this kind of defect called?").fill("scratch")
    page.get_by_role("button", name="Name it").click()
    says(page, "Named scratch")
    expect(page.get_by_role("heading", name="scratch")).to_be_visible()
    expect(other.get_by_role("heading", name="scratch")).to_be_visible()  # by itself

    # Merge in the second window, and undo in the first
    other.get_by_role("button", name="Merge class 2").click()
    other.get_by_role("dialog").get_by_role("button", name="scratch").click()
    says(other, "Merged class 2 into scratch")
    expect(page.get_by_role("heading", name="class 2")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name="class 2")).to_be_visible()

    # Split
    page.get_by_role("link", name="Split class 1").click()
    page.get_by_role("link", name="3", exact=True).click()
    split = page.get_by_role("button", name="Split into 3")
    expect(split).to_be_visible()
    page.wait_for_load_state()  # its scripts run before that
    split.click()
    expect(page.get_by_role("heading", name="new class")).to_have_count(2)
    page.wait_for_load_state()  # its scripts run before that
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name="new class")).to_have_count(0)

    # Move two regions to a new class, reject one
    strip = page.get_by_role("listbox", name="Regions of class 1")
    strip.get_by_role("option").nth(0).click(modifiers=["Control"])
    strip.get_by_role("option").nth(1).click()
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.get_by_role("button", name="Move…").click()
    page.get_by_label("or to a new class").fill("dent")
    page.get_by_role("button", name="Make this class").click()
    says(page, "2 regions moved to dent")
    expect(page.get_by_role("listbox", name="Regions of dent").get_by_role("option")).to_have_count(
        2
    )
    strip.get_by_role("option").nth(0).click(modifiers=["Control"])
    page.get_by_role("button", name="False alarm").click()
    expect(page.get_by_role("heading", name="false alarm")).to_be_visible()
    assert [served.class_of(row) for row in range(4, 8)] == [
        *("dent", "dent", "false alarm", "class 1")
    ]

    # Enlarge
    strip.get_by_role("option").nth(0).click()
    dialog = page.get_by_role("dialog", name="Region 7")
    expect(dialog.get_by_role("img", name="The whole photograph photo 7")).to_be_visible()
    dialog.get_by_role("button", name="Confirm").click()
    says(page, "1 region confirmed")

    # Reload: all is there
    page.reload()
    expect(page.get_by_role("heading", name="scratch")).to_be_visible()
    expect(page.get_by_text("4 of 12 regions decided")).to_be_visible()

    # Learn: a run beside this one; its review knows what was decided
    page.get_by_role("button", name="Learn").click()
    page.get_by_role("dialog").get_by_role("button", name="Learn").click()
    learned = page.locator("#learned")
    expect(learned).to_contain_text("4 of 12 regions were decided", timeout=120_000)
    later = Review(Path(learned.locator("p").last.inner_text().removeprefix("Run: ")))
    assert later.state.name_of("0") == "scratch" and int(later.state.decided.sum()) == 4
    page.keyboard.press("Escape")

    # Drop a photograph
    drop = """() => {
        const files = new DataTransfer();
        files.items.add(new File(["photograph"], "a.png"));
        document.body.dispatchEvent(
            new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: files }));
    }"""
    page.evaluate(drop)
    nearest = page.get_by_role("dialog", name="Nearest known regions")
    expect(nearest.get_by_role("button", name="Region 9 of photo 9")).to_be_visible()
    page.keyboard.press("Escape")

    # Export
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="COCO").click()
    made = json.loads(Path(download.value.path()).read_text())
    assert {one["name"] for one in made["categories"]} == {"scratch", "dent", "class 1", "class 2"}
    assert len(Review(served.review.run).decisions) == 8


def test_it_can_be_done_with_keys_alone(
    browser: Browser, served: Served, errors: list[str]
) -> None:
    page = opened(browser, served, errors)
    press = page.keyboard.press
    options = page.get_by_role("option")
    expect(options.first).to_be_visible()
    for _ in range(40):  # with Tab to the first list
        if page.evaluate("document.activeElement.getAttribute('role')") == "option":
            break
        press("Tab")
    focused = page.locator("[role=option]:focus")
    expect(focused).to_have_attribute("data-row", "0")
    press("r")
    expect(page.get_by_label("What is this kind of defect called?")).to_be_focused()
    page.keyboard.type("scratch")
    press("Enter")
    expect(page.get_by_role("heading", name="scratch")).to_be_visible()
    expect(focused).to_have_attribute("data-row", "0")  # where it was
    press("ArrowRight")
    press("ArrowDown")  # into the next class
    expect(focused).to_have_attribute("data-row", "4")
    press("Shift+ArrowRight")
    press("x")
    says(page, "2 regions: false alarm")
    expect(focused).to_have_attribute("data-row", "6")
    press("d")
    says(page, "1 region: not a defect")
    expect(focused).to_have_attribute("data-row", "7")  # the next one
    press("u")
    expect(page.get_by_role("heading", name="not a defect")).to_have_count(0)
    expect(focused).to_have_attribute("data-row", "7")
    press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    press("m")
    expect(page.get_by_role("heading", name="Move to …")).to_be_visible()
    page.get_by_label("or to a new class").focus()
    page.keyboard.type("dent")
    press("Enter")
    expect(page.get_by_role("heading", name="dent")).to_be_visible()
    served.review.decide(Name("1", "stain"), Name("2", "hole"))
    press("Alt+2")
    expect(page.get_by_role("heading", name="Is this")).to_be_visible()
    page.wait_for_load_state()  # its scripts run before that
    press("y")
    says(page, "1 region confirmed as")
    press("n")
    says(page, "1 region: not")
    assert [served.class_of(row) for row in (4, 5, 7)] == ["false alarm", "false alarm", "dent"]
    press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.get_by_label("Use single keys").uncheck()
    press("Escape")
    before = served.review.version
    press("y")
    press("u")
    page.wait_for_timeout(300)
    assert served.review.version == before


def test_a_screen_reader_finds_names_roles_and_order(
    browser: Browser, served: Served, errors: list[str]
) -> None:
    page = opened(browser, served, errors)
    seen = page.locator("body").aria_snapshot()
    for line in (
        'navigation "Views"',
        'heading "run" [level=1]',
        'heading "class 0" [level=2]',
        'listbox "Regions of class 0, least sure first"',
        'option "Region 0 of photo 0, confidence 30 %"',
        'button "Merge class 0"',
    ):
        assert line in seen, seen
    for view in ("/question", "/regions", "/map", "/history", "/split?class=0"):
        page.goto(served.root + view)
        unnamed = page.evaluate(
            """[...document.querySelectorAll("button, a[href], input:not([type=hidden]), select,"""
            """ [role=option], canvas")].filter(e => e.checkVisibility() && !(e.labels?.length"""
            """ || e.innerText?.trim() || e.getAttribute("aria-label"))).map(e => e.outerHTML)"""
        )
        assert unnamed == [], view
        assert page.get_by_role("heading", level=1).count() == 1, view
        assert page.locator("[aria-live=polite]").count() == 1, view
    page.goto(served.root)
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate(
                "(e => e.getAttribute('aria-label') || e.innerText)(document.activeElement)"
            )
        )
    assert order[:6] == [
        *("Skip to the content", "Classes", "Questions", "Regions", "Map", "History")
    ]
    assert order[6:10] == ["Undo", "Learn", "Export", "Help and keys"]


def test_regions_are_selected_on_the_map(
    browser: Browser, served: Served, errors: list[str]
) -> None:
    page = opened(browser, served, errors)
    page.get_by_role("link", name="Map").click()
    canvas = page.locator("canvas[data-ready='12']")
    expect(canvas).to_be_visible(timeout=120_000)  # libraries load first
    expect(page.get_by_role("button", name="Box")).to_be_visible()
    page.wait_for_load_state()  # its scripts run before that
    page.get_by_role("button", name="Box").click()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 15, box["y"] + 15)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 15, box["y"] + box["height"] - 15, steps=4)
    page.mouse.up()
    expect(page.get_by_text("12 selected")).to_be_visible()
    before = canvas.element_handle()
    page.get_by_role("button", name="Confirm").click()
    says(page, "12 regions confirmed")
    page.wait_for_function("old => !old.isConnected", arg=before)  # the view is made again
    expect(canvas).to_be_visible()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    expect(page.locator("#at")).to_contain_text("decided, selected")
    expect(page.get_by_text("1 selected")).to_be_visible()


def test_hostile_names_do_not_run_in_a_browser(
    browser: Browser, tmp_path: Path, errors: list[str]
) -> None:
    name = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    served = Served(Review(make_run(tmp_path, classes=(name, "b" * 10_000, "c"), image="<b>{}")))
    try:
        served.review.decide(Name("2", f"{name}'\"`"))
        page = opened(browser, served, errors, width=390)
        for view in ("/", "/question", "/regions?class=0", "/map", "/history", "/split?class=0"):
            page.goto(served.root + view)
            page.wait_for_timeout(100)
            assert "run ·" not in page.title() and page.title() != "run"
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, f"{view} is {wide} pixels wide on a phone"
        page.goto(served.root)
        page.get_by_role("button", name="Merge").first.click()
        expect(page.get_by_role("dialog")).to_contain_text("<script>")
    finally:
        served.stop()


def test_a_long_list_holds_few_tiles_and_keeps_its_place(
    browser: Browser, tmp_path: Path, errors: list[str]
) -> None:
    served = Served(Review(make_run(tmp_path, per_class=300)))
    try:
        page = opened(browser, served, errors)
        page.goto(f"{served.root}/regions")
        expect(page.locator(".tile").first).to_be_visible()
        most = 0
        for _ in range(8):
            page.mouse.wheel(0, 1500)
            page.wait_for_timeout(150)
            most = max(most, page.locator(".tile").count())
        assert 20 < most < 160
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.locator("[data-row='899']")).to_be_visible()
        place = page.evaluate("scrollY")
        page.locator("[data-row='899']").click(modifiers=["Control"])
        page.get_by_role("button", name="Not a defect").click()
        says(page, "1 region: not a defect")
        time.sleep(0.5)
        assert abs(page.evaluate("scrollY") - place) < 200
    finally:
        served.stop()
