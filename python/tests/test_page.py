"""The page, in a real Chromium: every way in, every answer, and nothing that leaves its origin."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import devtools, open_browser, wait_for
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dogbreed import page as page_module
from dogbreed.data.cartoon import BREEDS, draw_jpeg
from dogbreed.page import page
from dogbreed.server_process import running
from dogbreed.train import Trained

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
AXE_RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
PRESSED = Keys.COMMAND if sys.platform == "darwin" else Keys.CONTROL


def data_uri(picture: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode()


def an_answer(*, rejected: bool = False, breeds: list[str] | None = None, **details: Any) -> dict[str, Any]:
    """What the server answers with details."""
    breeds = breeds or [breed.name.replace("_", " ") for breed in BREEDS[:5]]
    shares = [0.874, 0.07, 0.03, 0.012, 0.0004] if not rejected else [0.31, 0.22, 0.14, 0.08, 0.05]
    return {
        "predictions": [
            {"breed": breed, "class_index": index, "probability": share}
            for index, (breed, share) in enumerate(zip(breeds, shares, strict=False))
        ],
        "rejected": rejected,
        "rejection_score": 0.7 if rejected else 0.2,
        "model": "efficientnet_lite0@0123456789ab",
        "details": {
            "picture": data_uri(draw_jpeg(0, 1, size_px=224)),
            "similar": {
                "breed": breeds[0],
                "class_index": 0,
                "similarity": 0.87,
                "picture": data_uri(draw_jpeg(0, 2, size_px=96)),
            },
            "ms": {"decode": 2.4, "queue": 1.1, "network": 6.0},
        }
        | details,
    }


@dataclass
class Reply:
    """One scripted answer, held back until `release` is set; with status 0 the connection just ends."""

    status: int = 200
    body: Any = field(default_factory=an_answer)
    headers: dict[str, str] = field(default_factory=dict)
    release: threading.Event | None = None


class Server:
    """Serves the page, and answers `/invocations` with what the test has put into `replies`, in turn.

    `asked` holds the JSON of each request, `times` when each came in seconds; `html` and `headers` are what `/` gives,
    `picture` what `/dog.jpg` gives.
    """

    def __init__(self) -> None:
        self.html, self.headers = page()
        self.picture = b""
        self.replies: list[Reply] = []
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/":
                    self._send(200, server.headers, server.html)
                elif self.path == "/dog.jpg" and server.picture:
                    self._send(200, {"Content-Type": "image/jpeg"}, server.picture)
                else:
                    self._send(404, {}, b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert (self.path, self.headers["Content-Type"]) == ("/invocations", "application/json")
                server.times.append(time.monotonic())
                server.asked.append(json.loads(body))
                reply = server.replies.pop(0) if server.replies else Reply()
                if reply.release:
                    reply.release.wait(30)
                if reply.status == 0:
                    return
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self._send(reply.status, {"Content-Type": "application/json", **reply.headers}, body)

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                try:
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": str(len(body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the page has lost interest

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/"
        threading.Thread(target=self._http.serve_forever, args=[0.02], daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture(scope="module")
def one_browser() -> Iterator[Chrome]:
    with open_browser() as chrome:
        yield chrome


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def chrome(one_browser: Chrome, server: Server) -> Iterator[Chrome]:
    """The page, just opened. Afterwards: it raised nothing, broke no rule of its own, and asked nobody else."""
    for log in ("browser", "performance"):
        one_browser.get_log(log)
    emulate(one_browser)
    one_browser.get(server.url)
    yield one_browser
    entries = [entry for entry in one_browser.get_log("browser") if entry["source"] != "network"]
    assert entries == []
    assert {url for url in requested(one_browser) if not url.startswith((server.url, "data:", "blob:"))} == set()
    devtools(one_browser, "Network.emulateNetworkConditions", **{**ONLINE, "offline": False})


ONLINE = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}


def emulate(chrome: Chrome, *, width: int = 1200, height: int = 800, scale: float = 1, dark: bool = False) -> None:
    """A window of that size in CSS pixels, without animations."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
    devtools(chrome, "Emulation.setDeviceMetricsOverride", **size)
    features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
    media = [{"name": name, "value": value} for name, value in features.items()]
    devtools(chrome, "Emulation.setEmulatedMedia", features=media)


def requested(chrome: Chrome) -> list[str]:
    """The addresses that the browser has asked for since this was asked last."""
    events = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def dog(tmp_path: Path) -> Path:
    """A small JPEG, which is sent as it is."""
    path = tmp_path / "dog.jpg"
    path.write_bytes(draw_jpeg(0, 0))
    return path


def choose(chrome: Chrome, path: Path) -> None:
    chrome.find_element(By.ID, "file").send_keys(str(path))


def wait_until(chrome: Chrome, state: str, timeout_s: float = 15) -> None:
    wait_for(chrome, "document.body.dataset.state === arguments[0]", state, timeout_s=timeout_s)


def text_of(chrome: Chrome, selector: str) -> str:
    """What is visible of the element; nothing if it is hidden."""
    return str(chrome.find_element(By.CSS_SELECTOR, selector).text)


