"""The server under callers that hold on for ever or come by the thousand, and with processes that are killed.

It lets go of them in time, refuses what is too much, and ordinary pictures are answered afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from photographs import CLASSES
from PIL import Image
from serving import (
    GET,
    PING,
    POST,
    Load,
    answers,
    ask,
    connect,
    kill_group,
    post,
    problems,
    read_answer,
    runs,
    wait_until,
    workers_of,
)

from dogbreed import inference, protocol, serve
from dogbreed.server_process import running
from dogbreed.train import Trained
from dogbreed.webfetch import fetch_url

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def jpeg(photos: Path) -> bytes:
    return sorted((photos / "test" / CLASSES[1]).iterdir())[0].read_bytes()


# ------------------------------------------------------------------------------------------------ callers that hold on


@dataclass
class Here:
    """A server in this process, whose limits are those that the test has set."""

    address: str
    app: Any
    uvicorn: uvicorn.Server


@pytest.fixture
def start(trained: Trained, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Here]]:
    started: list[tuple[uvicorn.Server, threading.Thread, socket.socket]] = []

    def start(allowed: tuple[str, ...] = (), **limits: float) -> Here:
        for name, value in limits.items():
            modules = [module for module in (protocol, serve) if hasattr(module, name)]
            assert modules
            for module in modules:
                monkeypatch.setattr(module, name, value)
        app = serve.create_app(trained.folder, allowed=allowed)
        listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        config = uvicorn.Config(
            app, http=protocol.Protocol, ws="none", log_config=None, access_log=False, server_header=False,
            timeout_keep_alive=protocol.KEEP_ALIVE_S, h11_max_incomplete_event_size=protocol.MAX_HEADERS_BYTES,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        started.append((server, thread, listening))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        deadline = time.monotonic() + 30
        while not ((answer := ask(address, PING)) and answer.status == 200):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return Here(address, app, server)

    yield start
    for server, thread, listening in started:
        server.should_exit = True
        thread.join(30)
        listening.close()
        assert not thread.is_alive()


def closed_after(connection: socket.socket, dripping: bytes = b"", timeout_s: float = 10) -> float:
    """Seconds until the server ends a connection, on which a byte is sent every so often."""
    started = time.monotonic()
    connection.settimeout(0.1)
    while time.monotonic() - started < timeout_s:
        try:
            if dripping:
                connection.sendall(dripping)
            if not connection.recv(65536):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    else:
        raise AssertionError("it was not ended")
    return time.monotonic() - started


def test_headers_that_never_end_are_cut_off(start: Callable[..., Here], jpeg: bytes) -> None:
    here = start(HEADERS_TIMEOUT_S=1.0)
    started = time.monotonic()
    with connect(here.address) as silent, connect(here.address) as slow, connect(here.address) as later:
        slow.sendall(GET)
        later.sendall(GET + b"\r\n")
        assert read_answer(later)
        later.sendall(b"GET /pi")
        closed_after(slow, b"a")
        assert time.monotonic() - started > 0.9
        closed_after(silent)
        closed_after(later, b"a")
        answer = ask(here.address, post(jpeg))
        assert answer and answer.status == 200


def test_a_connection_that_has_been_answered_may_stay_idle(start: Callable[..., Here]) -> None:
    here = start(HEADERS_TIMEOUT_S=1.5, BODY_TIMEOUT_S=1.5)
    requests = (GET + b"\r\n", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    with connect(here.address) as one, connect(here.address) as other:
        for connection, request in zip((one, other), requests, strict=True):
            connection.sendall(request[:-1])
            time.sleep(0.1)
            connection.sendall(request[-1:])
            assert read_answer(connection)
        time.sleep(2)
        for connection in (one, other):
            connection.sendall(GET + b"\r\n")
            answer = read_answer(connection)
            assert answer and answer.status == 200


def test_a_body_that_never_ends_is_answered_408(start: Callable[..., Here]) -> None:
    here = start(BODY_TIMEOUT_S=0.7)
    with connect(here.address) as connection:
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\nabc")
        answer = read_answer(connection)
        assert answer and answer.status == 408 and answer.headers["connection"] == "close"
        answer.check()
        closed_after(connection, b"a")
    assert here.app.state.service.in_hand == here.app.state.service.body_bytes == 0


def test_the_rest_of_a_body_that_is_answered_already_is_not_waited_for(start: Callable[..., Here]) -> None:
    here = start(BODY_TIMEOUT_S=0.7)
    for head in (
        b"GET /ping HTTP/1.1\r\nHost: a\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: a\r\n",
        b"PUT /invocations HTTP/1.1\r\nHost: a\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nAccept: text/csv\r\n",
    ):
        with connect(here.address) as connection:
            connection.sendall(head + b"Content-Length: 1000000\r\n\r\n")
            assert read_answer(connection), head
            closed_after(connection, b"a")


def test_a_caller_who_does_not_read_is_not_waited_for(start: Callable[..., Here]) -> None:
    here = start(WRITE_TIMEOUT_S=0.7)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    where = urlsplit(here.address)
    connection.connect((where.hostname, where.port))
    connection.settimeout(0.5)
    deadline = time.monotonic() + 30
    with pytest.raises(ConnectionError):  # of the server's, which gives up
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    connection.close()


def test_connections_beyond_the_limit_are_refused_at_once_and_then_it_recovers(
    start: Callable[..., Here], jpeg: bytes
) -> None:
    here = start(MAX_CONNECTIONS=20)
    idle = [connect(here.address) for _ in range(20)]
    for connection in idle:  # each is known to the server before the next ones come
        connection.sendall(GET + b"\r\n")
        assert read_answer(connection)
    with connect(here.address) as one_more:
        answer = read_answer(one_more)
        assert answer and answer.status == 503 and "too many connections" in answer.body.decode()
        answer.check()
    for connection in idle:
        connection.close()
    wait_until(lambda: answers(here.address, post(jpeg)))


def test_hosts_that_never_answer_do_not_keep_pictures_waiting(
    start: Callable[..., Here], jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "fetch_url", partial(fetch_url, timeout_s=8.0))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        here = start(allowed=(host,))
        request = post(json.dumps({"url": f"http://{host}/"}).encode(), "application/json")
        waiting = [connect(here.address) for _ in range(serve.FETCHES)]
        for connection in waiting:
            connection.sendall(request)
        wait_until(lambda: here.app.state.service.fetches >= serve.FETCHES)
        one_more = ask(here.address, request)
        assert one_more and one_more.status == 429
        one_more.check()
        assert answers(here.address, post(jpeg))
        assert here.app.state.service.fetches >= serve.FETCHES, "none of them has ended meanwhile"
        for connection in waiting:
            answer = read_answer(connection)
            assert answer and answer.status == 422 and "took too long" in answer.body.decode()
            connection.close()
    assert here.app.state.service.fetches == here.app.state.service.in_hand == 0


@pytest.mark.slow
def test_two_thousand_idle_connections_are_survived(trained: Trained, jpeg: bytes) -> None:
    """With the number of open files that a shell gives."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this machine lets no process open enough files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with running(trained.folder) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
            idle = [connect(server.address) for _ in range(2000)]
            refused = ask(server.address, PING)
            assert refused is None or refused.status == 503
            for connection in idle:
                connection.close()
            wait_until(lambda: answers(server.address, post(jpeg)))
            assert problems(server) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ------------------------------------------------------------------------------------------------ processes


