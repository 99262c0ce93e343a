"""For tests of the server: a client of plain HTTP, requests in bytes, load, and what its processes and its log tell."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dogbreed.server_process import Running

STATUSES = {200, 304, 400, 404, 405, 406, 408, 413, 415, 422, 429, 503}
"""All that is documented: never 500."""

LEAKS = ("Traceback", 'File "', "site-packages", "/proc/", "root:", "ProgramFiles", "Error(")

GET = b"GET /ping HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n"
PING = GET + b"Connection: close\r\n\r\n"


@dataclass(frozen=True)
class Reply:
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


class Client:
    """One connection, kept open."""

    def __init__(self, address: str, timeout_s: float = 60) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout_s)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, names, response.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=headers)

    def classify(self, body: bytes | dict[str, Any], kind: str = "image/jpeg", **headers: str) -> Reply:
        if isinstance(body, dict):
            body, kind = json.dumps(body).encode(), "application/json"
        return self.ask("POST", "/invocations", body, {"Content-Type": kind, **headers})

    def close(self) -> None:
        self._connection.close()


# ------------------------------------------------------------------------------------------------ in bytes


def connect(address: str, timeout_s: float = 20) -> socket.socket:
    where = urlsplit(address)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=timeout_s)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def check(self) -> None:
        """It is documented, and tells nothing of the inside."""
        shown = f"{self.status} {self.headers} {self.body[:300]!r}"
        assert self.status in STATUSES, shown
        text = self.body.decode()
        assert not [leak for leak in LEAKS if leak in text], shown
        if self.status in (200, 304) or not text:  # only the answer to HEAD has no text
            return
        value = json.loads(text)
        assert list(value) == ["error"] and "\n" not in value["error"] and 0 < len(value["error"]) < 400, shown
        assert self.headers["content-type"] == "application/json", shown
        if self.status in (429, 503):
            assert self.headers["retry-after"], shown


def has_answer(connection: socket.socket, wait_s: float) -> bool:
    poll = select.poll()  # select() has no place for files beyond the 1,024th
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(wait_s * 1e3))


def read_answer(connection: socket.socket, method: str = "POST") -> Answer | None:
    """The next answer on a connection; None if it was closed without one."""
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        body = response.read()
    except (http.client.BadStatusLine, ConnectionError):
        return None
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def ask(address: str, data: bytes, *, wait_s: float = 10) -> Answer | None:
    """Sends bytes on a connection of their own; None where no answer came within wait_s."""
    with connect(address) as connection:
        with contextlib.suppress(ConnectionError):  # what is refused is not read to its end
            connection.sendall(data)
        if not has_answer(connection, wait_s):
            return None
        return read_answer(connection, data.split(b" ")[0].decode("latin-1"))


def post(body: bytes, kind: str = "image/jpeg", **headers: str) -> bytes:
    """A request in bytes."""
    given = {"Host": "a", "Content-Type": kind, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST /invocations HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


@dataclass
class Load:
    """The same request again and again on some connections."""

    address: str
    request: bytes
    callers: int
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int | None] = field(default_factory=Counter)
    pause_s: float = 0.0

    def __enter__(self) -> Load:
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._go) for _ in range(self.callers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _go(self) -> None:
        while not self._ends.wait(self.pause_s):
            started = time.monotonic()
            answer = ask(self.address, self.request, wait_s=60)
            self.seconds.append(time.monotonic() - started)
            self.statuses[answer.status if answer else None] += 1


# ------------------------------------------------------------------------------------------------ processes and logs


def workers_of(pid: int) -> list[int]:
    """The processes that answer, of the server whose supervisor this is."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except (OSError, IndexError, ValueError):  # it has just ended
            continue
        if parent == pid and b"spawn_main" in command:
            found.append(int(status.parent.name))
    return found


def memory_mib(pid: int) -> float:
    """What a process alone holds of the memory, its share of what it shares included (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel does not say")


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def answers(address: str, request: bytes) -> bool:
    try:
        answer = ask(address, request)
    except OSError:
        return False
    return answer is not None and answer.status == 200


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Leaves nothing of a process that was started with `start_new_session`."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def problems(server: Running, *, killed: int = 0) -> list[str]:
    """The lines of the log that should not be there: those of mistakes of ours, and those that are no JSON.

    Args:
        killed: how many workers the test has killed; each makes a line, and has to.
    """
    lines = [line for line in server.log().splitlines() if line and not line.startswith("Serving ")]
    deaths = [line for line in lines if '"a worker died and was replaced"' in line]
    bad = [] if len(deaths) == killed else [f"{len(deaths)} workers died"]
    for line in lines:
        if line in deaths and json.loads(line)["level"] == "ERROR":
            continue
        try:
            fine = json.loads(line)["level"] in ("DEBUG", "INFO", "WARNING") and "Traceback" not in line
        except ValueError:
            fine = False
        if not fine:
            bad.append(line[:500])
    return bad