def status_of(chrome: Chrome) -> str:
    """What the polite live region says, seen or not."""
    return str(chrome.execute_script("return document.getElementById('status').textContent"))


def sent_picture(request: dict[str, Any]) -> tuple[bytes, Image.Image]:
    data = base64.b64decode(request["image"])
    return data, Image.open(io.BytesIO(data))


# ------------------------------------------------------------------------------------------------ the ways in


def test_choosing_a_file_shows_the_breeds_with_bars_and_percents(chrome: Chrome, server: Server, dog: Path) -> None:
    choose(chrome, dog)
    wait_until(chrome, "answer")
    rows = chrome.find_elements(By.CSS_SELECTOR, "#breeds > li")
    assert [row.text.split("\n") for row in rows] == [
        ["Sausage hound", "87.4 %"],
        ["Cloud spitz", "7.0 %"],
        ["Polka pointer", "3.0 %"],
        ["Velvet basset", "1.2 %"],
        ["Arrow shepherd", "< 0.1 %"],
    ]
    widths = chrome.execute_script(
        "return [...document.querySelectorAll('.bar')].map(b => b.firstChild.offsetWidth / b.offsetWidth)"
    )
    assert widths[:4] == pytest.approx([0.874, 0.07, 0.03, 0.012], abs=0.005)
    assert text_of(chrome, "#verdict") == "Most likely"
    assert text_of(chrome, "#like") == ""
    caption = text_of(chrome, "figcaption").split("\n")
    assert caption == ["Most similar training picture", "Sausage hound", "similarity 0.87 of 1"]
    facts = text_of(chrome, "#facts")
    assert re.fullmatch(
        r"Answered in \d+ ms \(decode 2, queue 1, neural network 6, transfer \d+\) "
        r"by efficientnet_lite0@0123456789ab\.",
        facts,
    ), facts
    assert server.asked == [{"image": base64.b64encode(dog.read_bytes()).decode(), "top_k": 5, "details": True}]


def test_the_same_file_can_be_chosen_again(chrome: Chrome, server: Server, dog: Path) -> None:
    for times in (1, 2):
        choose(chrome, dog)
        wait_until(chrome, "answer")
        assert len(server.asked) == times


def drag(
    chrome: Chrome, kind: str, *, files: list[Path] | None = None, items: list[dict[str, str]] | None = None
) -> None:
    """A drag event as the operating system would cause it, far from everything on the page."""
    data = {"items": items or [], "files": [str(path) for path in files or []], "dragOperationsMask": 1}
    devtools(chrome, "Input.dispatchDragEvent", type=kind, x=5, y=795, data=data)


def test_a_file_may_be_dropped_anywhere(chrome: Chrome, server: Server, dog: Path) -> None:
    def highlighted() -> bool:
        return bool(chrome.execute_script("return document.body.matches('.dragging')"))

    for kind in ("dragEnter", "dragOver"):
        drag(chrome, kind, files=[dog])
    assert highlighted()
    drag(chrome, "dragCancel", files=[dog])
    wait_for(chrome, "!document.body.matches('.dragging')")
    for kind in ("dragEnter", "dragOver", "drop"):
        drag(chrome, kind, files=[dog])
    wait_until(chrome, "answer")
    assert not highlighted()
    assert chrome.current_url == server.url  # the browser itself would have opened the file
    assert sent_picture(server.asked[0])[0] == dog.read_bytes()


def test_a_picture_dragged_from_another_page_is_taken_by_its_address(chrome: Chrome, server: Server) -> None:
    items = [{"mimeType": "text/uri-list", "data": "https://example.org/dog.jpg"}]
    for kind in ("dragEnter", "dragOver", "drop"):
        drag(chrome, kind, items=items)
    wait_until(chrome, "answer")
    assert server.asked == [{"url": "https://example.org/dog.jpg", "top_k": 5, "details": True}]


def test_dropping_what_is_no_picture_says_so(chrome: Chrome, server: Server) -> None:
    for kind in ("dragEnter", "dragOver", "drop"):
        drag(chrome, kind, items=[{"mimeType": "text/plain", "data": "woof"}])
    wait_until(chrome, "error")
    assert text_of(chrome, "#problem") == "There was no picture in what you dropped."
    assert server.asked == []


def press_paste(chrome: Chrome) -> None:
    ActionChains(chrome).key_down(PRESSED).send_keys("v").key_up(PRESSED).perform()


def test_a_picture_is_pasted_with_the_keyboard(chrome: Chrome, server: Server) -> None:
    origin = server.url.rstrip("/")
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    devtools(chrome, "Browser.grantPermissions", origin=origin, permissions=permissions)
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "#aa5500").save(picture, "PNG")
    copied = chrome.execute_async_script(
        "const [text, done] = arguments;"
        "const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));"
        "const item = new ClipboardItem({'image/png': new Blob([bytes], {type: 'image/png'})});"
        "navigator.clipboard.write([item]).then(() => done(''), error => done(String(error)))",
        base64.b64encode(picture.getvalue()).decode(),
    )
    assert copied == ""
    press_paste(chrome)
    wait_until(chrome, "answer")
    sent = sent_picture(server.asked[0])[1].convert("RGB")
    assert (sent.size, sent.getpixel((20, 15))) == ((40, 30), (0xAA, 0x55, 0))