def test_workers_end_with_a_supervisor_that_is_killed(trained: Trained) -> None:
    with running(trained.folder, "--workers", "2") as server:
        workers = workers_of(server.process.pid)
        assert len(workers) == 2
        numbers = metrics_folder(workers[0])
        server.process.kill()
        wait_until(lambda: not any(runs(pid) for pid in workers), 10)
        assert not numbers.exists()


@pytest.mark.slow
def test_a_worker_that_stands_still_is_replaced_and_stopping_does_not_wait_for_it(
    trained: Trained, jpeg: bytes
) -> None:
    with running(trained.folder) as goes_on, running(trained.folder) as stops:
        replaced, ended = (workers_of(server.process.pid)[0] for server in (goes_on, stops))
        os.kill(replaced, signal.SIGSTOP)
        os.kill(ended, signal.SIGSTOP)
        started = time.monotonic()
        stops.process.terminate()
        stops.process.wait(60)
        assert not runs(ended) and time.monotonic() - started < 30
        wait_until(lambda: not runs(replaced))
        wait_until(lambda: answers(goes_on.address, post(jpeg)))
        assert problems(goes_on, killed=1) == []


@pytest.mark.slow
def test_stopping_ends_in_time_whatever_callers_hold_open(trained: Trained) -> None:
    """Two servers at once, of which one is told twice."""
    with running(trained.folder) as once, running(trained.folder) as twice:
        servers = (once, twice)
        held = [hold_open(server.address) for server in servers]
        started = time.monotonic()
        for server in servers:
            server.process.terminate()
        time.sleep(0.5)
        twice.process.terminate()
        for server, (stalled, *others) in zip(servers, held, strict=True):
            assert server.process.wait(30) == 0
            assert time.monotonic() - started < 30
            answer = read_answer(stalled)
            assert answer and answer.status == 408
            for connection in (stalled, *others):
                connection.close()
            assert problems(server) == []


