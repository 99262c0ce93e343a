"""Addresses that somebody else chose: only the public internet is asked, within limits, and nothing of it leaks."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from dogbreed.webfetch import Refused, fetch_url, is_public

Send = Callable[[bytes], object]


@dataclass
class Site:
    """A server that answers each path with whatever bytes a test wants, however slowly."""

    port: int = 0
    answers: dict[str, Callable[[Send], object]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, path: str, *, status: int = 200, body: bytes = b"", **headers: object) -> None:
        lines = [f"HTTP/1.1 {status} X", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()), "", ""]
        self.answers[path] = lambda send: send("\r\n".join(lines).encode() + body)

    def fetch(self, path: str = "/", **options: object) -> bytes:
        return fetch_url(f"http://{self.host}{path}", allowed=[self.host], **options)  # type: ignore[arg-type]

    def refusal(self, path: str = "/", **options: object) -> str:
        with pytest.raises(Refused) as caught:
            self.fetch(path, **options)
        return str(caught.value)


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                path = self.rfile.readline().decode().split()[1]
                while self.rfile.readline().strip():
                    pass
                site.asked.append(path)
                site.answers[path](self.wfile.write)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close = True, False

    with Server(("127.0.0.1", 0), Handler) as server:
        site.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield site
        server.shutdown()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as started:
        yield started


@pytest.fixture
def other() -> Iterator[Site]:
    with serving() as started:
        yield started


# ------------------------------------------------------------------------------------------------ who is asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1",
        "192.0.0.8", "192.0.0.9", "192.0.0.192", "fec0::1", "feff::1", "::ffff:192.0.0.192",
        "2002:7f00:1::", "2002:a9fe:a9fe::1", "::127.0.0.1",
    ],
)  # fmt: skip
def test_an_address_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "0", "localhost", "LOCALHOST.",
        "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "①②⑦.⓪.⓪.①",
    ],
)  # fmt: skip
def test_our_own_network_is_not_asked_under_any_name(host: str, site: Site) -> None:
    site.answer("/", body=b"secret")
    with pytest.raises(Refused, match=r"not on the public internet|host of the address is unknown"):
        fetch_url(f"http://{host}:{site.port}/", timeout_s=5)
    assert site.asked == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "only http:// and https://"),
        ("ftp://example.com/dog.jpg", "only http:// and https://"),
        ("gopher://127.0.0.1:25/_HELO", "only http:// and https://"),
        ("//example.com/dog.jpg", "only http:// and https://"),
        ("http:///dog.jpg", "only http:// and https://"),
        ("dog.jpg", "only http:// and https://"),
        ("", "only http:// and https://"),
        ("http://user:pw@example.com/", "user name or password"),
        ("http://user@example.com/", "user name or password"),
        ("http://example.com/\r\nX-Injected: 1", "malformed"),
        ("http://example.com\r\n/", "malformed"),
        ("http://example.com/a b", "malformed"),
        ("http://example.com:99999/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http://no-such-host.invalid/", "host of the address is unknown"),
        (f"http://{'a' * 70}.com/", "host of the address is unknown"),
    ],
)
def test_an_odd_address_is_refused_with_a_reason(url: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        fetch_url(url)


def test_a_host_with_one_inner_address_among_its_addresses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: entries)
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    with pytest.raises(Refused, match="not on the public internet"):
        fetch_url("http://mixed.example/")


def test_the_address_that_was_checked_is_the_one_connected_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when asked first and inside when asked again (DNS rebinding) gains nothing."""
    site.answer("/dog.jpg", body=b"dog")
    resolved, connected = iter(["93.184.216.34", "127.0.0.1"]), []
    connect = socket.create_connection
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "")

    def to_our_site(address: tuple[str, int], **options: object) -> socket.socket:
        connected.append(address)
        monkeypatch.undo()
        return connect(("127.0.0.1", site.port), **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **k: [(*entry, (next(resolved), port))])
    monkeypatch.setattr(socket, "create_connection", to_our_site)
    assert fetch_url("http://rebinding.example/dog.jpg") == b"dog"
    assert connected == [("93.184.216.34", 80)]
    assert list(resolved) == ["127.0.0.1"]  # the name was looked up once


# ------------------------------------------------------------------------------------------------ redirects


def test_a_picture_is_fetched_and_a_relative_redirect_followed(site: Site) -> None:
    site.answer("/a/start", status=302, Location="../dogs/k%C3%B6ter.jpg?size=1")
    site.answer("/dogs/k%C3%B6ter.jpg?size=1", body=b"dog")
    assert site.fetch("/a/start") == b"dog"


