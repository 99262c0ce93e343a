"""The load test: open loop, the rate it finds, what it counts as failure, and each way it can go wrong."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image
from runs import dogbreed, one_line, start
from test_cli import call

from dogbreed.errors import DogbreedError
from dogbreed.sizing import command, loadtest
from dogbreed.sizing.loadtest import Settings, Step, judge_step, percentile, percentile_interval
from dogbreed.sizing.targets import OK, Endpoint, Function, Server

ANSWER = {"predictions": [{"breed": "Beagle", "class_index": 0, "probability": 0.9}], "rejected": False}
JPEG = b"\xff\xd8\xff\xe0 a picture"


class StandIn:
    """A server of known capacity: `workers` that sleep `service_s` per picture, and a queue; in a thread."""

    def __init__(self, service_s: float = 0.05, workers: int = 2, queue: int = 10_000) -> None:
        self.service_s, self.workers, self.queue = service_s, workers, queue
        self.status, self.body, self.loading = 200, json.dumps(ANSWER), 0  # for so many pings
        self.waiting = self.served = 0
        self.stall_at: int | None = None
        self.bodies: set[bytes] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    async def _run(self) -> None:
        self._free = asyncio.Semaphore(self.workers)
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/invocations", self._classify)
        app.router.add_get("/ping", self._ping)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        self._started.set()
        await self._end.wait()
        await runner.cleanup()

    async def _ping(self, request: web.Request) -> web.Response:
        self.loading -= 1
        if self.loading >= 0:
            return web.json_response({"error": "the model is loading"}, status=503)
        return web.json_response({"status": "ok"})

    async def _classify(self, request: web.Request) -> web.Response:
        self.bodies.add(await request.read())
        if self.waiting >= self.queue:
            return web.json_response({"error": "too many"}, status=429)
        self.waiting += 1
        async with self._free:
            self.waiting -= 1
            self.served += 1
            await asyncio.sleep(1.0 if self.served == self.stall_at else self.service_s)
        return web.Response(text=self.body, status=self.status, content_type="application/json")

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)


@pytest.fixture
def stand_in() -> Iterator[Callable[..., StandIn]]:
    made: list[StandIn] = []

    def make(**settings: Any) -> StandIn:
        made.append(StandIn(**settings))
        return made[-1]

    yield make
    for server in made:
        server.close()


def short(**changes: Any) -> Settings:
    """Steps of few requests, of which one stall would decide: so that it does not, the objective is long."""
    usual = {
        "step_s": 2, "min_requests": 1, "confirm_s": 0, "warm_up_s": 0, "arrivals": "constant", "timeout_s": 5,
        "objective_ms": 3000,
    }  # fmt: skip
    return Settings(**{**usual, **changes})


def hold(target: Any, rate: float, settings: Settings) -> Step:
    """One step, without a search around it."""

    async def held() -> Step:
        bench = loadtest._Bench(target, [JPEG], settings, asyncio.Event())
        await target.open(settings.timeout_s)
        try:
            return await bench.hold(rate, settings.step_s, "rise", lambda count, note: None)
        finally:
            await target.close()

    return asyncio.run(held())


def unused_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# ---- what is found ----


def test_the_rate_found_is_the_capacity_of_the_server(stand_in: Callable[..., StandIn]) -> None:
    """Two workers of 100 ms answer 20 a second; arrivals at even distances leave no queue below that.

    Above, a step of 6 s at 25 a second leaves a queue of 30, which takes the objective.
    """
    server = stand_in(service_s=0.1, workers=2)
    settings = short(start_rate=10, growth=1.8, objective_ms=1500, precision=0.4, step_s=4, confirm_s=6)
    found = loadtest.run(Server(server.url), [JPEG], settings)
    assert found.sustained is not None and 12 <= found.sustained <= 26
    assert found.confirmed and found.ended in ("objective", "generator")
    assert found.at_sustained is not None and found.at_sustained.phase == "confirm"
    assert {s.verdict for s in found.steps if s.offered < 11} == {"good"}
    assert found.steps[0].p50_ms is not None and found.steps[0].p50_ms >= 100
    service = found.service()
    assert service is not None and 12 <= service["capacity"] <= 26 and service["parallel"] in (1, 2, 3)


def test_refusals_are_failures(stand_in: Callable[..., StandIn]) -> None:
    server = stand_in(service_s=0.2, workers=1, queue=1)
    found = loadtest.run(
        Server(server.url), [JPEG], short(start_rate=30, objective_ms=4000, max_rate=30, precision=1, step_s=1)
    )
    first = found.steps[0]
    assert first.verdict == "bad" and first.errors["429"] > 10 and "429" in first.reason
    assert first.answered + sum(first.errors.values()) == first.sent
    assert found.sustained is not None and found.sustained < 8  # found on the way down


@pytest.mark.parametrize(
    "status, body, kind", [(500, "{}", "500"), (200, "<html>", "not an answer"), (200, "{}", "not an answer")]
)
def test_answers_are_checked(stand_in: Callable[..., StandIn], status: int, body: str, kind: str) -> None:
    server = stand_in(service_s=0)
    target = Server(server.url)

    async def ask() -> str:
        await target.open(5)
        try:
            await target.get_ready(JPEG, 5, lambda _: None)
            server.status, server.body = status, body
            return await target.send(JPEG)
        finally:
            await target.close()

    assert asyncio.run(ask()) == kind


def test_a_target_that_always_fails_sustains_nothing(stand_in: Callable[..., StandIn]) -> None:
    server = stand_in(service_s=0)

    class Failing(Server):
        async def get_ready(self, picture: bytes, limit_s: float, say: Callable[[str], None]) -> None:
            server.status = 500

    found = loadtest.run(Failing(server.url), [JPEG], short(start_rate=20, step_s=0.2))
    assert found.sustained is None and found.ended == "objective" and not found.confirmed
    assert command._verdict(found) == "No rate was sustained."
    assert min(s.offered for s in found.steps) < 0.5


def test_waiting_behind_a_stall_is_counted(stand_in: Callable[..., StandIn]) -> None:
    """One stall of a second delays the 40 that were due in it; who waits for each answer before sending sees one."""
    server = stand_in(service_s=0.001, workers=1)
    server.stall_at = 40
    step = hold(Server(server.url), 40, short(step_s=4, objective_ms=400))
    assert step.verdict != "good" and step.max_ms is not None and step.max_ms > 900
    assert step.p90_ms is not None and step.p90_ms > 300  # a tenth of all requests, not one


class Local:
    """A target without a network."""

    where, remote, workers = "nowhere", False, 4096

    def __init__(self, send: Callable[[], Any]) -> None:
        self._send = send

    async def open(self, timeout_s: float) -> None: ...

    async def close(self) -> None: ...

    async def get_ready(self, picture: bytes, limit_s: float, say: Callable[[str], None]) -> None: ...

    async def send(self, picture: bytes) -> str:
        result = self._send()
        if result is not None:
            await result
        return OK


def test_a_generator_that_cannot_keep_up_says_so() -> None:
    """Each request takes 20 ms of this process's own time: beyond 50 a second it is late itself."""
    found = loadtest.run(
        Local(lambda: time.sleep(0.02)), [JPEG], short(start_rate=10, growth=12, objective_ms=100, precision=2)
    )
    late = [s for s in found.steps if s.verdict == "generator"]
    assert late and "the load generator could not keep up" in late[0].reason and late[0].late_ms > 100
    assert found.sustained is not None and found.sustained < 60
    assert found.ended == "generator" and "The load generator could not send faster" in command._verdict(found)


