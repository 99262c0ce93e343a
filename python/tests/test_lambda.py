"""The Lambda function, with what it meets in AWS: events of each kind, hostile addresses, and an endpoint in any mood.

The handler lies among the files of its package, boto's real client talks HTTP to a stand-in for SageMaker's runtime,
pictures come from a real web server, and traces go to a real socket.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photographs import draw, encode

from dogbreed.aws.package import PACKAGES
from dogbreed.aws.repository import Repository

ROOT = Path(__file__).parents[2]
JPEG, PNG, WEBP = (encode(draw(0, 1), kind) for kind in ("JPEG", "PNG", "WEBP"))
BREEDS = [{"breed": f"Breed {i}", "class_index": i, "probability": round(0.5**i, 6)} for i in range(1, 8)]
CONTEXT = SimpleNamespace(
    aws_request_id="request-1",
    function_name="SECRET-name",
    invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:SECRET",
    log_stream_name="SECRET-stream",
)
MIB = 2**20


class Server(ThreadingHTTPServer):
    """An HTTP server on the loopback device whose every answer is what `answer(request)` does."""

    daemon_threads, block_on_close = True, False

    def __init__(self) -> None:
        self.connections = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or a body waits 40 ms for its headers to be acknowledged

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_POST(self) -> None:
                with contextlib.suppress(OSError):
                    server.answer(self)

            do_GET = do_POST

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


class Web(Server):
    """A web site, with the pictures in `pages` and whatever `answers` does."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, bytes] = {}
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.asked.append(request.path)
        if path in self.answers:
            self.answers[path](request)
        else:
            send(request, 200 if path in self.pages else 404, self.pages.get(path, b"SECRET"), Content_Type="SECRET/x")

    def url(self, path: str, body: bytes = JPEG) -> str:
        self.pages[path] = body
        return f"http://{self.host}{path}"


