"""What the service answers, to whom, and within which bounds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from anomalyncd.cli.main import main
from anomalyncd.errors import InputError
from anomalyncd.review.page.security import HEADERS
from anomalyncd.runtime_onnx import load
from anomalyncd.serving import server
from anomalyncd.serving.app import Bounds, Service
from anomalyncd.serving.line import Full, Line
from anomalyncd.serving.metrics import Counter, Histogram, Metrics
from anomalyncd.serving.models import Model
from anomalyncd.serving.uploads import Fetch
from tests.helpers import drawn_file
from tests.helpers.drawn_file import RED, WHITE, photograph
from tests.helpers.served import KEY, ORIGIN, Scripted, client, encoded, file_model, service

PHOTOGRAPH = encoded(photograph(RED))
BYTES = {"content": PHOTOGRAPH, "headers": {"Content-Type": "image/png"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return file_model(tmp_path_factory.mktemp("file"))


@pytest.fixture
def served(model: Model) -> Iterator[Service]:
    made = service({"tiles": model})
    yield made
    made.close()


@pytest.fixture
def web(served: Service) -> TestClient:
    return client(served)


# Answers -----------------------------------------------------------------------------------------


def test_a_photograph_gets_the_answer_of_the_file(web: TestClient, tmp_path: Path) -> None:
    pixels = photograph(RED)
    (expected,) = load(drawn_file.write(tmp_path / "tiles.onnx"), threads=1).predict([pixels])
    answer = web.post("/predict", **BYTES).json()
    (found,) = answer["photographs"]
    assert answer["model"] == "tiles"
    assert (found["class_name"], found["width"], found["height"]) == ("red", 96, 96)
    assert found["confidence"] == pytest.approx(expected.confidence)
    (region,) = found["regions"]
    assert region["box"] == list(expected.regions[0].box)
    (outline,) = region["outlines"]
    x, y = np.array(outline).T
    assert abs(x.min() - 32) <= 2 and abs(x.max() - 47) <= 2  # the spot that was drawn
    assert abs(y.min() - 32) <= 2 and abs(y.max() - 47) <= 2


def test_outlines_stay_inside_a_photograph_whose_defect_touches_its_corner(web: TestClient) -> None:
    pixels = photograph()
    pixels[:20, 80:] = WHITE
    answer = web.post("/predict", files={"file": ("corner.png", encoded(pixels))}).json()
    (region,) = answer["photographs"][0]["regions"]
    x, y = np.array(region["outlines"][0]).T
    assert (x.min() >= 76 and x.max() == 95) and (y.min() == 0 and y.max() <= 22)


def test_many_files_are_answered_in_order_and_a_bad_one_has_its_reason(web: TestClient) -> None:
    files = [
        ("file", ("a.png", PHOTOGRAPH)),
        ("file", ("../../cut\u202e.png", PHOTOGRAPH[:100])),
        ("other", ("c.jpg", encoded(photograph(), "JPEG"))),
        ("file", ("d.txt", b"no photograph")),
    ]
    answer = web.post("/predict", files=files)
    assert answer.status_code == 200
    found = answer.json()["photographs"]
    assert [one.get("class_name") for one in found] == ["red", None, "good", None]
    assert found[1]["file"] == "cut.png"
    assert "cannot read this image" in found[1]["error"]
    assert "cannot read this image (no PNG" in found[3]["error"]


def test_a_model_is_chosen_by_its_name(model: Model) -> None:
    made = service({"tiles": model, "other": Scripted()})
    web = client(made)
    assert web.post("/predict?model=other", **BYTES).json()["model"] == "other"
    assert web.post("/predict", **BYTES).json()["model"] == "tiles"
    refused = web.post("/predict?model=none", **BYTES)
    assert refused.status_code == 404 and "tiles, other" in refused.json()["detail"]
    assert set(web.get("/card").json()["models"]) == {"tiles", "other"}
    made.close()


def test_pages_and_the_description_come_from_here_alone(web: TestClient) -> None:
    for path in ("/", "/docs", "/static/index.js", "/static/docs.js", "/static/service.css"):
        answer = web.get(path)
        assert answer.status_code == 200, path
        assert "//" not in answer.text.replace("// ", "").replace("http://www.w3", ""), path
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
    described = web.get("/openapi.json").json()["paths"]
    assert set(described) == {"/predict", "/card", "/known", "/healthz", "/readyz", "/metrics"}
    assert "429" in described["/predict"]["post"]["responses"]


# Metrics -----------------------------------------------------------------------------------------


def test_requests_are_counted(web: TestClient) -> None:
    web.post("/predict", **BYTES)
    web.get("/nothing/here")
    text = web.get("/metrics").text
    assert 'anomalyncd_requests_total{path="/predict",status="200"} 1\n' in text
    assert 'anomalyncd_requests_total{path="other",status="404"} 1\n' in text
    assert 'anomalyncd_photographs_total{model="tiles",class="red"} 1\n' in text
    assert "anomalyncd_predict_seconds_count 1\n" in text


def test_the_text_format_is_exact() -> None:
    histogram = Histogram("h", "x", (0.1, 1))
    for value in (0.1, 0.5, 0.65, 7):
        histogram.observe(value)
    assert list(histogram.lines()) == [
        'h_bucket{le="0.1"} 1',
        'h_bucket{le="1"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 8.25",
        "h_count 4",
    ]
    counter = Counter("c", "x", ("name",))
    for _ in range(1_234_567):
        counter.add('a"b\\c\nd')
    assert list(counter.lines()) == [r'c{name="a\"b\\c\nd"} 1234567']


# Who may ask -------------------------------------------------------------------------------------


def test_a_key_is_required_where_there_is_one(model: Model) -> None:
    made = service({"tiles": model}, key=KEY)
    web = client(made)
    for path in ("/card", "/metrics", "/known?region=0", "/other"):
        assert web.get(path).status_code == 401
    for given in ("", "Bearer", "Bearer wrong", f"Bearer {KEY}x", f"bearer{KEY}", "Bearer é"):
        headers = {"Authorization": given.encode("latin-1"), "Content-Type": "image/png"}
        assert web.post("/predict", content=PHOTOGRAPH, headers=headers).status_code == 401
    for path in ("/healthz", "/readyz", "/", "/docs", "/static/index.js"):
        assert web.get(path).status_code == 200
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "image/png"}
    assert web.post("/predict", content=PHOTOGRAPH, headers=headers).status_code == 200
    headers["Host"], headers["Origin"] = "service.example", "https://elsewhere.example"
    assert web.post("/predict", content=PHOTOGRAPH, headers=headers).status_code == 200
    made.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:8123"}, 421),
        ({"Host": "127.0.0.1:9999"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ORIGIN}, 200),
    ],
)
def test_without_a_key_other_sites_are_refused(
    web: TestClient, headers: dict[str, str], status: int
) -> None:
    headers = {"Content-Type": "image/png", **headers}
    assert web.post("/predict", content=PHOTOGRAPH, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("host", "port", "sent", "status"),
    [
        ("127.8.0.1", 8123, "127.8.0.1:8123", 200),
        ("127.8.0.1", 8123, "127.8.0.1", 421),
        ("127.0.0.1", 80, "127.0.0.1", 200),  # as browsers write port 80
        ("127.0.0.1", 80, "127.0.0.1:80", 200),
        ("127.0.0.1", 80, "evil.example", 421),
        ("::1", 80, "[::1]", 200),
    ],
)
def test_the_printed_address_is_answered(
    model: Model, host: str, port: int, sent: str, status: int
) -> None:
    made = Service({"tiles": model}, Bounds(), host=host, port=port)
    assert client(made).get("/card", headers={"Host": sent}).status_code == status
    made.close()


def test_other_machines_are_let_in_with_a_key_only() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.0.1"):
        server.require_safe(host, None)
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org", ""):
        with pytest.raises(InputError, match="ANOMALYNCD_API_KEY"):
            server.require_safe(host, None)
        server.require_safe(host, KEY)
    for key in ("short", "ä" * 20, "line\nbreak" * 3):
        with pytest.raises(InputError, match="at least 16"):
            server.require_safe("127.0.0.1", key)


def test_the_command_reports_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANOMALYNCD_API_KEY", raising=False)
    file = str(drawn_file.write(tmp_path / "tiles.onnx"))
    bare = str(drawn_file.write(tmp_path / "bare.onnx", detector=None))
    for arguments, message in (
        ([file, "--host", "0.0.0.0"], "ANOMALYNCD_API_KEY"),
        ([file, file], "a second model called tiles"),
        ([f"a b={file}"], "expected 1 to 60 letters"),
        ([bare], "holds no detector"),
        ([str(tmp_path / "none.onnx")], "no such file"),
        ([file, "--port", "70000"], "cannot be used"),
        ([file, "--queue", "0"], "--queue: expected"),
        ([file, "--allow-url", "http://host"], "a path ending in /"),
        ([file, "--allow-url", "http://host:x/"], "--allow-url http://host:x/: Port"),
    ):
        assert main(["serve", *arguments]) == 1
        shown = capsys.readouterr().err
        assert shown.startswith("error: ") and shown.count("\n") == 1 and message in shown


# The line ----------------------------------------------------------------------------------------


def picture() -> Image.Image:
    return Image.new("RGB", (8, 8))


def test_photographs_that_wait_are_classified_together() -> None:
    free, model = threading.Event(), Scripted()
    blocking = Scripted(lambda _: (free.wait(10), {})[1])
    line = Line(Metrics(), together=4)
    first = line.put(blocking, [picture()])
    while not blocking.groups:
        time.sleep(0.001)
    others = [future for _ in range(9) for future in line.put(model, [picture()])]
    free.set()
    assert [future.result(10) for future in first + others][1]["class_name"] == "good"
    assert model.groups == [4, 4, 1]
    line.close()


def test_a_full_line_refuses_all_of_a_request_and_a_closed_one_answers_what_waits() -> None:
    free = threading.Event()
    model = Scripted(lambda _: (free.wait(10), {"class_name": "good"})[1])
    line = Line(Metrics(), longest=3, together=1)
    accepted = line.put(model, [picture()])
    while not model.groups:
        time.sleep(0.001)
    accepted += line.put(model, [picture(), picture()])
    with pytest.raises(Full):
        line.put(model, [picture(), picture()])
    accepted += line.put(model, [picture()])
    cancelled = accepted.pop()
    assert cancelled.cancel()
    threading.Timer(0.05, free.set).start()
    line.close()
    assert [future.result(0)["class_name"] for future in accepted] == ["good"] * 3
    assert sum(model.groups) == 3, "what nobody waits for is not classified"
    with pytest.raises(Full):
        line.put(model, [picture()])


def test_a_bad_photograph_does_not_spoil_the_others(tmp_path: Path) -> None:
    def answer(photograph: Image.Image) -> dict:
        if photograph.width == 1:
            raise RuntimeError("a fault of a library")
        if photograph.width == 2:
            raise InputError("bad")
        return {"class_name": "good"}

    line = Line(Metrics(), seconds=0.2)
    sizes = (8, 1, 2, 8)
    found = line.put(Scripted(answer), [Image.new("RGB", (size, 8)) for size in sizes])
    assert [type(future.exception(10)).__name__ for future in found] == [
        *("NoneType", "Failed", "InputError", "NoneType"),
    ]
    assert line.is_alive
    line.close()


def test_more_photographs_than_can_ever_wait_are_refused_for_good() -> None:
    made = service({"one": Scripted()}, waiting=2)
    web = client(made)
    files = [("file", (f"{i}.png", PHOTOGRAPH)) for i in range(3)]
    refused = web.post("/predict", files=files)
    assert refused.status_code == 413 and "retry-after" not in refused.headers
    assert refused.json()["detail"] == "3 photographs; expected at most 2: send them in parts"
    assert web.post("/predict", files=files[:2]).status_code == 200
    made.close()


def test_a_full_service_says_when_to_come_again() -> None:
    free = threading.Event()
    model = Scripted(lambda _: (free.wait(10), {"class_name": "good", "regions": []})[1])
    made = service({"slow": model}, waiting=1, together=1, seconds=20)
    web = client(made)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(web.post("/predict", **BYTES).status_code))
        for _ in range(2)
    ]
    threads[0].start()
    while not model.groups:
        time.sleep(0.001)
    threads[1].start()
    while "waiting 1\n" not in web.get("/metrics").text:
        time.sleep(0.001)
    refused = web.post("/predict", **BYTES)
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
    assert web.get("/healthz").status_code == 200
    free.set()
    for thread in threads:
        thread.join(10)
    assert answers == [200, 200]
    made.close()


def test_a_request_ends_in_time_and_what_it_asked_for_is_dropped() -> None:
    free = threading.Event()
    model = Scripted(lambda _: (free.wait(10), {"class_name": "good", "regions": []})[1])
    made = service({"slow": model}, seconds=0.2, together=1)
    web = client(made)
    assert web.post("/predict", **BYTES).status_code == 408  # it is being classified
    assert web.post("/predict", **BYTES).status_code == 408  # it waits
    free.set()
    made.close()
    assert model.groups == [1]


def test_a_service_that_ends_says_so_and_closes_connections(
    served: Service, web: TestClient
) -> None:
    assert web.get("/readyz").status_code == 200
    served.end()
    assert web.get("/readyz").status_code == 503
    answer = web.post("/predict", **BYTES)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_a_dead_model_is_not_healthy() -> None:
    made = service({"one": Scripted()})
    made.line.close()
    assert client(made).get("/healthz").status_code == 503


# Addresses ---------------------------------------------------------------------------------------


class Camera(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        moved = self.path.endswith("moved")
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", "/pictures/1.png")
        self.end_headers()
        self.wfile.write(PHOTOGRAPH if self.path.endswith("1.png") else b"x" * 3_000_000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def camera() -> Iterator[str]:
    made = HTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_an_address_is_fetched_below_the_prefix_only(model: Model, camera: str) -> None:
    made = service({"tiles": model}, allow_url=f"{camera}/pictures/", megabytes=1)
    web = client(made)
    answer = web.post("/predict", json={"url": f"{camera}/pictures/1.png"})
    assert answer.json()["photographs"][0]["class_name"] == "red"
    Camera.asked.clear()
    host = camera.removeprefix("http://")
    for address in (
        f"{camera}/secret/1.png",
        f"{camera}/pictures/../secret/1.png",
        f"{camera}/pictures/%2e%2e/1.png",
        f"{camera}/pictures/%252e%252e/1.png",
        f"{camera}/pictures/..\\1.png",
        f"http://user@{host}/pictures/1.png",
        f"http://{host}.example/pictures/1.png",
        f"https://{host}/pictures/1.png",
        f"http://{host}@example.org/pictures/1.png",
        "file:///pictures/1.png",
        "http://[",
        f"{camera}/pictures/1.png\r\nHost: x",
        "",
    ):
        refused = web.post("/predict", json={"url": address})
        assert refused.status_code == 422 and "not below" in refused.json()["detail"], address
    assert Camera.asked == []
    for name, reason in (("moved", "answers 302"), ("large", "more than 1,000,000 bytes")):
        refused = web.post("/predict", json={"url": f"{camera}/pictures/{name}"})
        assert refused.status_code == 422 and reason in refused.json()["detail"]
    made.close()


@pytest.mark.parametrize(
    ("scheme", "start"),
    [
        ("http", b""),
        ("http", b"HTTP/1.1 200 OK\r\nX-Slow: "),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("https", b"\x16\x03\x03\x40\x00"),  # a long message of TLS
    ],
)
def test_a_slow_address_ends_in_time(scheme: str, start: bytes) -> None:
    """A byte now and then keeps each read short, but not the whole."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listening.accept()[0] as connection, suppress(OSError):  # it does not wait for all
            connection.sendall(start)
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(0.02)

    thread = threading.Thread(target=answer)
    thread.start()
    address = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/"
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"longer than 0\.1 s"):
        Fetch(address, 1000, 0.1)(f"{address}x")
    assert time.monotonic() - begun < 0.8
    thread.join()
    listening.close()


def test_no_address_is_fetched_unless_it_was_allowed(web: TestClient, camera: str) -> None:
    Camera.asked.clear()
    answer = web.post("/predict", json={"url": f"{camera}/pictures/1.png"})
    assert answer.status_code == 403 and "--allow-url" in answer.json()["detail"]
    assert Camera.asked == []