def test_an_address_is_pasted_anywhere_on_the_page(chrome: Chrome, server: Server) -> None:
    field = chrome.find_element(By.ID, "address")
    field.send_keys("https://example.org/a dog.jpg".replace(" ", "%20"))
    field.send_keys(PRESSED + "a")
    field.send_keys(PRESSED + "x")
    press_paste(chrome)  # into the field: only text, to be looked at and sent with Enter
    assert field.get_property("value") == "https://example.org/a%20dog.jpg"
    assert server.asked == []
    field.clear()
    chrome.execute_script("document.activeElement.blur()")
    press_paste(chrome)
    wait_until(chrome, "answer")
    assert server.asked[0]["url"] == "https://example.org/a%20dog.jpg"


@pytest.mark.parametrize("typed", ["https://example.org/dog.jpg", "  example.org/dog.jpg "])
def test_a_typed_address_and_enter_show_the_crop_that_the_server_sends_back(
    chrome: Chrome, server: Server, typed: str
) -> None:
    chrome.find_element(By.ID, "address").send_keys(typed, Keys.ENTER)
    wait_until(chrome, "answer")
    assert server.asked == [{"url": "https://example.org/dog.jpg", "top_k": 5, "details": True}]
    picture = chrome.find_element(By.ID, "picture")
    assert picture.is_displayed()
    assert picture.get_property("src") == an_answer()["details"]["picture"]
    assert picture.get_property("naturalWidth") == 224


@pytest.mark.parametrize("typed", ["", "ftp://example.org/dog.jpg", "javascript:alert(1)", "file:///etc/passwd"])
def test_what_is_no_address_is_refused_beside_the_field(chrome: Chrome, server: Server, typed: str) -> None:
    chrome.find_element(By.ID, "address").send_keys(typed, Keys.ENTER)
    wait_until(chrome, "error")
    assert "https://example.org/dog.jpg" in text_of(chrome, "#problem")
    field = chrome.switch_to.active_element
    described = [field.get_attribute(name) for name in ("id", "aria-invalid", "aria-describedby")]
    assert described == ["address", "true", "problem"]
    assert server.asked == []


# ------------------------------------------------------------------------------------------------ what is sent


def test_a_large_photograph_is_sent_small_and_upright(chrome: Chrome, server: Server, tmp_path: Path) -> None:
    """Stored lying on its side, as cameras do: its left edge (red) is the top of what the photographer saw."""
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    noise[:, :1000] = (255, 0, 0)
    photograph, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter
    photograph.save(tmp_path / "photo.jpg", quality=92, exif=exif)
    assert (tmp_path / "photo.jpg").stat().st_size > 4_500_000
    choose(chrome, tmp_path / "photo.jpg")
    wait_until(chrome, "answer")
    data, sent = sent_picture(server.asked[0])
    assert (sent.format, sent.size) == ("JPEG", (768, 1024))
    assert len(data) < 1_000_000
    assert sent.getexif().get(0x0112, 1) == 1
    red, green, blue = np.asarray(sent.convert("RGB"), dtype=float)[:240].mean((0, 1))
    assert (red > 245, green < 10, blue < 10) == (True, True, True)


def test_what_was_transparent_becomes_white_in_a_shrunken_picture(
    chrome: Chrome, server: Server, tmp_path: Path
) -> None:
    Image.new("RGBA", (2000, 50)).save(tmp_path / "clear.png")
    choose(chrome, tmp_path / "clear.png")
    wait_until(chrome, "answer")
    sent = sent_picture(server.asked[0])[1]
    assert (sent.size, sent.getpixel((500, 12))) == ((1024, 26), (255, 255, 255))


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
def test_other_kinds_that_the_browser_knows_are_sent_as_jpeg(
    chrome: Chrome, server: Server, tmp_path: Path, kind: str
) -> None:
    Image.new("RGB", (60, 40), "blue").save(tmp_path / "picture", kind)
    choose(chrome, tmp_path / "picture")
    wait_until(chrome, "answer")
    sent = sent_picture(server.asked[0])[1]
    assert (sent.format, sent.size) == ("JPEG", (60, 40))


def test_a_tiff_is_left_to_the_server_whose_crop_is_shown(chrome: Chrome, server: Server, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "blue").save(tmp_path / "scan.tiff")
    choose(chrome, tmp_path / "scan.tiff")
    wait_until(chrome, "answer")
    assert sent_picture(server.asked[0])[1].format == "TIFF"
    wait_for(chrome, "document.getElementById('picture').naturalWidth === 224")