class Runtime(Server):
    """SageMaker's runtime: answers `failure` if there is one, and otherwise as many of `BREEDS` as are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.received: list[SimpleNamespace] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.received.append(SimpleNamespace(path=request.path, headers=request.headers, body=body))
        if self.failure:
            self.failure(request)
            return
        wanted = 5
        if request.headers["Content-Type"] == "application/json":
            asked = json.loads(body)["top_k"]
            wanted = len(BREEDS) if asked == "all" else asked
        answer = {"predictions": BREEDS[:wanted], "rejected": False, "model": "net"}
        if b'"details": true' in body:
            answer["details"] = {"picture": "data:image/jpeg;base64,AAAA", "similar": None, "ms": {"decode": 1.5}}
        send(request, 200, json.dumps(answer).encode(), Content_Type="application/json")

    def fail(self, status: int, code: str, message: str = "SECRET", **members: object) -> None:
        """Answers from now on as AWS reports a failure."""
        body = json.dumps({"message": message, **members}).encode()
        self.failure = lambda request: send(request, status, body, x_amzn_ErrorType=code)


def load(folder: Path, environment: dict[str, str]) -> ModuleType:
    """The handler, imported from a folder that holds what its package holds."""
    for name, source in PACKAGES["lambda.zip"](Repository(ROOT)).items():
        (folder / name).write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_DEFAULT_REGION": "us-east-1", "ENDPOINT_NAME": "dogbreed-test", **environment}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.syspath_prepend(folder)
        spec = importlib.util.spec_from_file_location("classify_handler", folder / "handler.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    for name in ("webfetch", "xray"):
        del sys.modules[name]
    return module


@dataclass
class Function:
    """The function in its surroundings. Calling it invokes it; `lines` are the log lines of the last call."""

    module: ModuleType
    web: Web
    runtime: Runtime
    captured: Callable[[], Any]
    lines: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""

    def __call__(self, event: Any) -> tuple[int, dict[str, Any]]:
        answer = self.module.handler(event, CONTEXT)
        self.log = self.captured().out
        self.lines = [json.loads(line) for line in self.log.splitlines()]
        is_web = isinstance(event, dict) and "requestContext" in event
        assert set(answer) == {"statusCode", "headers", "body"} | ({"isBase64Encoded"} if is_web else set())
        assert not answer.get("isBase64Encoded")
        assert answer["headers"]["Content-Type"] == "application/json"
        assert "SECRET" not in json.dumps(answer)
        assert len(self.lines) == 1 and self.lines[0]["status"] == answer["statusCode"]
        self.headers = answer["headers"]
        return answer["statusCode"], json.loads(answer["body"])

    def refusal(self, event: Any, status: int) -> str:
        """The reason given for a refusal, which must have that status."""
        got, body = self(event)
        assert (got, set(body)) == (status, {"error"}), body
        return str(body["error"])


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Web, Runtime]]:
    with Web() as web, Runtime() as runtime:
        yield web, runtime
        web.shutdown()
        runtime.shutdown()


@pytest.fixture(scope="module")
def environment(servers: tuple[Web, Runtime]) -> dict[str, str]:
    web, runtime = servers
    return {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": f"http://{runtime.host}",
        "FETCH_EXEMPT_HOSTS": web.host,
        "FETCH_TIMEOUT_S": "1.5",
        "INVOKE_TIMEOUT_S": "1",
        "MAX_PICTURE_MIB": "5",
    }


@pytest.fixture(scope="module")
def loaded(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return load(tmp_path_factory.mktemp("package"), environment)


@pytest.fixture
def function(
    loaded: ModuleType, servers: tuple[Web, Runtime], capsys: pytest.CaptureFixture[str]
) -> Iterator[Function]:
    web, runtime = servers
    yield Function(loaded, web, runtime, capsys.readouterr)
    runtime.failure = None
    for record in (runtime.received, web.asked, web.pages, web.answers):
        record.clear()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ------------------------------------------------------------------------------------------------ pictures


def test_a_picture_is_fetched_and_its_very_bytes_go_to_the_endpoint(function: Function) -> None:
    status, body = function({"url": function.web.url("/dog.jpg")})
    assert status == 200
    assert body == {"predictions": BREEDS[:5], "rejected": False, "model": "net"}
    (request,) = function.runtime.received
    assert request.path == "/endpoints/dogbreed-test/invocations"
    assert (request.headers["Content-Type"], request.headers["Accept"]) == ("image/jpeg", "application/json")
    assert request.body == JPEG


def test_a_picture_can_be_sent_in_the_event(function: Function) -> None:
    assert function({"image": text(JPEG)})[0] == 200
    assert function.runtime.received[0].body == JPEG


@pytest.mark.parametrize(("picture", "kind"), [(JPEG, "image/jpeg"), (PNG, "image/png"), (WEBP, "image/webp")])
def test_the_type_is_what_the_bytes_say_not_what_the_web_server_says(
    function: Function, picture: bytes, kind: str
) -> None:
    assert function({"url": function.web.url("/dog", picture)})[0] == 200
    assert function.runtime.received[0].headers["Content-Type"] == kind


@pytest.mark.parametrize(
    ("top_k", "count", "kind"),
    [(1, 1, "image/jpeg"), (5, 5, "image/jpeg"), (6, 6, "application/json"), ("all", 7, "application/json")],
)
def test_as_many_classes_are_answered_as_are_asked_for(function: Function, top_k: Any, count: int, kind: str) -> None:
    status, body = function({"image": text(JPEG), "top_k": top_k})
    assert (status, body["predictions"]) == (200, BREEDS[:count])
    (request,) = function.runtime.received
    assert request.headers["Content-Type"] == kind
    if kind == "application/json":
        assert json.loads(request.body) == {"image": text(JPEG), "top_k": top_k}


def test_details_are_asked_for_and_come_through(function: Function) -> None:
    for event in ({"image": text(JPEG)}, {"url": function.web.url("/dog.jpg")}):
        for wrapped in (event | {"details": True}, http_v2(json.dumps(event | {"details": True}))):
            status, body = function(wrapped)
            assert status == 200 and len(body["predictions"]) == 5
            assert body["details"]["picture"].startswith("data:image/jpeg;base64,") and body["details"]["ms"]
            request = function.runtime.received.pop()
            assert request.headers["Content-Type"] == "application/json"
            assert json.loads(request.body) == {"image": text(JPEG), "top_k": 5, "details": True}
    assert "details" not in function({"image": text(JPEG), "details": False})[1]
    assert function.runtime.received[0].body == JPEG  # as bare bytes


@pytest.mark.parametrize(("limit_mb", "said"), [(4, "2.8"), (6, "4.2")])
def test_a_picture_with_wishes_is_refused_where_the_endpoint_would_refuse_it(
    function: Function, limit_mb: int, said: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    function.module = load(tmp_path, environment | {"MAX_PAYLOAD_MB": str(limit_mb)})
    large = JPEG + bytes(limit_mb * 10**6 * 3 // 4)
    assert f"may have {said} MiB at most" in function.refusal({"image": text(large), "details": True}, 413)
    assert function.runtime.received == []
    fitting = JPEG + bytes(int(float(said) * MIB) - len(JPEG))
    assert function({"image": text(fitting), "details": True})[0] == 200
    assert function({"image": text(large)})[0] == 200, "bare bytes are no larger than they are"
    assert [len(request.body) <= limit_mb * 10**6 for request in function.runtime.received] == [True, True]


# ------------------------------------------------------------------------------------------------ events


def http_v2(body: str, kind: str = "application/json", method: str = "POST", **more: Any) -> dict[str, Any]:
    """As function URLs and HTTP APIs send it."""
    return {
        "version": "2.0",
        "headers": {"content-type": kind},
        "requestContext": {"http": {"method": method, "path": "/"}, "accountId": "anonymous"},
        "body": body,
        "isBase64Encoded": False,
    } | more


def http_v1(body: str, kind: str = "application/json", method: str = "POST", **more: Any) -> dict[str, Any]:
    """As REST APIs and load balancers send it."""
    return {
        "httpMethod": method,
        "headers": {"Content-Type": kind},
        "queryStringParameters": None,
        "requestContext": {"stage": "prod"},
        "body": body,
        "isBase64Encoded": False,
    } | more


@pytest.mark.parametrize("wrap", [http_v2, http_v1])
def test_a_web_request_carries_the_same_json(function: Function, wrap: Callable[..., dict[str, Any]]) -> None:
    payload = json.dumps({"url": function.web.url("/dog.jpg"), "top_k": 2})
    for event in (
        wrap(payload),
        wrap(payload, "application/json; charset=utf-8"),
        wrap(text(payload.encode()), isBase64Encoded=True),
        wrap(payload, headers=None),
    ):
        status, body = function(event)
        assert (status, body["predictions"]) == (200, BREEDS[:2])


@pytest.mark.parametrize("wrap", [http_v2, http_v1])
def test_a_web_request_carries_a_picture(function: Function, wrap: Callable[..., dict[str, Any]]) -> None:
    for kind in ("image/png", "image/jpeg", "application/octet-stream"):
        status, body = function(wrap(text(PNG), kind, isBase64Encoded=True, queryStringParameters={"top_k": "3"}))
        assert (status, body["predictions"]) == (200, BREEDS[:3])
    assert {request.body for request in function.runtime.received} == {PNG}
    assert (
        function(wrap(text(PNG), "image/png", isBase64Encoded=True, queryStringParameters={"top_k": "all"}))[0] == 200
    )
    assert "top_k" in function.refusal(
        wrap(text(PNG), "image/png", isBase64Encoded=True, queryStringParameters={"top_k": "0"}), 400
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_without_the_page_other_methods_are_refused(function: Function, method: str) -> None:
    for wrap in (http_v2, http_v1):
        function.refusal(wrap("", method=method), 405)
        assert function.headers["Allow"] == "POST"


@pytest.fixture(scope="module")
def with_page(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return load(tmp_path_factory.mktemp("with-page"), environment | {"PAGE": "1"})


@pytest.fixture
def page_function(
    function: Function, with_page: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any], dict[str, Any]]:
    """The function where PAGE is 1, with its folder on the path as in Lambda; gives answers as they are."""
    monkeypatch.syspath_prepend(Path(str(with_page.__file__)).parent)
    monkeypatch.delitem(sys.modules, "page", raising=False)
    return lambda event: dict(with_page.handler(event, CONTEXT))


def at(path: str, wrap: Callable[..., dict[str, Any]], method: str = "GET", **headers: str) -> dict[str, Any]:
    where = {"rawPath": path} if wrap is http_v2 else {"path": path}
    return wrap("", method=method, **where) | {"headers": headers}


@pytest.mark.parametrize("wrap", [http_v2, http_v1])
def test_the_page_is_answered_at_the_root_and_nowhere_else(
    page_function: Callable[[Any], dict[str, Any]], wrap: Callable[..., dict[str, Any]]
) -> None:
    assert "page" not in sys.modules, "calls that classify do not pay for it"
    answer = page_function(at("/", wrap))
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert answer["body"].encode() == (ROOT / "python/dogbreed/page.html").read_bytes()
    assert answer["headers"]["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer["headers"]["Content-Security-Policy"]

    head = page_function(at("/", wrap, "HEAD"))
    assert (head["statusCode"], head["body"], head["headers"]) == (200, "", answer["headers"])

    kept = page_function(at("/", wrap, **{"If-None-Match": answer["headers"]["ETag"]}))
    assert (kept["statusCode"], kept["body"]) == (304, "")

    for path in ("/favicon.ico", "/invocations", "//", "/../etc/passwd", "", "/page.html"):
        for method in ("GET", "HEAD"):
            answer = page_function(at(path, wrap, method))
            assert answer["statusCode"] == 404 and "the page is at /" in json.loads(answer["body"])["error"]
    for method in ("PUT", "DELETE", "OPTIONS", "get", "TRACE"):
        answer = page_function(at("/", wrap, method))
        assert (answer["statusCode"], answer["headers"]["Allow"]) == (405, "GET, HEAD, POST")


def test_the_page_lies_below_the_stage_of_an_api(page_function: Callable[[Any], dict[str, Any]]) -> None:
    def status(path: str, stage: str) -> int:
        event = at(path, http_v2)
        event["requestContext"]["stage"] = stage
        return int(page_function(event)["statusCode"])

    assert status("/", "$default") == status("/prod/", "prod") == 200
    assert status("/prod", "prod") == status("/other/", "prod") == 404  # from /prod the page could not find back


@pytest.mark.parametrize("wrap", [http_v2, http_v1])
def test_with_the_page_any_path_takes_pictures(
    page_function: Callable[[Any], dict[str, Any]], wrap: Callable[..., dict[str, Any]]
) -> None:
    for path in ("/", "/invocations", "/any/where"):
        event = at(path, wrap, "POST") | {"body": json.dumps({"image": text(JPEG)})}
        assert page_function(event)["statusCode"] == 200
    assert page_function({"image": text(JPEG)})["statusCode"] == 200


def test_a_page_that_is_missing_is_a_fault_of_ours(
    page_function: Callable[[Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "page", None)
    answer = page_function(at("/", http_v2))
    assert (answer["statusCode"], answer["body"]) == (500, '{"error": "something went wrong on our side"}')


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (None, 400), ([], 400), ("url", 400), (7, 400), ({}, 400),
        ({"url": "http://a.example/", "image": ""}, 400),
        ({"url": None}, 400), ({"url": ["http://a.example/"]}, 400), ({"url": ""}, 422),
        ({"image": 5}, 400), ({"image": "not base64"}, 400), ({"image": "ü"}, 400), ({"image": ""}, 400),
        ({"image": text(b"hello")}, 415), ({"image": text(b"GIF89a...")}, 415), ({"image": text(b"<svg>")}, 415),
        ({"image": text(JPEG), "top_k": 0}, 400), ({"image": text(JPEG), "top_k": True}, 400),
        ({"image": text(JPEG), "top_k": 1.5}, 400), ({"image": text(JPEG), "top_k": "5"}, 400),
        ({"image": text(JPEG), "top_k": 10**30}, 400), ({"image": text(JPEG), "top_k": None}, 400),
        ({"image": text(JPEG + bytes(5 * MIB))}, 413),
        ({"image": text(JPEG + bytes(4 * MIB + MIB // 2)), "top_k": "all"}, 413),
        ({"image": text(JPEG + bytes(4 * MIB + MIB // 2)), "details": True}, 413),
        ({"image": text(JPEG), "details": 1}, 400), ({"image": text(JPEG), "details": "true"}, 400),
        ({"image": text(JPEG), "details": None}, 400),
        ({"url": "http://a.invalid/" + "a" * 8192}, 422), ({"url": "a" * 5_000_000}, 422),
        ({"requestContext": None}, 405), ({"requestContext": {"http": 3}, "httpMethod": "POST", "headers": [1]}, 400),
        (http_v2(""), 400), (http_v2("{"), 400), (http_v2("[]"), 400), (http_v2("[" * 100_000), 400),
        (http_v2("null"), 400), (http_v2('{"url": "\ud800"}'), 422), (http_v2("1" * 5000), 400),
        (http_v2("") | {"body": {"url": "x"}}, 400), (http_v2("***", isBase64Encoded=True), 400),
        (http_v2(text(b"\xff\xfe\xff"), isBase64Encoded=True), 400),
        (http_v2("a=b", "application/x-www-form-urlencoded"), 415), (http_v2("hello", "text/plain"), 415),
        (http_v2("hello", "image/jpeg"), 415), (http_v2("", "image/jpeg"), 400),
    ],
)  # fmt: skip
def test_a_wrong_event_is_the_senders_mistake_with_a_reason(function: Function, event: Any, status: int) -> None:
    assert function.refusal(event, status)
    assert function.runtime.received == []
    assert function.lines[0]["level"] == "INFO"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = [
    "url",
    "image",
    "top_k",
    "requestContext",
    "http",
    "method",
    "httpMethod",
    "headers",
    "body",
    "isBase64Encoded",
]
events = st.recursive(
    values | st.sampled_from(["POST", "all", "http://[", "http://0/", "http://127.1:1/", text(JPEG[:30]), "image/png"]),
    lambda inner: st.dictionaries(st.sampled_from(names), inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=events)
def test_no_event_whatsoever_is_a_fault_of_ours(function: Function, event: Any) -> None:
    status, _ = function(event)
    assert status == 200 or 400 <= status < 500


# ------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "0", "localhost", "[::1]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[fd00:ec2::254]", "10.0.0.1", "169.254.79.129", "[64:ff9b::7f00:1]",
    ],
)  # fmt: skip
def test_our_own_network_is_not_asked_under_any_name(function: Function, host: str) -> None:
    """The exemption is of one spelling of one host and port: here the same server is addressed in other ways."""
    port = 9001 if host == "127.0.0.1" else function.web.server_port
    reason = function.refusal({"url": f"http://{host}:{port}/latest/meta-data/?token=SECRET"}, 422)
    assert reason in ("the address is not on the public internet", "the host of the address is unknown")
    assert function.web.asked == []


def test_no_address_is_exempt_unless_configured(
    tmp_path: Path, environment: dict[str, str], function: Function
) -> None:
    for exempt in ({}, {"FETCH_EXEMPT_HOSTS": ""}):
        base = {name: value for name, value in environment.items() if name != "FETCH_EXEMPT_HOSTS"}
        function.module = load(tmp_path, base | exempt)
        reason = function.refusal({"url": function.web.url("/dog.jpg")}, 422)
        assert reason == "the address is not on the public internet"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "file:///proc/self/environ",
        "gopher://127.0.0.1/_X",
        "ftp://a.example/",
        "data:image/png,x",
        "//a.example/",
        "dog.jpg",
        "http://u:SECRET@a.example/",
        "http://a.example/\r\nX: 1",
        "http://[::1/",
    ],
)
def test_an_odd_address_is_refused(function: Function, url: str) -> None:
    assert function.refusal({"url": url}, 422)
    assert "SECRET" not in function.log


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/", "http://[::ffff:127.0.0.1]/", "file:///etc/passwd"]
)
def test_a_redirect_inside_is_refused(function: Function, target: str) -> None:
    function.web.answers["/"] = lambda request: send(request, 302, b"SECRET", Location=target)
    assert function.refusal({"url": f"http://{function.web.host}/"}, 422)


def test_a_redirect_to_a_picture_is_followed(function: Function) -> None:
    function.web.url("/dog.jpg")
    function.web.answers["/"] = lambda request: send(request, 302, b"", Location="/dog.jpg")
    assert function({"url": f"http://{function.web.host}/"})[0] == 200


def endless(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + JPEG)
    while True:
        request.wfile.write(bytes(100_000))


def dripping(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + JPEG[:10])
    while True:
        time.sleep(0.05)
        request.wfile.write(b"x")


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (endless, 413, "larger than 5 MiB"),
        (lambda request: send(request, 200, b"", Content_Length="99999999999"), 413, "larger than 5 MiB"),
        (dripping, 422, "took too long"),
        (lambda request: send(request, 404, b"SECRET"), 422, "status 404"),
        (lambda request: send(request, 500, b"SECRET"), 422, "status 500"),
        (lambda request: send(request, 200, b"<html>SECRET</html>", Content_Type="image/jpeg"), 415, "not a JPEG"),
        (lambda request: send(request, 200, b""), 400, "empty"),
        (lambda request: request.wfile.write(b"SECRET\r\n\r\n"), 422, "refused or dropped"),
        (lambda request: None, 422, "dropped"),
    ],
    ids=["endless", "announced too large", "dripping", "404", "500", "a page", "empty", "not HTTP", "closed"],
)
def test_a_bad_answer_is_refused_in_time_and_nothing_of_it_is_passed_on(
    function: Function, answer: Callable[[BaseHTTPRequestHandler], None], status: int, reason: str
) -> None:
    def answer_and_close(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        answer(request)

    function.web.answers["/"] = answer_and_close
    started = time.monotonic()
    assert reason in function.refusal({"url": f"http://{function.web.host}/"}, status)
    assert time.monotonic() - started < 5
    assert function.runtime.received == []
    assert "SECRET" not in function.log


# ------------------------------------------------------------------------------------------------ the endpoint


@pytest.mark.parametrize(
    ("http_status", "code", "message", "status", "reason"),
    [
        (400, "ValidationError", "Endpoint SECRET of account 123456789012 not found.", 503, "no model is live yet"),
        (400, "ValidationException", 'Could not find endpoint "SECRET".', 503, "no model is live yet"),
        (400, "ValidationError", "1 validation error detected", 502, "could not be reached"),
        (413, "413", "Request Entity Too Large SECRET", 413, "larger than the model accepts"),
        (400, "ThrottlingException", "Rate exceeded SECRET", 429, "too many requests"),
        (429, "TooManyRequestsException", "SECRET", 429, "too many requests"),
        (429, "ModelNotReadyException", "SECRET", 503, "not ready"),
        (503, "ServiceUnavailable", "SECRET", 503, "not ready"),
        (500, "InternalFailure", "SECRET", 502, "could not be reached"),
        (530, "InternalDependencyException", "SECRET", 502, "could not be reached"),
        (403, "AccessDeniedException", "User: SECRET is not authorized", 500, "on our side"),
        (403, "ExpiredTokenException", "SECRET", 502, "could not be reached"),
    ],
)
def test_what_sagemaker_reports_is_mapped(
    function: Function, http_status: int, code: str, message: str, status: int, reason: str
) -> None:
    function.runtime.fail(http_status, code, message)
    assert reason in function.refusal({"image": text(JPEG)}, status)
    assert message in function.lines[0]["detail"]
    assert ("Retry-After" in function.headers) == (status in (429, 503))
    assert len(function.runtime.received) <= 2


def test_a_missing_permission_is_named_in_the_log_and_nowhere_else(function: Function) -> None:
    function.runtime.fail(403, "AccessDeniedException", "User: arn:aws:sts::1:SECRET is not authorized to perform it")
    assert function.refusal({"image": text(JPEG)}, 500) == "something went wrong on our side"
    assert "lacks sagemaker:InvokeEndpoint on endpoint/dogbreed-test" in function.lines[0]["detail"]
    assert function.lines[0]["level"] == "ERROR"


@pytest.mark.parametrize(
    ("original", "answered", "status", "reason"),
    [
        (422, '{"error": "the picture is cut off"}', 422, "the picture is cut off"),
        (400, '{"error": "no"}', 400, "no"),
        (413, "SECRET", 413, "the model refused the picture"),
        (415, '{"error": ["SECRET"]}', 415, "the model refused the picture"),
        (404, '{"error": "SECRET"}', 502, "the model failed"),
        (429, '{"error": "SECRET"}', 429, "the model is busy; try again in some seconds"),
        (503, "SECRET", 503, "the model is busy; try again in some seconds"),
        (504, "SECRET", 504, "the model took too long"),
        (500, "Traceback SECRET", 502, "the model failed"),
        # AWS's own toolkit: the line of JSON, then where in the container it came from
        (
            422,
            '{"error": "the picture is cut off"}\nTraceback (most recent call last):\n  SECRET',
            422,
            "the picture is cut off",
        ),
        (400, '{"error": "no"}\r\n{"error": "SECRET"}', 400, "no"),
        (400, '\n{"error": "SECRET"}', 400, "the model refused the picture"),
        (400, '{"error": "two\\nlines"}', 400, "two lines"),
        (400, '{"error": " "}', 400, "the model refused the picture"),
        (400, '{"error": "' + "x" * 500 + '"}', 400, "x" * 200),
        (422, "", 422, "the model refused the picture"),
    ],
)
def test_the_models_own_refusal_of_a_picture_is_passed_on_but_nothing_else_of_it(
    function: Function, original: int, answered: str, status: int, reason: str
) -> None:
    function.runtime.fail(
        424, "ModelError", OriginalStatusCode=original, OriginalMessage=answered, LogStreamArn="arn:SECRET"
    )
    assert function.refusal({"image": text(JPEG)}, status) == reason
    assert answered in function.lines[0]["detail"]
    assert len(function.runtime.received) == 1  # a failing model is not asked again


@pytest.mark.parametrize(
    "answer",
    [b"", b"SECRET", b"[]", b"{}", b'{"predictions": 1}', b'{"predictions": {"SECRET": 1}}', b"null", b"\xff"],
)
def test_an_unreadable_answer_is_a_bad_gateway(function: Function, answer: bytes) -> None:
    function.runtime.failure = lambda request: send(request, 200, answer)
    assert function.refusal({"image": text(JPEG)}, 502) == "the model's answer could not be read"


def test_an_answer_too_large_for_lambda_is_a_bad_gateway(function: Function) -> None:
    large = json.dumps({"predictions": [], "details": "x" * 6_000_000}).encode()
    function.runtime.failure = lambda request: send(request, 200, large)
    assert function.refusal({"image": text(JPEG)}, 502) == "the model's answer is too large"


def test_a_silent_endpoint_is_given_up_in_time(function: Function) -> None:
    function.runtime.failure = lambda request: time.sleep(2)
    started = time.monotonic()
    assert function.refusal({"image": text(JPEG)}, 504) == "the model took too long"
    assert time.monotonic() - started < 5
    assert len(function.runtime.received) == 2  # each attempt has its own second


def test_a_body_that_stops_half_way_is_given_up_in_time(function: Function) -> None:
    def half(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"predictions"')
        time.sleep(2)

    function.runtime.failure = half
    assert function.refusal({"image": text(JPEG)}, 504)


@pytest.mark.parametrize("dead", ["closes every connection", "is not there"])
def test_an_unreachable_endpoint_is_a_bad_gateway(
    function: Function, dead: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    def close(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True

    function.runtime.failure = close
    if dead == "is not there":
        function.module = load(tmp_path, environment | {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "http://127.0.0.1:9"})
    assert function.refusal({"image": text(JPEG)}, 502) == "the model could not be reached"


def test_one_connection_serves_many_calls_and_a_stale_one_is_replaced(function: Function) -> None:
    function({"image": text(JPEG)})
    before = function.runtime.connections
    for _ in range(5):
        assert function({"image": text(JPEG)})[0] == 200
    assert function.runtime.connections == before

    def close_once(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        function.runtime.failure = None

    function.runtime.failure = close_once
    assert function({"image": text(JPEG)})[0] == 200
    assert function.runtime.connections == before + 1


def test_a_fault_of_ours_shows_its_trace_in_the_log_only(function: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(url: str, **_: object) -> bytes:
        raise RuntimeError(url)

    monkeypatch.setattr(function.module, "fetch_url", broken)
    assert function.refusal({"url": "http://a.example/?token=SECRET"}, 500) == "something went wrong on our side"
    assert "in broken" in function.lines[0]["detail"] and function.lines[0]["level"] == "ERROR"
    assert "SECRET" not in function.log


# ------------------------------------------------------------------------------------------------ logs


def test_a_call_is_one_line_of_json_without_the_query_of_the_address(function: Function) -> None:
    function({"url": function.web.url("/private/dog.jpg") + "?token=SECRET"})
    (line,) = function.lines
    fields = {"level": "INFO", "requestId": "request-1", "status": 200, "host": "127.0.0.1", "bytes": len(JPEG)}
    assert fields.items() <= line.items()
    assert 0 < line["fetch_ms"] < line["ms"] and 0 < line["invoke_ms"] < line["ms"]
    assert line["timestamp"].endswith("Z")
    assert "SECRET" not in function.log and "private" not in function.log


# ------------------------------------------------------------------------------------------------ traces

ROOT_ID, PARENT = "1-581cf771-a006649127e371903a2de979", "70de5b6f19ff9a0b"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where X-Ray's daemon listens, for a call that is traced."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(2)
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={ROOT_ID};Parent={PARENT};Sampled=1;Lineage=1:a87bd80c:0")
        yield listening


def received(daemon: socket.socket) -> list[dict[str, Any]]:
    """The subsegments that have come."""
    daemon.settimeout(0.1)
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            head, _, document = daemon.recv(65536).partition(b"\n")
            assert json.loads(head) == {"format": "json", "version": 1}
            found.append(json.loads(document))
    return found


def test_a_traced_call_tells_how_long_its_parts_took(function: Function, daemon: socket.socket) -> None:
    before = time.time()
    assert function({"url": function.web.url("/private/dog.jpg") + "?token=SECRET"})[0] == 200
    segments = received(daemon)
    assert [s["name"] for s in segments] == ["fetch", "invoke"]
    for segment in segments:
        assert (segment["trace_id"], segment["parent_id"], segment["type"]) == (ROOT_ID, PARENT, "subsegment")
        assert re.fullmatch("[0-9a-f]{16}", segment["id"])
        assert before - 1 < segment["start_time"] < segment["end_time"] < time.time() + 1
        assert not (segment["error"] or segment["fault"] or segment["throttle"])
        took_ms = 1000 * (segment["end_time"] - segment["start_time"])
        assert took_ms == pytest.approx(function.lines[0][f"{segment['name']}_ms"], abs=1)
    assert segments[0]["id"] != segments[1]["id"]
    assert [s["annotations"] for s in segments] == [{"host": "127.0.0.1"}, {"endpoint": "dogbreed-test"}]
    assert "SECRET" not in json.dumps(segments) and "private" not in json.dumps(segments)
    assert function.lines[0]["traceId"] == ROOT_ID


@pytest.mark.parametrize(
    ("fail", "flags"),
    [
        ((400, "ThrottlingException"), {"error": True, "throttle": True, "fault": False}),
        ((500, "InternalFailure"), {"error": False, "throttle": False, "fault": True}),
    ],
)
def test_a_trace_shows_what_failed(
    function: Function, daemon: socket.socket, fail: tuple[int, str], flags: dict[str, bool]
) -> None:
    function.runtime.fail(*fail)
    function({"image": text(JPEG)})
    (segment,) = received(daemon)
    assert segment["name"] == "invoke" and flags.items() <= segment.items()
    function({"url": "http://10.0.0.1/"})
    (segment,) = received(daemon)
    assert segment["name"] == "fetch" and segment["error"] and segment["annotations"] == {"host": "10.0.0.1"}


@pytest.mark.parametrize(
    "trace",
    [
        f"Root={ROOT_ID};Parent={PARENT};Sampled=0", f"Root={ROOT_ID}", f"Root={ROOT_ID};Sampled=1", "", ";;=;Root",
        f"Root={ROOT_ID}x;Parent={PARENT};Sampled=1", f'Root={ROOT_ID};Parent="}}SECRET;Sampled=1', "Root=1;Sampled=1",
        f"Root={ROOT_ID};Parent={PARENT};Sampled=?",
    ],
)  # fmt: skip
def test_a_call_that_is_not_sampled_is_not_traced(
    function: Function, daemon: socket.socket, monkeypatch: pytest.MonkeyPatch, trace: str
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
    assert function({"image": text(JPEG)})[0] == 200
    assert received(daemon) == []
    assert function.lines[0].get("traceId") == (
        ROOT_ID if trace.startswith(f"Root={ROOT_ID}") and "x" not in trace else None
    )


@pytest.mark.parametrize(
    "address",
    [
        "", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", ":2000", "no-such-host.invalid:2000", "0.0.0.0:0",
        "127.0.0.1:9", "[::1]:9", "tcp:127.0.0.1:9",
    ],
)  # fmt: skip
def test_a_daemon_that_is_not_there_neither_fails_nor_delays_a_call(
    function: Function, daemon: socket.socket, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", address)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("looked a name up"))
    started = time.monotonic()
    xray = function.module.xray
    for _ in range(20):
        xray.send(xray.current(), "fetch", 1.0, 2.0, 200, host="a.invalid")
    assert time.monotonic() - started < 0.5
    assert received(daemon) == []


def test_the_daemon_may_be_named_with_both_protocols(
    function: Function, daemon: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"tcp:127.0.0.1:9 udp:127.0.0.1:{daemon.getsockname()[1]}")
    assert function({"image": text(JPEG)})[0] == 200
    assert [segment["name"] for segment in received(daemon)] == ["invoke"]


# ------------------------------------------------------------------------------------------------ weight


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak counts the process that started this one, too")
def test_it_is_light(tmp_path: Path, environment: dict[str, str], function: Function) -> None:
    """Nothing but the standard library and botocore is imported, and a call stays under the 77 MB of old."""
    load(tmp_path, environment)
    script = f"""
import sys, handler
answer = handler.handler({{"url": {function.web.url("/dog.jpg")!r}, "top_k": "all"}}, None)
assert answer["statusCode"] == 200, answer
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
top = {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)
print(int(peak.split()[1]) // 1024, *sorted(name for name in top if "_" not in name))
"""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | keys | {"ENDPOINT_NAME": "e", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    peak_mib, *modules = done.stdout.splitlines()[-1].split()
    assert int(peak_mib) < 70
    assert set(modules) <= {
        "handler",
        "webfetch",
        "xray",
        "botocore",
        "dateutil",
        "jmespath",
        "six",
        "urllib3",
        "certifi",
    }
