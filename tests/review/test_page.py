"""The page's addresses: who may use them, and what they answer to hostile names and files."""

from __future__ import annotations

import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from anomalyncd.decisions import naming
from anomalyncd.decisions.actions import Name
from anomalyncd.decisions.naming import LONGEST
from anomalyncd.detectors import map_store
from anomalyncd.review.page import making, views
from anomalyncd.review.page.app import create
from anomalyncd.review.page.pictures import Kept
from anomalyncd.review.page.security import HEADERS, MAX_BODY, MAX_PHOTOGRAPH
from anomalyncd.review.session import Review
from anomalyncd.types import Box
from tests.helpers.reviewed import make_finished_run, make_run

ORIGIN = "http://127.0.0.1:8123"
VIEWS = ["/", "/question", "/regions", "/map", "/history", "/split?class=0&parts=3"]
DIALOGS = ["/region?row=0", "/tiles?from=0&total=12", "/tiles?rows=1,2"]
DIALOGS += [f"/ask?what={what}&class=0" for what in ("name", "merge", "move", "keys", "export")]


def browser(review: Review, *, token: str | None = "secret") -> TestClient:
    page = TestClient(create(review, "secret", 8123), base_url=ORIGIN, follow_redirects=False)
    if token is not None:
        page.get(f"/?token={token}")
    return page


def post(page: TestClient, **form: str):  # httpx's, or what follows it
    form = {"class" if key == "of_class" else key: value for key, value in form.items()}
    return page.post("/decide", data=form, headers={"Origin": ORIGIN})


@pytest.fixture
def review(tmp_path: Path) -> Review:
    return Review(make_run(tmp_path))


@pytest.fixture
def page(review: Review) -> TestClient:
    return browser(review)


# Who may use it ----------------------------------------------------------------------------------


def test_the_token_moves_from_the_address_into_a_cookie(review: Review) -> None:
    page = browser(review, token=None)
    answer = page.get("/regions?class=0&token=secret")
    assert (answer.status_code, answer.headers["location"]) == (303, "/regions?class=0")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert page.get("/regions?class=0").status_code == 200
    assert page.get(f"{ORIGIN}//evil.example/?token=secret").headers["location"] == "/evil.example/"


@pytest.mark.parametrize("token", [None, "wrong", ""])
def test_nothing_is_shown_without_the_token(review: Review, token: str | None) -> None:
    page = browser(review, token=token)
    for path in [*VIEWS, *DIALOGS, "/thumbnail?row=0", "/static/review.js", "/export?as=csv"]:
        answer = page.get(path)
        assert answer.status_code == 403 and "class 0" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {},
        {"Origin": "http://evil.example:8123", "Host": "evil.example:8123"},
    ],
)
def test_a_foreign_site_cannot_post(
    review: Review, page: TestClient, headers: dict[str, str]
) -> None:
    form = {"what": "name", "class": "0", "name": "x"}
    assert page.post("/decide", data=form, headers=headers).status_code in (403, 421)
    assert review.decisions == []


def test_another_name_of_this_machine_sees_nothing(page: TestClient) -> None:
    assert page.get("/", headers={"Host": "evil.example:8123"}).status_code == 421


def test_port_80_is_answered_as_browsers_write_it(review: Review) -> None:
    page = TestClient(create(review, "secret", 80), base_url="http://127.0.0.1")
    assert page.get("/?token=secret").status_code == 200
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_every_answer_carries_the_protecting_headers(review: Review) -> None:
    for page in (browser(review), browser(review, token=None)):
        for path in ("/", "/thumbnail?row=0", "/nothing", "/static/review.css"):
            headers = page.get(path).headers
            assert all(headers[name] == value for name, value in HEADERS.items()), path
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_a_body_that_is_too_large_is_refused(review: Review, page: TestClient) -> None:
    assert post(page, what="confirm", regions="1," * MAX_BODY).status_code == 413
    assert review.decisions == []


# What it decides ---------------------------------------------------------------------------------