@pytest.mark.parametrize("content", [b"", b"\0\0\0\x18ftypheic" + bytes(500), b"Dear dog,\n" * 50])
def test_a_file_that_no_one_can_read_is_refused_at_once(
    chrome: Chrome, server: Server, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "IMG_1.heic").write_bytes(content)
    choose(chrome, tmp_path / "IMG_1.heic")
    wait_until(chrome, "error")
    assert text_of(chrome, "#problem").startswith("This browser cannot read that file as a picture. Save it as JPEG")
    assert not chrome.find_element(By.ID, "again").is_displayed()
    assert not chrome.find_element(By.ID, "picture").is_displayed()
    assert server.asked == []


def test_of_a_broken_jpeg_the_server_says_what_is_wrong(chrome: Chrome, server: Server, tmp_path: Path) -> None:
    (tmp_path / "half.jpg").write_bytes(draw_jpeg(0, 0)[:300])
    server.replies.append(Reply(422, {"error": "the picture is broken"}))
    choose(chrome, tmp_path / "half.jpg")
    wait_until(chrome, "error")
    assert text_of(chrome, "#problem") == "The picture is broken."


# ------------------------------------------------------------------------------------------------ the answers


def test_the_picture_and_a_progress_message_show_while_the_server_thinks(
    chrome: Chrome, server: Server, dog: Path
) -> None:
    release = threading.Event()
    server.replies.append(Reply(release=release))
    choose(chrome, dog)
    wait_until(chrome, "busy")
    wait_for(chrome, "document.getElementById('picture').naturalWidth === 256")
    assert text_of(chrome, "#status") == "Looking at the picture …"
    assert chrome.find_element(By.ID, "result").get_attribute("aria-busy") == "true"
    release.set()
    wait_until(chrome, "answer")
    assert status_of(chrome) == "Most likely Sausage hound, 87.4 %."
    assert chrome.find_element(By.ID, "result").get_attribute("aria-busy") == "false"


def test_a_picture_of_something_else_is_probably_not_a_dog(chrome: Chrome, server: Server, dog: Path) -> None:
    server.replies.append(Reply(body=an_answer(rejected=True)))
    choose(chrome, dog)
    wait_until(chrome, "answer")
    heading = chrome.find_element(By.TAG_NAME, "h2")
    assert heading.text == "Probably not a dog"
    assert float(heading.value_of_css_property("font-size").removesuffix("px")) > 26
    assert text_of(chrome, "#like") == "It looks most like"
    assert status_of(chrome) == "Probably not a dog. It looks most like Sausage hound."
    assert len(chrome.find_elements(By.CSS_SELECTOR, "#breeds > li")) == 5
    name = chrome.find_element(By.CSS_SELECTOR, "#breeds .name")
    assert name.value_of_css_property("color") == text_colour(chrome, "--muted")
    choose(chrome, dog)  # the next one is a dog again
    wait_for(chrome, "document.getElementById('verdict').textContent === 'Most likely'")
    assert text_of(chrome, "#like") == ""


def text_colour(chrome: Chrome, variable: str) -> str:
    """A colour of the page, as WebDriver writes colours."""
    script = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0])"
    red, green, blue = bytes.fromhex(chrome.execute_script(script, variable).strip(" #"))
    return f"rgba({red}, {green}, {blue}, 1)"


def test_a_share_is_never_rounded_to_nothing_or_to_certainty(chrome: Chrome, server: Server, dog: Path) -> None:
    answer = an_answer()
    for prediction, share in zip(answer["predictions"], (0.99997, 0.999, 0.00001, 0.0, 0.5), strict=True):
        prediction["probability"] = share
    server.replies.append(Reply(body=answer))
    choose(chrome, dog)
    wait_until(chrome, "answer")
    shares = [element.text for element in chrome.find_elements(By.CSS_SELECTOR, ".share")]
    assert shares == ["> 99.9 %", "99.9 %", "< 0.1 %", "< 0.1 %", "50.0 %"]


def test_an_answer_without_details_is_shown_without_them(chrome: Chrome, server: Server, dog: Path) -> None:
    answer = an_answer()
    del answer["details"]
    server.replies += [Reply(body=answer), Reply(body=an_answer(similar=None))]
    choose(chrome, dog)
    wait_until(chrome, "answer")
    assert not chrome.find_element(By.ID, "similar").is_displayed()
    assert re.fullmatch(r"Answered in \d+ ms by efficientnet_lite0@0123456789ab\.", text_of(chrome, "#facts"))
    choose(chrome, dog)
    wait_for(chrome, "/decode/.test(document.getElementById('facts').textContent)")
    assert not chrome.find_element(By.ID, "similar").is_displayed()


def test_names_are_shown_as_text_whatever_is_in_them(chrome: Chrome, server: Server, dog: Path) -> None:
    names = [HOSTILE, "x" * 300, "كلب سلوقي", "柴犬", ""]
    server.replies.append(Reply(body=an_answer(breeds=names) | {"model": HOSTILE}))
    choose(chrome, dog)
    wait_until(chrome, "answer")
    shown = chrome.execute_script("return [...document.querySelectorAll('#breeds .name')].map(e => e.textContent)")
    assert shown == names
    assert HOSTILE in text_of(chrome, "#facts")
    assert text_of(chrome, "figcaption bdi") == HOSTILE
    assert chrome.title == "Which breed is it?"
    for width in (320, 1200):
        emulate(chrome, width=width)
        assert no_sideways_scroll(chrome)