def test_the_highest_rate_to_try_ends_the_search() -> None:
    found = loadtest.run(Local(lambda: asyncio.sleep(0.001)), [JPEG], short(start_rate=10, max_rate=30, step_s=0.5))
    assert found.sustained == 30 and found.ended == "max-rate" and "That is --max-rate" in command._verdict(found)


def test_requests_that_get_no_answer_time_out() -> None:
    async def never() -> None:
        await asyncio.sleep(60)

    step = hold(Local(never), 20, short(step_s=0.5, timeout_s=1, objective_ms=500))
    assert step.errors == {"timeout": 10} and step.verdict == "bad"


def test_a_hopeless_step_is_cut_short(stand_in: Callable[..., StandIn]) -> None:
    server = stand_in(service_s=0.05, workers=1)
    began = time.monotonic()
    step = hold(Server(server.url), 100, short(step_s=60, objective_ms=100))
    assert time.monotonic() - began < 50 and "cut short" in step.reason and step.seconds < 50
    assert step.throughput == pytest.approx(20, abs=10)


# ---- pieces ----


def test_arrivals_have_exactly_the_rate_and_are_repeatable() -> None:
    def due(kind: str, seed: int = 0) -> list[float]:
        bench = loadtest._Bench(Local(lambda: None), [JPEG], Settings(arrivals=kind, seed=seed), None)  # type: ignore[arg-type]
        return bench.due(50, 20)

    for kind in ("poisson", "constant"):
        assert len(due(kind)) == 1000 and due(kind) == sorted(due(kind)) == due(kind) and due(kind)[-1] < 20
    assert due("poisson", 1) != due("poisson", 2)
    gaps = np.diff(due("poisson"))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.15)