def hold_open(address: str) -> list[socket.socket]:
    """Connections with half a body, half a head, nothing, and answers that nobody reads."""
    stalled, partial, idle = (connect(address) for _ in range(3))
    stalled.sendall(POST + b"Content-Length: 1000\r\n\r\nabc")
    partial.sendall(GET)
    unread = socket.socket()
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    unread.connect(stalled.getpeername())
    unread.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            unread.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    return [stalled, partial, idle, unread]


@pytest.mark.slow
def test_stopping_while_it_starts_leaves_nothing_behind(trained: Trained, tmp_path: Path) -> None:
    for number, delay_s in enumerate((0.1, 0.6, 1.0, 1.4, 1.8)):
        log = tmp_path / f"{number}.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "dogbreed", "serve", str(trained.folder), "--port", "0"],
                stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            time.sleep(delay_s)
            workers = workers_of(process.pid)
            process.terminate()
            process.wait(30)
            wait_until(lambda workers=workers: not any(runs(pid) for pid in workers), 10)  # type: ignore[misc]
        finally:
            kill_group(process)
        assert "Traceback" not in log.read_text() and "ERROR" not in log.read_text()


def metrics_folder(worker: int) -> Path:
    for environment in Path(f"/proc/{worker}/environ").read_bytes().split(b"\0"):
        name, _, value = environment.partition(b"=")
        if name == b"PROMETHEUS_MULTIPROC_DIR":
            return Path(value.decode())
    raise AssertionError("it has no folder for metrics")


def test_it_goes_on_without_the_folder_of_its_metrics_and_with_workers_that_are_killed_while_they_start(
    trained: Trained, jpeg: bytes
) -> None:
    """Programs that clean temporary folders take the first."""
    with running(trained.folder) as server:
        (worker,) = workers_of(server.process.pid)
        shutil.rmtree(metrics_folder(worker))
        assert answers(server.address, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answers(server.address, post(jpeg))
        for _ in range(3):
            (worker,) = workers_of(server.process.pid)
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda worker=worker: bool(set(workers_of(server.process.pid)) - {worker}))  # type: ignore[misc]
        wait_until(lambda: answers(server.address, post(jpeg)))
        assert problems(server, killed=3) == []
        folder = metrics_folder(workers_of(server.process.pid)[0])
    assert not folder.exists(), "it tidies up"


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no folder in memory")
def test_a_full_disk_does_not_stop_it(
    trained: Trained, jpeg: bytes, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "full").write_bytes(bytes(2**20))
    with (small_disk / "full").open("r+b") as file:
        file.truncate(2**20 - 12_288)  # room for the names of files, not for what is in them
    monkeypatch.setenv("TMPDIR", str(small_disk))
    process = subprocess.Popen(
        [sys.executable, "-m", "dogbreed", "serve", str(trained.folder), "--port", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr
        address = process.stderr.readline().split()[3].rstrip("/")
        wait_until(lambda: answers(address, PING))
        (worker,) = workers_of(process.pid)
        for request in (post(jpeg), b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"):
            assert answers(address, request)
        assert workers_of(process.pid) == [worker]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_it_serves_ipv6(trained: Trained, jpeg: bytes) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with running(trained.folder, "--host", "::1") as server:
        assert server.address.startswith("http://[::1]:") and answers(server.address, post(jpeg))


def test_overload_by_pictures_that_take_long_is_shed_and_then_it_recovers(trained: Trained, jpeg: bytes) -> None:
    bomb = io.BytesIO()
    Image.new("RGB", (3000, 2600)).save(bomb, "PNG")
    with running(trained.folder, "--queue", "6") as server:
        (worker,) = workers_of(server.process.pid)
        with (
            Load(server.address, post(bomb.getvalue()), 12) as load,
            Load(server.address, PING, 1, pause_s=0.02) as pings,
        ):
            wait_until(lambda: load.statuses[200] > 10 and load.statuses[429] > 10)
        assert set(load.statuses) == {200, 429} and set(pings.statuses) == {200} and max(pings.seconds) < 2
        assert [answers(server.address, post(jpeg)) for _ in range(10)] == [True] * 10
        assert workers_of(server.process.pid) == [worker] and problems(server) == []