def test_a_picture_of_the_answer_is_never_loaded_from_elsewhere(chrome: Chrome, server: Server) -> None:
    elsewhere = {"breed": "A", "class_index": 0, "similarity": 0.5, "picture": "http://127.0.0.2/spy.png"}
    server.replies.append(Reply(body=an_answer(picture="http://127.0.0.2/spy.png", similar=elsewhere)))
    chrome.find_element(By.ID, "address").send_keys("example.org/dog.jpg", Keys.ENTER)
    wait_until(chrome, "answer")
    assert not chrome.find_element(By.ID, "picture").is_displayed()
    assert not chrome.find_element(By.ID, "similar").is_displayed()


# ------------------------------------------------------------------------------------------------ when it goes wrong


@pytest.mark.parametrize(
    ("reply", "shown", "again"),
    [
        (Reply(422, {"error": "the address gave no picture"}), "The address gave no picture.", False),
        (Reply(413, {"error": "the picture is too large"}), "The picture is too large.", False),
        (Reply(500, {"error": "it failed"}, {"X-Request-Id": "a-1"}), "It failed. (Request a-1.)", True),
        (Reply(502, b"<html>Bad gateway</html>"), "The server answered 502.", True),
        (Reply(403, {"Message": "Forbidden"}), "The server answered 403.", False),
        (Reply(200, b"<html>"), "The server's answer could not be read.", True),
        (Reply(400, {"error": HOSTILE}), HOSTILE + ".", False),
    ],
)
def test_an_error_is_told_in_the_servers_words(
    chrome: Chrome, server: Server, dog: Path, reply: Reply, shown: str, again: bool
) -> None:
    server.replies.append(reply)
    choose(chrome, dog)
    wait_until(chrome, "error")
    problem = chrome.find_element(By.ID, "problem")
    assert (problem.text, problem.get_attribute("role")) == (shown, "alert")
    assert not chrome.find_element(By.ID, "result").is_displayed()
    button = chrome.find_element(By.ID, "again")
    assert button.is_displayed() == again
    if again:
        button.click()
        wait_until(chrome, "answer")
        assert server.asked[0] == server.asked[1]
        assert not problem.is_displayed()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(chrome: Chrome, server: Server, dog: Path, status: int) -> None:
    server.replies.append(Reply(status, {"error": "the queue is full"}, {"Retry-After": "2"}))
    choose(chrome, dog)
    wait_for(chrome, "/is busy. Trying again in 2 seconds …/.test(document.getElementById('status').textContent)")
    wait_until(chrome, "answer")
    assert len(server.times) == 2 and server.times[1] - server.times[0] >= 1.9


def hurry(chrome: Chrome, times: int) -> None:
    """Makes the page's timers run faster."""
    script = "const slow = setTimeout; window.setTimeout = (call, ms) => slow(call, ms / arguments[0])"
    chrome.execute_script(script.replace("arguments[0]", str(times)))


def test_a_server_that_stays_busy_is_given_up_and_can_be_asked_again(chrome: Chrome, server: Server, dog: Path) -> None:
    hurry(chrome, 20)
    server.replies += [Reply(429, {"error": "too many requests at once"}, {"Retry-After": "2"})] * 4
    choose(chrome, dog)
    wait_until(chrome, "error")
    assert text_of(chrome, "#problem") == "Too many requests at once."
    assert len(server.asked) == 4
    chrome.find_element(By.ID, "again").click()
    wait_until(chrome, "answer")


def test_a_server_that_does_not_answer_is_given_up(chrome: Chrome, server: Server, dog: Path) -> None:
    hurry(chrome, 60)
    release = threading.Event()
    server.replies.append(Reply(release=release))
    choose(chrome, dog)
    wait_until(chrome, "error")
    release.set()
    assert text_of(chrome, "#problem") == "The server took too long to answer."
    assert chrome.find_element(By.ID, "again").is_displayed()


def test_without_a_connection_it_says_so(chrome: Chrome, server: Server, dog: Path) -> None:
    devtools(chrome, "Network.emulateNetworkConditions", **{**ONLINE, "offline": True})
    choose(chrome, dog)
    wait_until(chrome, "error")
    assert text_of(chrome, "#problem") == "You are offline. Connect to the internet and try again."
    devtools(chrome, "Network.emulateNetworkConditions", **{**ONLINE, "offline": False})
    chrome.find_element(By.ID, "again").click()
    wait_until(chrome, "answer")


def test_when_the_server_breaks_off_it_says_so(chrome: Chrome, server: Server, dog: Path) -> None:
    server.replies += [Reply(status=0)] * 3  # the browser itself may try again
    choose(chrome, dog)
    wait_until(chrome, "error")
    assert text_of(chrome, "#problem").startswith("The server could not be reached.")


