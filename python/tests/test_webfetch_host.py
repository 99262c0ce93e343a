"""What a web server is told of itself, and that no connection outlives the fetch that opened it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from dogbreed import webfetch
from dogbreed.webfetch import Refused, fetch_url

CONNECT = socket.create_connection


class NoTls:
    """Leaves the bytes as they are, to read what is sent inside TLS."""

    def wrap_socket(self, sock: socket.socket, **_: object) -> socket.socket:
        timeout_s = sock.gettimeout()
        safe = Handshaken(fileno=sock.detach())
        safe.settimeout(timeout_s)
        return safe


class Handshaken(socket.socket):
    def do_handshake(self) -> None: ...


class Site:
    """The web server behind every address, which keeps what it is sent, and its callers' ends of the connections."""

    def __init__(self) -> None:
        self.requests: list[list[bytes]] = []
        self.callers: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def connect(self, address: tuple[str, int], *, timeout: float) -> socket.socket:
        self.callers.append(CONNECT(self._listening.getsockname(), timeout=timeout))
        return self.callers[-1]

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self._listening.accept()[0] as sock, contextlib.suppress(ConnectionError):
                    if request := sock.recv(65536):
                        self.requests.append(request.split(b"\r\n"))
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ndog")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    started = Site()
    monkeypatch.setattr(socket, "create_connection", started.connect)
    monkeypatch.setattr(webfetch, "_resolve", lambda host, port, deadline: ["93.184.216.34"])
    monkeypatch.setattr(webfetch, "_tls", NoTls)
    yield started
    started.close()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("http://dogs.example", b"dogs.example"),
        ("https://dogs.example", b"dogs.example"),
        ("http://dogs.example:80", b"dogs.example"),
        ("https://dogs.example:443", b"dogs.example"),
        ("http://dogs.example:443", b"dogs.example:443"),
        ("https://dogs.example:80", b"dogs.example:80"),
        ("https://dogs.example:8443", b"dogs.example:8443"),
        ("https://[2606:4700:4700::1111]", b"[2606:4700:4700::1111]"),
    ],
)
def test_the_host_is_named_as_browsers_and_signatures_name_it(address: str, host: bytes, site: Site) -> None:
    assert fetch_url(f"{address}/dog.jpg?X-Amz-Signature=0a") == b"dog"
    (lines,) = site.requests
    assert lines[0] == b"GET /dog.jpg?X-Amz-Signature=0a HTTP/1.1"
    assert [line for line in lines if line.lower().startswith(b"host:")] == [b"Host: " + host]


def test_time_that_runs_out_on_connecting_leaves_no_socket(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    left = webfetch._left
    monkeypatch.setattr(webfetch, "_left", lambda deadline: left(deadline - 60 if site.callers else deadline))
    with pytest.raises(Refused, match="took too long"):
        fetch_url("http://dogs.example/")
    assert [sock.fileno() for sock in site.callers] == [-1]


@pytest.mark.parametrize("address", ["http://dogs.example/", "https://dogs.example/"])
def test_a_machine_without_threads_refuses_and_leaves_no_socket(
    address: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Refused, match=r"too many .* try again"):
        fetch_url(address)
    assert [sock.fileno() for sock in site.callers] == [-1]


def test_a_name_is_not_waited_for_where_there_are_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Refused, match=r"too many .* try again"):
        fetch_url("http://dogs.example/")
