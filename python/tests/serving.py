"""A client for tests of the server: plain HTTP, with all that an answer has."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


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