def test_a_new_picture_takes_the_place_of_one_under_way(
    chrome: Chrome, server: Server, dog: Path, tmp_path: Path
) -> None:
    release = threading.Event()
    server.replies += [Reply(release=release), Reply(body=an_answer(breeds=["B", "C", "D", "E", "F"]))]
    choose(chrome, dog)
    wait_until(chrome, "busy")
    wait_for_request(server, 1)
    Image.new("RGB", (30, 20)).save(tmp_path / "second.png")
    choose(chrome, tmp_path / "second.png")
    wait_until(chrome, "answer")
    release.set()
    time.sleep(0.3)  # the first answer may come now, and must change nothing
    assert text_of(chrome, "#breeds .name") == "B"
    assert chrome.find_element(By.ID, "picture").get_property("naturalWidth") == 30
    outcomes = chrome.execute_script(
        "return performance.getEntriesByType('resource')"
        ".filter(e => /invocations/.test(e.name)).map(e => e.responseStatus)"
    )
    assert sorted(outcomes) == [0, 200]  # 0: aborted


def wait_for_request(server: Server, count: int) -> None:
    until = time.monotonic() + 15
    while len(server.asked) < count:
        assert time.monotonic() < until, "the page has not asked"
        time.sleep(0.01)


def test_a_new_picture_ends_the_waiting_for_a_busy_server(chrome: Chrome, server: Server, dog: Path) -> None:
    hurry(chrome, 2)
    server.replies.append(Reply(429, {"error": "full"}, {"Retry-After": "5"}))
    choose(chrome, dog)
    wait_for(chrome, "/busy/.test(document.getElementById('status').textContent)")
    chrome.find_element(By.ID, "address").send_keys("example.org/dog.jpg", Keys.ENTER)
    wait_until(chrome, "answer")
    time.sleep(3.2)  # longer than the first would have waited
    assert [next(iter(request)) for request in server.asked] == ["image", "url"]


# ------------------------------------------------------------------------------------------------ for everyone


def no_sideways_scroll(chrome: Chrome) -> bool:
    script = "const d = document.documentElement; return d.scrollWidth <= d.clientWidth"
    return bool(chrome.execute_script(script))


STATES: dict[str, Reply | None] = {
    "empty": None,
    "answer": Reply(),
    "rejected": Reply(body=an_answer(rejected=True)),
    "error": Reply(500, {"error": "something went wrong on our side"}),
}


def bring_into(chrome: Chrome, server: Server, dog: Path, state: str) -> None:
    reply = STATES[state]
    if reply is not None:
        server.replies.append(reply)
        choose(chrome, dog)
        wait_until(chrome, "error" if state == "error" else "answer")


@pytest.mark.parametrize("state", STATES)
def test_everybody_can_read_it(chrome: Chrome, server: Server, dog: Path, state: str) -> None:
    """At every width and at 200 percent zoom, by axe's rules, and with enough contrast in light and in dark."""
    bring_into(chrome, server, dog, state)
    fits_every_width(chrome, state)
    for dark in (False, True):
        emulate(chrome, dark=dark)
        axe_finds_nothing_to_complain_about(chrome)
        contrast_suffices(chrome)


def fits_every_width(chrome: Chrome, state: str) -> None:
    for width, scale in ((320, 1), (360, 3), (640, 2), (768, 1), (1024, 1), (1600, 1)):
        emulate(chrome, width=width, scale=scale)
        assert no_sideways_scroll(chrome), width
        if state != "empty":
            boxes = {name: chrome.find_element(By.CSS_SELECTOR, name).rect for name in (".plate", ".answers", "#form")}
            beside = boxes[".answers"]["x"] > boxes[".plate"]["x"] + boxes[".plate"]["width"]
            assert beside == (width >= 800)


def axe_finds_nothing_to_complain_about(chrome: Chrome) -> None:
    import axe_core_python

    axe = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
    found = chrome.execute_async_script(
        f"{axe}; const [rules, done] = arguments;"
        "axe.run({runOnly: rules}).then(r => done({violations: r.violations, passes: r.passes.length}))",
        list(AXE_RULES),
    )
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
    assert found["passes"] > 15


CONTRASTS = """
const parse = (c) => { const v = c.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const back = (e) => parse(getComputedStyle(e).backgroundColor);
const behind = (e) => back(e)[3] ? back(e) : behind(e.parentElement);
const border = (e) => parse(getComputedStyle(e).borderTopColor);
const visible = (e) => e.checkVisibility() && !e.matches('.sr, .sr *, script, style, noscript *');
const texts = [...document.querySelectorAll('body *')].filter((e) => visible(e) &&
  [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
const edges = [...document.querySelectorAll('#address, button, .choose')].filter(visible);
return {
  text: texts.map((e) => [ratio(parse(getComputedStyle(e).color), behind(e)), e.textContent.trim().slice(0, 40)]),
  edge: edges.map((e) => [ratio(border(e), behind(e.parentElement)), e.id]),
  bar: [...document.querySelectorAll('.bar i')].map((e) => [ratio(back(e), behind(e.closest('li'))), 'bar']),
}"""