def test_percentiles_and_their_interval() -> None:
    values = [float(v) for v in range(1, 1001)]
    assert percentile(values, 0.99) == 990 and percentile(values, 0.5) == 500 and percentile([7.0], 0.99) == 7
    low, high = percentile_interval(values, 0.99)
    assert low < 990 and high is not None and high > 990
    assert percentile_interval(values[:367], 0.99)[1] is None and percentile_interval(values[:368], 0.99)[1] is not None
    rng = np.random.default_rng(0)
    true = -np.log(0.01)
    covered = 0
    for _ in range(400):
        low, high = percentile_interval(sorted(rng.exponential(1, 1000).tolist()), 0.99)
        covered += low <= true <= (high or np.inf)
    assert covered / 400 >= 0.93


def step(**changes: Any) -> Step:
    usual: dict[str, Any] = {
        "phase": "rise", "offered": 50, "seconds": 20, "sent": 1000, "answered": 1000, "errors": {}, "achieved": 50,
        "throughput": 50, "mean_ms": 30, "p50_ms": 25, "p90_ms": 40, "p99_ms": 80, "p99_low": 70, "p99_high": 90,
        "max_ms": 120, "late_ms": 1, "verdict": "", "reason": "",
    }  # fmt: skip
    return Step(**{**usual, **changes})


@pytest.mark.parametrize(
    "changes, verdict",
    [
        ({}, "good"),
        ({"errors": {"503": 1}}, "good"),
        ({"errors": {"503": 2}}, "bad"),
        ({"p99_ms": 201}, "bad"),
        ({"p99_ms": None, "answered": 0, "errors": {"connection": 1000}}, "bad"),
        ({"achieved": 48.9}, "bad"),
        ({"late_ms": 50}, "good"),  # late, and good all the same
        ({"late_ms": 50, "p99_ms": 300}, "generator"),
        ({"errors": {"no free connection": 30}}, "generator"),
    ],
)
def test_verdicts(changes: dict[str, Any], verdict: str) -> None:
    assert judge_step(step(**changes), Settings(objective_ms=200))[0] == verdict


def test_no_picture_is_sent_twice(stand_in: Callable[..., StandIn]) -> None:
    drawn = loadtest.draw_pictures(5)
    sizes = {Image.open(io.BytesIO(p)).size for p in drawn}
    assert len(sizes) == 5
    endless = loadtest.unlike(drawn)
    sent = [next(endless) for _ in range(50)]
    assert len(set(sent)) == 50
    np.testing.assert_array_equal(*(np.asarray(Image.open(io.BytesIO(p))) for p in (drawn[0], sent[0])))
    server = stand_in(service_s=0)
    loadtest.run(Server(server.url), drawn, short(start_rate=20, max_rate=20, step_s=1))
    assert len(server.bodies) >= 20