def test_paths_are_escaped_and_cannot_smuggle_lines(site: Site) -> None:
    site.answer("/k%C3%B6ter.jpg", body=b"dog")
    site.answer("/%0d%0aX-Injected:1", body=b"dog")
    assert site.fetch("/köter.jpg") == site.fetch("/%0d%0aX-Injected:1") == b"dog"


def test_a_redirect_inside_is_refused(site: Site, other: Site) -> None:
    other.answer("/", body=b"secret")
    site.answer("/", status=302, Location=f"http://{other.host}/")
    assert site.refusal() == "the address is not on the public internet"
    assert other.asked == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://u:p@example.com/", "http://[/", "http://a b/"])
def test_a_redirect_to_an_odd_address_is_refused(site: Site, target: str) -> None:
    site.answer("/", status=307, Location=target)
    assert site.refusal()


def test_a_chain_of_redirects_ends(site: Site) -> None:
    site.answer("/", status=301, Location="/")
    assert site.refusal() == "the address redirects more than 3 times"
    assert len(site.asked) == 4


# ------------------------------------------------------------------------------------------------ limits


def drip(first: bytes, then: bytes, every_s: float = 0.05) -> Callable[[Send], None]:
    """Sends a start and then goes on for ever, which every socket timeout takes for progress."""

    def answer(send: Send) -> None:
        send(first)
        while True:
            time.sleep(every_s)
            send(then)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"", b""),
        drip(b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"a"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
    ids=["silence", "headers", "body", "chunks"],
)
def test_a_slow_host_is_cut_off_in_time(site: Site, answer: Callable[[Send], None]) -> None:
    site.answers["/"] = answer
    started = time.monotonic()
    assert site.refusal(timeout_s=0.4) == "fetching the address took too long"
    assert 0.3 < time.monotonic() - started < 1.5


def test_a_host_that_never_finishes_its_handshake_is_cut_off_in_time() -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Refused, match="took too long"):
            fetch_url(f"https://{host}/", timeout_s=0.4, allowed=[host])
    assert time.monotonic() - started < 1.5


def test_a_name_that_nobody_answers_for_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(2) or [])
    started = time.monotonic()
    with pytest.raises(Refused, match="took too long"):
        fetch_url("http://slow.example/", timeout_s=0.4)
    assert time.monotonic() - started < 1.5


def test_a_body_without_a_length_that_is_cut_off_is_not_taken_for_whole(site: Site) -> None:
    site.answers["/"] = drip(b"HTTP/1.1 200 OK\r\n\r\nhalf", b"a")
    assert site.refusal(timeout_s=0.4) == "fetching the address took too long"


def test_redirects_share_one_time_limit(site: Site) -> None:
    def slow_redirect(send: Send) -> None:
        time.sleep(0.25)
        send(b"HTTP/1.1 302 X\r\nLocation: /\r\n\r\n")

    site.answers["/"] = slow_redirect
    assert site.refusal(timeout_s=0.4) == "fetching the address took too long"


def test_an_endless_body_is_not_read_to_the_end(site: Site) -> None:
    site.answers["/"] = drip(b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 100_000, every_s=0)
    assert site.refusal(max_bytes=2**20) == "the picture is larger than 1 MiB"


def test_a_body_that_is_announced_too_large_is_not_read_at_all(site: Site) -> None:
    site.answers["/"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"")
    assert site.refusal(max_bytes=2**20, timeout_s=5) == "the picture is larger than 1 MiB"


def test_the_length_that_a_host_announces_is_not_trusted(site: Site) -> None:
    site.answer("/more", body=b"half", Content_Length=8)
    site.answer("/less", body=b"dogdog", Content_Length=3)
    site.answer("/none", body=b"dog")
    assert "dropped the connection" in site.refusal("/more")
    assert site.fetch("/less") == site.fetch("/none") == b"dog"


def test_a_dead_port_is_refused_with_a_reason() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Refused, match="refused or dropped the connection"):
            fetch_url(f"http://{host}/", allowed=[host])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 SECRET\r\nX: SECRET\r\n\r\nSECRET",
        b"HTTP/1.1 404 SECRET\r\n\r\n<html>SECRET</html>",
        b"HTTP/1.1 204 SECRET\r\n\r\n",
        b"HTTP/1.1 SECRET\r\n\r\n",
        b"SECRET from a service that does not speak HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\n\r\nSECRET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n",
        b"HTTP/1.1 302 X\r\nLocation: http://SECRET.invalid/\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: SECRET://SECRET\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: SECRET\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"SECRET" * 20_000,
        b"",
    ],
)
def test_a_refusal_repeats_nothing_of_the_answer(site: Site, answer: bytes) -> None:
    site.answers["/"] = lambda send: send(answer)
    message = site.refusal(timeout_s=5)
    assert message and "secret" not in message.lower() and "\n" not in message