def contrast_suffices(chrome: Chrome) -> None:
    """4.5 to 1 for all text, large or not; 3 to 1 for the edges of controls and for bars."""
    ratios = chrome.execute_script(CONTRASTS)
    assert len(ratios["text"]) >= 7
    assert [entry for entry in ratios["text"] if entry[0] < 4.5] == []
    assert [entry for entry in ratios["edge"] + ratios["bar"] if entry[0] < 3] == []


def test_all_of_it_works_by_keyboard_alone(chrome: Chrome, server: Server) -> None:
    def tab() -> Any:
        ActionChains(chrome).send_keys(Keys.TAB).perform()
        return chrome.switch_to.active_element

    ring = "const s = getComputedStyle(arguments[0]); return [s.outlineStyle, parseFloat(s.outlineWidth)]"
    assert tab().get_attribute("id") == "file"
    label = chrome.find_element(By.CSS_SELECTOR, "label[for=file]")
    assert chrome.execute_script(ring, label) == ["solid", 3]
    devtools(chrome, "Page.enable")
    devtools(chrome, "Page.setInterceptFileChooserDialog", enabled=True)
    for key in (Keys.ENTER, Keys.SPACE):
        ActionChains(chrome).send_keys(key).perform()
        until = time.monotonic() + 5
        while not (opened := [e for e in chrome.get_log("performance") if "fileChooserOpened" in e["message"]]):
            assert time.monotonic() < until, f"{key!r} opens no file chooser"
        assert len(opened) == 1
    devtools(chrome, "Page.setInterceptFileChooserDialog", enabled=False)
    assert (field := tab()).get_attribute("id") == "address"
    assert chrome.execute_script(ring, field) == ["solid", 3]
    ActionChains(chrome).send_keys("example.org/dog.jpg").perform()
    assert tab().text == "Look at it"
    server.replies.append(Reply(500, {"error": "it failed"}))
    ActionChains(chrome).send_keys(Keys.SPACE).perform()
    wait_until(chrome, "error")
    ActionChains(chrome).key_down(Keys.SHIFT).send_keys(Keys.TAB * 3).key_up(Keys.SHIFT).perform()
    again = chrome.switch_to.active_element
    assert again.get_attribute("id") == "again"
    ActionChains(chrome).send_keys(Keys.ENTER).perform()
    wait_until(chrome, "answer")
    assert server.asked[0] == server.asked[1]