def test_pictures_come_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.jpg", "deep/b.PNG", "deep/c.webp", "notes.txt", "empty.jpeg"):
        (tmp_path / name).write_bytes(b"" if "empty" in name else name.encode())
    assert loadtest.read_pictures([tmp_path]) == [b"a.jpg", b"deep/b.PNG", b"deep/c.webp"]
    assert loadtest.read_pictures([tmp_path / "deep" / "c.webp"]) == [b"deep/c.webp"]
    for k in range(600):
        (tmp_path / f"x{k:03}.jpg").write_bytes(b"%d" % k)
    assert len(loadtest.read_pictures([tmp_path])) <= loadtest.MOST_PICTURES
    with pytest.raises(DogbreedError, match="There is no picture in"):
        loadtest.read_pictures([(tmp_path / "none").mkdir() or tmp_path / "none"])
    with pytest.raises(DogbreedError, match="There is no "):
        loadtest.read_pictures([tmp_path / "nowhere"])


def test_a_result_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = loadtest.run(
        Local(lambda: asyncio.sleep(0.01)), [JPEG], short(start_rate=20, max_rate=20, step_s=1), instances=2
    )
    loadtest.save(found, tmp_path / "loadtest.json")
    again = loadtest.load(tmp_path)
    assert asdict(again) == asdict(found) and again.sustained_per_instance == 10
    (tmp_path / "loadtest.json").write_text('{"format": 99}')
    with pytest.raises(DogbreedError, match="is not a load test of this version"):
        loadtest.load(tmp_path)


# ---- the command ----


FAST = (
    "--step", "1", "--min-requests", "1", "--confirm", "0", "--warm-up", "0", "--arrivals", "constant",
    "--objective", "3000",
)  # fmt: skip