def test_each_answer_of_the_page_is_one_kept_decision(review: Review, page: TestClient) -> None:
    answer = post(page, what="name", of_class="0", name=" scratch ")
    said = json.loads(answer.headers["HX-Trigger"])["decided"]
    assert (answer.status_code, said["message"], said["version"]) == (204, "Named scratch", 1)
    post(page, what="move", regions="4,5", name="dent")
    post(page, what="reject", regions="6", reason="not_a_defect")
    post(page, what="deny", regions="8", of_class="2", drawn="yes")
    post(page, what="confirm", regions="0,9")
    post(page, what="move", regions="10", of_class="0")
    kept = [type(one.action).__name__ for one in Review(review.run).decisions]
    assert kept == ["Name", "Move", "Reject", "Deny", "Confirm", "Confirm", "Move"]
    state = review.state
    assert [state.name_of(state.class_of(row)) for row in (0, 4, 5, 6, 8, 10)] == [
        *("scratch", "dent", "dent", "not a defect", "unknown", "scratch")
    ]
    assert state.drawn_wrong == 1
    post(page, what="undo")
    assert review.state.class_of(10) == "2"
    post(page, what="confirm_all", of_class="2")
    assert review.state.decided[review.state.members("2")].all()
    assert post(page, what="confirm_all", of_class="2").status_code == 409  # none is left
    post(page, what="undo")
    post(page, what="undo", decision=review.decisions[0].id)
    assert review.state.name_of("0") == "class 0"


def test_that_a_region_is_unknown_cannot_be_confirmed(review: Review, page: TestClient) -> None:
    post(page, what="deny", regions="8", of_class="2")
    for form in ({}, {"of_class": "-1"}):
        answer = post(page, what="confirm", regions="8", **form)
        assert answer.status_code == 409 and "\n" not in answer.text
    answer = post(page, what="confirm", regions="8,9")
    assert "1 region confirmed" in answer.headers["HX-Trigger"]
    assert np.flatnonzero(review.state.decided).tolist() == [9]


def test_that_a_region_is_a_false_alarm_can_be_confirmed(review: Review, page: TestClient) -> None:
    """A question may ask so about a region like rejected ones."""
    answer = post(page, what="confirm", regions="8", of_class="false_alarm", drawn="yes")
    assert "1 region confirmed as false alarm" in answer.headers["HX-Trigger"]
    assert review.state.class_of(8) == "false_alarm" and review.state.decided[8]


def test_the_name_of_another_class_merges_both(review: Review, page: TestClient) -> None:
    post(page, what="name", of_class="0", name="class 1")
    assert review.state.sizes() == {"1": 8, "2": 4}
    post(page, what="undo")
    assert review.state.sizes() == {"0": 4, "1": 4, "2": 4}


def test_a_split_is_only_made_as_it_was_shown(review: Review, page: TestClient) -> None:
    shown = page.get("/split?class=0&parts=2").text
    of = re.search(r'name="of" value="(\w+)"', shown)[1]
    post(page, what="move", regions="4", of_class="0")
    late = post(page, what="split", of_class="0", parts="2", of=of)
    assert late.status_code == 409 and "has changed" in late.text
    of = re.search(r'name="of" value="(\w+)"', page.get("/split?class=0&parts=2").text)[1]
    assert post(page, what="split", of_class="0", parts="2", of=of).status_code == 204
    assert len(review.state.sizes()) == 4