def test_a_screen_reader_finds_names_roles_and_regions(chrome: Chrome, dog: Path) -> None:
    def tree() -> list[tuple[str, str]]:
        nodes = devtools(chrome, "Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]

    empty = tree()
    for expected in (
        ("heading", "Which breed is it?"),
        ("button", "Choose a picture"),
        ("textbox", "Or the address of a picture on the web"),
        ("button", "Look at it"),
        ("status", ""),
    ):
        assert expected in empty
    assert {"banner", "main", "contentinfo"} <= {role for role, _ in empty}
    assert [role for role, _ in empty].count("heading") == 1
    choose(chrome, dog)
    wait_until(chrome, "answer")
    answer = tree()
    for expected in (
        ("image", "Your picture"),
        ("region", "Most likely"),
        ("heading", "Most likely"),
        ("image", "A Sausage hound from the training pictures"),
    ):
        assert expected in answer
    assert [role for role, _ in answer].count("listitem") == 5
    html = chrome.find_element(By.TAG_NAME, "html")
    assert html.get_attribute("lang") == "en"
    for name in ("description", "viewport"):
        assert chrome.find_element(By.CSS_SELECTOR, f"meta[name={name}]").get_attribute("content")


def test_without_animations_for_those_who_want_none(chrome: Chrome, dog: Path) -> None:
    count = "return document.getAnimations().length"
    choose(chrome, dog)
    wait_until(chrome, "answer")
    assert chrome.execute_script(count) == 0
    devtools(
        chrome, "Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "no-preference"}]
    )
    chrome.refresh()
    chrome.execute_script(
        "window.played = 0; document.addEventListener('animationstart', () => { window.played++ }, true)"
    )
    choose(chrome, dog)
    wait_for(chrome, "window.played >= 5")


# ------------------------------------------------------------------------------------------------ security


def test_the_policy_stops_scripts_styles_and_pictures_that_are_not_the_pages_own(
    one_browser: Chrome, server: Server
) -> None:
    """As if a name had got into the page as HTML after all."""
    evil = (
        b"<script>document.title = 'hacked'</script>"
        b"<img src=x onerror=\"document.title = 'hacked'\">"
        b"<img src='http://127.0.0.2/spy.png'>"
        b"<style>h1 { color: red }</style>"
        b"<base href='http://127.0.0.2/'>"
    )
    server.html = server.html.replace(b"<main>", evil + b"<main>")
    one_browser.get_log("performance")
    one_browser.get(server.url)
    assert one_browser.title == "Which breed is it?"
    assert one_browser.find_element(By.TAG_NAME, "h1").value_of_css_property("color") != "rgba(255, 0, 0, 1)"
    assert one_browser.execute_script("return document.baseURI") == server.url
    refused = [
        entry["message"] for entry in one_browser.get_log("browser") if "Content Security Policy" in entry["message"]
    ]
    assert len(refused) == 5
    problem = one_browser.execute_script(
        "try { document.body.innerHTML = '<p>'; return null } catch (error) { return error.name }"
    )
    assert problem == "TypeError"
    one_browser.get_log("browser")
    devtools(one_browser, "Log.clear")


def test_the_headers_say_what_the_page_may_do() -> None:
    html, headers = page()
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("script-src").startswith("'sha256-")
    assert policy.pop("style-src").startswith("'sha256-")
    assert policy == {
        "default-src": "'none'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert re.fullmatch('"[0-9a-f]{16}"', headers["ETag"])
    assert all(name.isascii() and value.isascii() and "\n" not in value for name, value in headers.items())
    assert len(html) < 40_000


def test_nothing_in_it_names_another_host() -> None:
    text = page()[0].decode()
    hosts = set(re.findall(r"https?://([\w.-]+)", text))
    assert hosts == {"www.w3.org", "example.org"}  # SVG's namespace, and an example in a message
    assert "innerHTML" not in text and "eval(" not in text


def test_windows_line_ends_change_neither_the_page_nor_its_hashes(tmp_path: Path) -> None:
    source = Path(page_module.__file__)
    shutil.copy(source, tmp_path)
    html = source.with_name("page.html").read_bytes()
    (tmp_path / "page.html").write_bytes(html.replace(b"\n", b"\r\n"))
    assert run_alone(tmp_path) == (json.loads(json.dumps(page()[1])), page()[0].decode())


def test_it_works_beside_a_lambda_function_and_imports_next_to_nothing(tmp_path: Path) -> None:
    source = Path(page_module.__file__)
    for path in (source, source.with_name("page.html")):
        shutil.copy(path, tmp_path)
    assert run_alone(tmp_path) == (page()[1], page()[0].decode())
    script = "import sys; before = set(sys.modules); import page; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["__future__", "page"]


def run_alone(folder: Path) -> tuple[dict[str, str], str]:
    """Headers and HTML from the module `page` in that folder, without any installed package."""
    script = "import json, page; html, headers = page.page(); print(json.dumps([headers, html.decode()]))"
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    headers, html = json.loads(done.stdout)
    return headers, html


# ------------------------------------------------------------------------------------------------ the real server


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Server]:
    """Another web server, which has a picture."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def real_server(trained: Trained, elsewhere: Server) -> Iterator[str]:
    """The address of `dogbreed serve` with a trained model, which may fetch from `elsewhere`."""
    with running(trained.folder, "--allow", urlsplit(elsewhere.url).netloc) as server:
        yield server.address + "/"


def test_with_the_real_server_a_picture_becomes_its_breed(one_browser: Chrome, real_server: str, photos: Path) -> None:
    emulate(one_browser)
    one_browser.get_log("browser")
    one_browser.get(real_server)
    right = 0
    for folder in sorted((photos / "test").iterdir()):
        one_browser.refresh()
        choose(one_browser, sorted(folder.iterdir())[0])
        wait_until(one_browser, "answer")
        right += text_of(one_browser, "#breeds .name") == folder.name.partition(".")[2].replace("_", " ")
        assert wait_for(one_browser, "document.querySelector('#similar img').naturalWidth") > 90
        shares = one_browser.execute_script("return [...document.querySelectorAll('.share')].map(e => e.textContent)")
        assert sum(float(share.strip("<> %")) for share in shares) == pytest.approx(100, abs=0.5)
        assert re.fullmatch(
            r"Answered in \d+ ms \(decode \d+, queue \d+, neural network \d+, transfer \d+\) by [\w.]+@[0-9a-f]{12}\.",
            text_of(one_browser, "#facts"),
        )
    assert right >= 3
    assert one_browser.get_log("browser") == []


def test_the_real_server_fetches_a_linked_picture_and_the_page_does_not(
    one_browser: Chrome, real_server: str, elsewhere: Server
) -> None:
    elsewhere.picture = draw_jpeg(0, 0)
    one_browser.get(real_server)
    requested(one_browser)
    one_browser.find_element(By.ID, "address").send_keys(elsewhere.url + "dog.jpg", Keys.ENTER)
    wait_until(one_browser, "answer")
    wait_for(one_browser, "document.getElementById('picture').naturalWidth === 224")
    assert {url for url in requested(one_browser) if not url.startswith("data:")} == {real_server + "invocations"}


def test_the_real_server_says_what_is_wrong_with_a_picture(
    one_browser: Chrome, real_server: str, elsewhere: Server, tmp_path: Path
) -> None:
    (tmp_path / "half.jpg").write_bytes(draw_jpeg(0, 0)[:3000])
    one_browser.get(real_server)
    choose(one_browser, tmp_path / "half.jpg")
    wait_until(one_browser, "error")
    assert re.fullmatch(r"The picture .*truncated.*\.", text_of(one_browser, "#problem"))
    one_browser.find_element(By.ID, "address").send_keys(elsewhere.url + "cat.jpg", Keys.ENTER)
    wait_for(one_browser, "/404/.test(document.getElementById('problem').textContent)")
    one_browser.get_log("browser")