def test_the_command_prints_what_terraform_needs(stand_in: Callable[..., StandIn], tmp_path: Path) -> None:
    server = stand_in(service_s=0.01, workers=4)
    picture = tmp_path / "dog.jpg"
    Image.new("RGB", (64, 64), "tan").save(picture)
    done = dogbreed(
        "loadtest", server.url, *FAST, "--start-rate", "10", "--max-rate", "10", "--expected-rate", "25",
        "--pictures", picture, "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Sustained: 10.0 requests/s" in done.stdout and "That is --max-rate" in done.stdout
    assert "invocations_per_instance = 300" in done.stdout and "max_instances            = 6" in done.stdout
    assert "provisioned_concurrency" in done.stdout
    found = json.loads((tmp_path / "out" / "loadtest.json").read_text())
    assert found["sustained"] == 10 and found["pictures"]["count"] == 1
    assert (tmp_path / "out" / "loadtest.png").read_bytes().startswith(b"\x89PNG")
    simulated = dogbreed("simulate-scaling", "--measured", tmp_path / "out", "--hours", "1", cwd=tmp_path)
    assert simulated.returncode == 0, simulated.stderr
    policy = json.loads((tmp_path / "runs/scaling/scaling.json").read_text())["policies"][0]["policy"]
    assert policy["target"] == 300


def test_ctrl_c_keeps_what_was_measured(stand_in: Callable[..., StandIn], tmp_path: Path) -> None:
    server = stand_in(service_s=0.005, workers=8)
    process = start(
        "-m", "dogbreed", "loadtest", server.url, "--step", "1", "--min-requests", "1", "--warm-up", "0",
        "--start-rate", "10", "--max-rate", "20", "--confirm", "300", "--objective", "3000", "--out", tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while "good" not in (line := process.stdout.readline()):
            assert line or process.poll() is None, process.communicate()
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert time.monotonic() - began < 15 and "Traceback" not in err
    assert "Stopped before its end" in out and "endpoint = {" in out
    found = loadtest.load(tmp_path)
    assert found.ended == "stopped" and found.sustained is not None and found.steps[-1].verdict == "stopped"


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `dogbreed loadtest` says in one line before it ends with 1; in this process, which is faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loadtest, "draw_pictures", lambda: [JPEG])  # drawing some takes seconds
        code, _, said = call(capsys, "loadtest", *arguments)
    assert code == 1
    return one_line(said)


def test_nothing_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = mistake(capsys, f"http://127.0.0.1:{unused_port()}", "--out", tmp_path)
    assert said.startswith("Nothing answers at http://127.0.0.1:") and "dogbreed serve" in said


def test_a_server_that_is_starting_is_waited_for(
    stand_in: Callable[..., StandIn], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = stand_in(service_s=0)
    server.loading = 3
    done = dogbreed("loadtest", server.url, *FAST, "--start-rate", "5", "--max-rate", "5", "--out", tmp_path)
    assert done.returncode == 0 and "is starting; waiting for it" in done.stderr, done.stderr
    server.loading = 10**6
    assert "is not ready after 0.5 s (the model is loading)" in mistake(
        capsys, server.url, "--wait", "0.5", "--out", tmp_path
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("ftp://example.com",), "ftp://example.com is no address of a server"),
        (("http://127.0.0.1:1", "--endpoint", "e"), "More than one target is given"),
        (("--objective", "5000", "--timeout", "2"), "--timeout is within the objective"),
        (("--start-rate", "50", "--max-rate", "10"), "--start-rate 50 is above --max-rate 10"),
        (("--arrivals", "bursts"), "--arrivals is 'bursts'. Choose poisson or constant."),
        (("--instance-type", "ml.z9.large"), "There is no price of ml.z9.large here"),
        (("--pictures", "nowhere"), "There is no nowhere. Give pictures"),
        (("--endpoint", "e"), "Nobody can be asked here whether to load AWS, so nothing was sent. Add --yes."),
        (("https://x.lambda-url.us-east-1.on.aws",), "Nobody can be asked here whether to load AWS"),
    ],
)
def test_mistakes_are_answered_with_one_line(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal, whoever runs the tests
    assert mistake(capsys, *arguments).startswith(message)


def test_a_mistake_is_answered_so_by_the_real_command_too(tmp_path: Path) -> None:
    done = dogbreed("loadtest", "--start-rate", "50", "--max-rate", "10", cwd=tmp_path)
    assert done.returncode == 1 and one_line(done.stderr).startswith("--start-rate 50 is above --max-rate 10")


def test_a_server_that_is_something_else(
    stand_in: Callable[..., StandIn], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = stand_in(service_s=0)
    server.status, server.body = 404, '{"error": "there is nothing here"}'
    assert "answered 404: there is nothing here" in mistake(capsys, server.url, "--out", tmp_path)


# ---- AWS ----


class Aws:
    """SageMaker's and Lambda's own protocols on a local port; `reply` decides on (status, headers, body)."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.reply: Callable[[str, bytes], tuple[int, dict[str, str], bytes]] = self.well
        aws = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                aws.requests.append((self.path, body))
                status, headers, answer = aws.reply(self.path, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def well(path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        answer = json.dumps(ANSWER).encode()
        if "/functions/" in path:
            base64.b64decode(json.loads(body)["image"], validate=True)
            answer = json.dumps({"statusCode": 200, "headers": {}, "body": answer.decode()}).encode()
        return 200, {"Content-Type": "application/json"}, answer


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Aws]:
    standing = Aws()
    environment = {
        "AWS_ENDPOINT_URL": standing.url, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield standing
    standing.server.shutdown()
    standing.server.server_close()


def failure(status: int, code: str, message: str = "no", **more: Any) -> tuple[int, dict[str, str], bytes]:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    return status, headers, json.dumps({"Message": message, "message": message, **more}).encode()


@pytest.mark.parametrize(
    "target", [lambda: Endpoint("dogs", 8), lambda: Function("dogs:live", 8)], ids=["endpoint", "function"]
)
def test_endpoints_and_functions_are_loaded(aws: Aws, target: Callable[[], Any]) -> None:
    found = loadtest.run(target(), [JPEG], short(start_rate=20, max_rate=20, step_s=1))
    assert found.sustained == 20, found.steps
    path, body = aws.requests[-1]
    if "functions" in path:
        assert path == "/2015-03-31/functions/dogs/invocations?Qualifier=live"
    else:
        assert path == "/endpoints/dogs/invocations" and body.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    "target, answer, kind",
    [
        (Endpoint("dogs"), failure(400, "ThrottlingException"), "429"),
        (Endpoint("dogs"), failure(424, "ModelError", OriginalStatusCode=503, OriginalMessage="busy"), "model 503"),
        (Endpoint("dogs"), failure(500, "InternalFailure"), "500"),
        (Endpoint("dogs"), (200, {}, b"<html>"), "not an answer"),
        (Function("dogs"), failure(429, "TooManyRequestsException"), "429"),
        (Function("dogs"), (200, {"X-Amz-Function-Error": "Unhandled"}, b'{"errorMessage": "x"}'), "function error"),
        (Function("dogs"), (200, {}, b'{"statusCode": 503, "body": "{}"}'), "503"),
        (Function("dogs"), (200, {}, b"null"), "not an answer"),
    ],
)
def test_failures_of_aws_are_told_apart(aws: Aws, target: Any, answer: Any, kind: str) -> None:
    aws.reply = lambda path, body: answer

    async def ask() -> str:
        await target.open(5)
        try:
            return str(await target.send(JPEG))
        finally:
            await target.close()

    assert asyncio.run(ask()) == kind
    assert len(aws.requests) == 1  # no repeats behind our back


def test_a_throttled_endpoint_is_a_bad_step(aws: Aws) -> None:
    count = iter(range(10**6))
    aws.reply = lambda path, body: failure(400, "ThrottlingException") if next(count) % 3 == 2 else aws.well(path, body)
    found = loadtest.run(Endpoint("dogs", 8), [JPEG], short(start_rate=20, max_rate=20, step_s=1, precision=9))
    assert found.steps[0].verdict == "bad" and found.steps[0].errors["429"] >= 5


@pytest.mark.parametrize(
    "arguments, answer, message",
    [
        (
            ("--endpoint", "dgos"), failure(400, "ValidationError", "Endpoint dgos of account 1 not found."),
            "There is no endpoint dgos here",
        ),
        (
            ("--function", "dgos"), failure(404, "ResourceNotFoundException", "Function not found: dgos"),
            "There is no function dgos here",
        ),
        (
            ("--function", "dogs"), failure(403, "AccessDeniedException", "not you"),
            "AWS refuses the call (AccessDeniedException: not you)",
        ),
        (
            ("--endpoint", "dogs"), failure(424, "ModelError", OriginalStatusCode=400),
            "endpoint dogs answers the first picture with model 400",
        ),
    ],
)  # fmt: skip
def test_what_has_to_be_mended_first_on_aws(
    aws: Aws, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], answer: Any, message: str
) -> None:
    aws.reply = lambda path, body: answer
    assert mistake(capsys, *arguments, "--wait", "0", "--out", tmp_path).startswith(message)


def test_without_credentials_or_region(
    aws: Aws, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--endpoint", "dogs", "--yes", "--out", tmp_path)
    with monkeypatch.context() as nobody:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            nobody.setenv(name, "")
        assert mistake(capsys, *arguments).startswith("There are no AWS credentials here")
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")
    assert mistake(capsys, *arguments).startswith("No AWS region is set")
    assert aws.requests == []


def test_only_what_costs_money_is_asked_about(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Endpoint("dogs").remote and not Server("http://127.0.0.1:8080").remote
    assert not Server("http://192.0.2.7:8080").remote
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert Endpoint("dogs").remote and Function("dogs").remote
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", "http://localhost:1")
    assert not Function("dogs").remote and Endpoint("dogs").remote
    assert os.environ["AWS_REGION"] == "us-east-1"
    with pytest.raises(DogbreedError, match="Add --yes"):
        command.ask_about_cost(Endpoint("dogs"), Settings(), False)
    command.ask_about_cost(Endpoint("dogs"), Settings(), True)