@pytest.mark.parametrize(
    "form",
    [
        {"what": "fold"},
        {"what": "name", "of_class": "0", "name": "  "},
        {"what": "name", "of_class": "9", "name": "x"},
        {"what": "name", "of_class": "0", "name": "unknown"},
        {"what": "name", "of_class": "0", "name": (LONGEST + 1) * "x"},
        {"what": "merge", "of_class": "0", "into": "0"},
        {"what": "merge", "of_class": "0", "into": "false_alarm"},
        {"what": "confirm", "regions": ""},
        {"what": "confirm", "regions": "99"},
        {"what": "move", "regions": "1;2", "of_class": "0"},
        {"what": "reject", "regions": "1", "reason": "ugly"},
        {"what": "undo", "decision": "none"},
        {"what": "split", "of_class": "0", "parts": "99", "of": ""},
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_in_one_line(
    review: Review, page: TestClient, form: dict[str, str]
) -> None:
    answer = post(page, **form)
    assert answer.status_code == 409 and answer.text and "\n" not in answer.text
    assert review.decisions == []


def test_a_name_that_the_page_takes_is_kept_whole(review: Review, page: TestClient) -> None:
    post(page, what="name", of_class="0", name=LONGEST * "x")
    assert naming.read(review.run, ("class 0", "class 1", "class 2")).names[0] == LONGEST * "x"
    answer = post(page, what="name", of_class="0", name=(LONGEST + 1) * "x")
    assert answer.status_code == 409 and f"expected 1 to {LONGEST}" in answer.text


def test_another_process_is_noticed(review: Review, page: TestClient) -> None:
    assert page.get("/version").text == "0"
    Review(review.run).decide(Name("0", "scratch"))
    assert page.get("/version").text == "1" and "scratch" in page.get("/").text


def test_a_line_that_was_cut_off_is_told_on_every_view(review: Review, page: TestClient) -> None:
    with review.path.open("w") as file:
        file.write('{"version":1,"id"')
    assert all("the last line is cut off" in page.get(view).text for view in VIEWS)


# What it shows -----------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The elements of a page, and the scripts in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../../etc/passwd",
    "\x1b[31m\x00\u202e\x85",
    10_000 * "W",
    "{{ 7 * 7 }}",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_and_never_run(tmp_path: Path, name: str) -> None:
    written = name.replace("\x00", "")  # a table cannot hold it
    run = make_run(tmp_path, classes=(written, "b", "c"), image=f"{{}}{written[:200]}")
    page = browser(Review(run))
    post(page, what="name", of_class="1", name=name)
    post(page, what="move", regions="0", name=f"new {name[:9000]}")
    for path in [*VIEWS, *DIALOGS]:
        answer = page.get(path)
        assert answer.status_code == 200, path
        tags = Tags()
        tags.feed(answer.text)
        for tag, values in tags.found:
            assert tag != "script" or values["src"].startswith("/static/"), path
            assert not [key for key in values if key.startswith("on") or key == "style"], path
            assert not str(values.get("src", "/")).startswith("x"), path
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", answer.text), path
    assert (
        "49" not in re.sub(r"\d{3,}", "", page.get("/ask?what=merge&class=0").text) or "7" in name
    )


def test_only_photographs_of_the_run_are_served(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    table = run / "predictions.csv"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "secret.png").write_text("password")
    text = table.read_text()
    text = text.replace(str(tmp_path / "0.png"), "/etc/passwd")
    text = text.replace(str(tmp_path / "1.png"), str(tmp_path / "secret.png"))
    text = text.replace(str(tmp_path / "2.png"), str(tmp_path / "pipe"))
    table.write_text(text)
    page = browser(Review(run))
    for row in (0, 1, 2):
        for picture in ("thumbnail", "photograph"):
            answer = page.get(f"/{picture}?row={row}")
            assert answer.headers["content-type"] == "image/svg+xml"
            assert "The photograph is gone" in answer.text and "password" not in answer.text
    for picture in ("thumbnail", "photograph"):
        assert page.get(f"/{picture}?row=3").headers["content-type"] == "image/jpeg"
    for row in ("12", "-1", "x", "../../etc/passwd", ""):
        assert page.get("/thumbnail", params={"row": row}).status_code == 404
    assert page.get("/static/../app.py").status_code == 404
    assert page.get("/static/%2e%2e/app.py").status_code == 404


MANY = 5000 * "9"


@pytest.mark.parametrize(
    "address",
    [
        *("/question?skip=99", f"/question?skip={MANY},1", "/question?skip=²,-1"),
        *("/tiles?rows=99", f"/tiles?rows={MANY},1", f"/tiles?from={MANY}", "/tiles?rows=²"),
        *(f"/ask?what=move&row={MANY}", "/ask?what=move&row=99", f"/region?row={MANY}"),
    ],
)
def test_numbers_in_an_address_may_be_anything(page: TestClient, address: str) -> None:
    assert page.get(address).status_code in (200, 404)


def test_a_skipped_region_that_does_not_exist_changes_no_question(page: TestClient) -> None:
    plain = [page.get(address).text for address in ("/question?skip=1", "/question?skip=1,99,x")]
    asked = [re.findall(r'data-region="(\d+)"', text) for text in plain]
    assert asked[0] == asked[1] and asked[0]


def test_filters_and_the_order_of_a_list(review: Review, page: TestClient) -> None:
    post(page, what="confirm", regions="0")

    def rows(query: str) -> list[int]:
        answer = page.get(f"/tiles?from=0&{query}").text
        return [int(row) for row in re.findall(r'data-row="(\d+)"', answer)]

    assert rows("") == [*range(1, 12), 0]  # least sure first, decided ones last
    assert rows("class=0") == [1, 2, 3, 0]
    assert rows("decided=yes") == [0]
    assert rows("below=50") == [1, 2, 3, 4, 0]
    assert rows("image=photo+11") == [11]
    assert rows("class=none") == []
    assert set(rows("like=9")[:4]) == {8, 9, 10, 11} and rows("like=9")[0] == 9
    assert rows("rows=7,3") == [7, 3]
    assert len(rows("from=10")) == 2


def test_a_question_says_which_answers_there_are(page: TestClient) -> None:
    shown = page.get("/question").text
    assert 'data-question="region"' in shown and 'data-drawn="no"' in shown
    assert "What do you call this kind of defect?" in shown  # it has no name yet
    row = re.search(r'data-question="region" data-row="(\d+)"', shown)
    assert row and f'data-row="{row[1]}"' not in page.get(f"/question?skip={row[1]}").text


def test_a_question_about_a_named_class_can_be_answered_with_yes(
    page: TestClient, review: Review
) -> None:
    review.decide(*(Name(str(number), f"kind {number}") for number in range(3)))
    shown = page.get("/question").text
    assert 'data-answer="yes"' in shown and "What do you call" not in shown


def test_the_answer_to_what_is_this_names_the_class(page: TestClient, review: Review) -> None:
    post(page, what="move", regions="0", of_class="0", name="scratch")
    assert review.state.name_of("0") == "scratch" and review.state.decided[0]
    post(page, what="move", regions="4", of_class="1", name="scratch")  # it is known by now
    assert review.state.class_of(4) == "0"
    post(page, what="move", regions="1", of_class="0", name="dent")  # 0 keeps the name it has
    assert review.state.name_of("0") == "scratch"
    assert review.state.name_of(review.state.class_of(1)) == "dent"


def test_the_heat_map_is_shown_where_the_cache_has_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, image="scratch/{}")
    detector = "detector: {kind: files, path: maps}\n"
    general = "dataset: {kind: demo}\nbase: {kind: none}\nbackbone: {name: embedded}\n"
    general += "seed: 1\ncategory: demo\n"
    (run / "config.yaml").write_text(f"{detector}{general}cache_root: {tmp_path}\n")
    figures = {"dataset": "demo", "category": "demo", "mebin": {"search_range": [0, 255]}}
    figures |= {"scores": {}, "detection": {}, "normal_recall": {}}
    (run / "metrics.json").write_text(json.dumps(figures))
    maps = tmp_path / "maps-1"
    (maps / "demo" / "scratch").mkdir(parents=True)
    note = {"settings": {"kind": "files", "path": "maps"}}
    note["files"] = [f"demo/scratch/{number}.png" for number in range(12)]
    (maps / "maps.json").write_text(json.dumps(note))
    other_set = tmp_path / "maps-0"  # of the same detector, before photographs were added
    (other_set / "demo").mkdir(parents=True)
    (other_set / "maps.json").write_text(json.dumps(note | {"files": note["files"][:5]}))
    other = browser(Review(make_run(tmp_path / "without maps")))
    assert "Heat map" not in other.get("/region?row=0").text
    heat = np.zeros((32, 32), np.uint8)
    heat[10:20, 10:20] = 255
    Image.fromarray(heat).save(maps / "demo" / "scratch" / "0.png")
    page = browser(Review(run))
    assert "Heat map" in page.get("/region?row=0").text
    plain, hot = (page.get(f"/photograph?row=0{more}").content for more in ("", "&heat=1"))
    assert plain != hot and plain.startswith(b"\xff\xd8")
    assert page.get("/photograph?row=1&heat=1").status_code == 200  # it has no map


def test_the_map_has_a_place_for_each_region(page: TestClient) -> None:
    for _ in range(600):
        answer = page.get("/map/points")
        if answer.status_code == 200:
            break
    assert len(answer.content) == 12 * 10
    places = np.frombuffer(answer.content[: 12 * 8], np.float32)
    assert places.min() == 0 and places.max() == 1


def test_exports_of_the_page_are_files(page: TestClient) -> None:
    for kind in ("csv", "coco"):
        answer = page.get(f"/export?as={kind}")
        assert "attachment" in answer.headers["content-disposition"]
        assert "class 2" in answer.text


def test_kept_pictures_stay_within_their_bound() -> None:
    kept: Kept[bytes] = Kept(100, len)
    for number in range(50):
        kept.put(number, bytes(30))
        kept.get(0)
        assert kept.bytes <= 100
    assert kept.get(0) is not None and kept.get(49) is not None and kept.get(20) is None
    kept.put("large", bytes(1000))
    assert kept.get("large") is None and kept.bytes == 0


def test_nothing_is_loaded_from_elsewhere() -> None:
    folder = Path(create.__code__.co_filename).parent
    for path in [*folder.glob("templates/*"), *folder.glob("static/review.*")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|<style|style=|\bon\w+=[\"']", text), path
    assert "PERFORMANCE OF THIS SOFTWARE" in (folder / "static" / "htmx.LICENSE").read_text()


# A photograph that is dropped onto the page -----------------------------------------------------


def dropped(page: TestClient, content: bytes):
    return page.post("/similar", content=content, headers={"Origin": ORIGIN})


def test_regions_like_those_of_a_dropped_photograph_are_shown(
    review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def regions_of(run: Path, photo: Path) -> tuple[list[Box], np.ndarray]:
        assert photo.read_bytes() == b"content" and run == review.run
        seen.append(photo)
        return [Box(1, 2, 30, 40)], 5 * review.regions.tokens[[9]]

    monkeypatch.setattr(making.runs, "regions_of", regions_of)
    shown = dropped(browser(review), b"content").text
    rows = [int(row) for row in re.findall(r'data-region="(\d+)"', shown)]
    assert rows[0] == 9 and set(rows[:4]) == {8, 9, 10, 11}
    assert "class 2" in shown and "1, 2 – 30, 40" in shown
    assert not seen[0].exists()


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + 40 * b"0"])
def test_a_dropped_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    run = make_finished_run(tmp_path)
    (run / map_store.LEARNED).write_bytes(b"not read")  # so that it does not ask for maps
    answer = dropped(browser(Review(run)), content)
    assert answer.status_code == 409 and "this photograph" in answer.text
    assert str(tmp_path) not in answer.text.replace(str(run), "")


def test_a_dropped_photograph_may_be_large_but_not_without_bound(page: TestClient) -> None:
    headers = {"Origin": ORIGIN, "Content-Length": str(MAX_PHOTOGRAPH + 1)}
    assert page.post("/similar", content=b"", headers=headers).status_code == 413
    assert MAX_PHOTOGRAPH > MAX_BODY


# Learning ---------------------------------------------------------------------------------------


def test_learning_shows_what_was_learned_or_why_not(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "anomalyncd learn" in page.get("/ask?what=learn").text
    commands: list[list[str]] = []

    def ended(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        if len(commands) == 1:
            return subprocess.CompletedProcess(command, 0, "Learned.\nRun: <b>\n", "")
        return subprocess.CompletedProcess(command, 1, "", "warning\nerror: nothing to learn\n")

    monkeypatch.setattr(making.subprocess, "run", ended)
    headers = {"Origin": ORIGIN, "Content-Length": "0"}
    shown = page.post("/learn", headers=headers)
    assert shown.status_code == 200 and "Learned." in shown.text and "<b>" not in shown.text
    assert commands[0][1:4] == ["-m", "anomalyncd", "learn"]
    refused = page.post("/learn", headers=headers)
    assert (refused.status_code, refused.text) == (409, "nothing to learn")
    assert page.post("/learn", headers={"Content-Length": "0"}).status_code == 403  # another site


def test_a_choice_shows_the_surest_region_of_a_class_and_a_strip_the_least_sure(
    tmp_path: Path,
) -> None:
    review = Review(make_run(tmp_path))  # the confidence rises with the row
    for typical, row in ((True, 7), (False, 4)):
        (tile,) = views.group(review, review.state, "1", 1, typical=typical).tiles
        assert tile.row == row


@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5000, b"-1", b""])
def test_a_length_that_is_no_small_number_is_refused(page: TestClient, length: bytes) -> None:
    headers = {b"Origin": ORIGIN.encode(), b"Content-Length": length}
    assert page.post("/decide", headers=headers).status_code == 413
