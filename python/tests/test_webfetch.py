"""Addresses that somebody else chose: only the public internet is asked, within limits, and nothing of it leaks."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import ipaddress
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hostile
import pytest

from dogbreed import webfetch
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
        "2002:7f00:1::", "2002:a9fe:a9fe::1", "::127.0.0.1", *hostile.INSIDE,
        *(address.replace("%25", "%") for address in hostile.INSIDE_6),
        # No address of the internet needs a tunnel, and one inside might hide in it, in whichever place.
        "2002:101:101::1", "2001:0:101:101::fefe:fefe", "2001:0:7f00:1::fefe:fefe", "2001:0:101:101::80ff:fefe",
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


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers in any spelling are understood as ever, and no name is looked up."""
    look_up = socket.getaddrinfo

    def look_up_numbers(host: object, *arguments: object, **options: object) -> object:
        return look_up(host, *arguments, **{**options, "flags": socket.AI_NUMERICHOST})  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "getaddrinfo", look_up_numbers)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_spelling_of_an_inner_address_is_connected_to(
    address: str, scheme: str, no_names: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda to, **k: pytest.fail(f"connected to {to}"))
    for host in hostile.spellings(address):
        with pytest.raises(Refused, match=r"not on the public internet|host of the address is unknown|malformed"):
            fetch_url(f"{scheme}://{host}/latest/meta-data/", timeout_s=5)


def test_no_address_of_the_corpus_is_connected_to(no_names: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda to, **k: pytest.fail(f"connected to {to}"))
    for url in hostile.urls().values():
        with pytest.raises(Refused) as caught:
            fetch_url(url, timeout_s=5)
        assert len(str(caught.value)) < 100 and "\n" not in str(caught.value)


@pytest.mark.parametrize("port", [0, 1, 21, 22, 25, 110, 445, 1023])
def test_ports_of_other_services_are_not_connected_to(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda to, **k: pytest.fail(f"connected to {to}"))
    with pytest.raises(Refused, match="only the ports 80, 443 and those from 1024 on"):
        fetch_url(f"http://1.1.1.1:{port}/")


def test_an_address_of_endless_length_is_refused_before_anyone_remembers_it() -> None:
    for url in (f"http://1.1.1.1/{'a' * 8192}", "a" * 5_000_000, f"http://{'a' * 9000}/"):
        with pytest.raises(Refused, match="longer than 8192 characters"):
            fetch_url(url)


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


@pytest.mark.parametrize("length", [8192, 60_000, 100_000])
def test_a_redirect_to_an_address_of_endless_length_is_refused(site: Site, length: int) -> None:
    site.answer("/", status=302, Location=f"http://{site.host}/{'a' * length}")
    assert site.refusal() and len(site.asked) == 1


def test_every_redirect_of_the_corpus_is_refused(site: Site, no_names: None) -> None:
    for name, answer in hostile.web_answers().items():
        if name.startswith("on to "):
            site.answers["/"] = lambda send, answer=answer: send(answer)  # type: ignore[misc]
            with pytest.raises(Refused) as caught:
                fetch_url(f"http://{site.host}/", allowed=[site.host], timeout_s=5)
            assert "secret" not in str(caught.value).lower(), name


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
    assert 0.3 < time.monotonic() - started < 5


def test_a_host_that_never_finishes_its_handshake_is_cut_off_in_time() -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Refused, match="took too long"):
            fetch_url(f"https://{host}/", timeout_s=0.4, allowed=[host])
    assert time.monotonic() - started < 5


def test_a_name_that_nobody_answers_for_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(6) or [])
    started = time.monotonic()
    with pytest.raises(Refused, match="took too long"):
        fetch_url("http://slow.example/", timeout_s=0.4)
    assert time.monotonic() - started < 5


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


def test_a_packed_bomb_stays_packed(site: Site) -> None:
    """Nothing is unpacked, so what a host packs is no picture and no larger than its bytes."""
    bomb = gzip.compress(bytes(50 * 2**20))
    site.answer("/", body=bomb, Content_Encoding="gzip", Content_Type="image/jpeg")
    assert site.fetch() == bomb


def test_an_endless_row_of_interim_answers_is_cut_off_in_time(site: Site) -> None:
    site.answers["/"] = drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, every_s=0)
    assert site.refusal(timeout_s=0.4) == "fetching the address took too long"


def test_endless_trailers_are_cut_off_in_time(site: Site) -> None:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndog\r\n0\r\n"
    site.answers["/"] = drip(start, b"X: a\r\n" * 100, every_s=0)
    assert site.refusal(timeout_s=0.4) == "fetching the address took too long"


def test_nothing_of_a_hostile_answer_stays_behind(site: Site, no_names: None) -> None:
    threads = threading.active_count()
    for answer in hostile.web_answers().values():
        site.answers["/"] = lambda send, answer=answer: send(answer)  # type: ignore[misc]
        with contextlib.suppress(Refused):
            site.fetch(timeout_s=5, max_bytes=5 * 2**20)
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:  # the site's own, of its last answers
        time.sleep(0.01)
    assert threading.active_count() <= threads


# ------------------------------------------------------------------------------------------------ certificates


@contextlib.contextmanager
def serving_tls(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool = True) -> Iterator[str]:
    """A picture over TLS, under a certificate of that name; gives the `host:port`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dogbreed's tests")])
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    with contextlib.suppress(ValueError):
        names = [x509.IPAddress(ipaddress.ip_address(name))]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*encoding))
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    webfetch._tls.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)

    def answer(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = listening.accept()[0]
                with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as safe:
                    safe.recv(4096)
                    safe.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ndog")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=(listening,), daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    webfetch._tls.cache_clear()


def test_a_picture_comes_over_tls_and_the_authorities_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_tls(tmp_path, monkeypatch, "127.0.0.1") as host:
        for _ in range(3):
            assert fetch_url(f"https://{host}/", allowed=[host]) == b"dog"
        assert webfetch._tls.cache_info().misses == 1


@pytest.mark.parametrize(("name", "trusted"), [("127.0.0.1", False), ("dogs.example", True)])
def test_a_certificate_of_another_or_of_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    with (
        serving_tls(tmp_path, monkeypatch, name, trusted) as host,
        pytest.raises(Refused, match="the address has no valid certificate"),
    ):
        fetch_url(f"https://{host}/", allowed=[host])


def test_a_name_with_its_final_dot_has_the_same_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_tls(tmp_path, monkeypatch, "dogs.example") as host:
        port = int(host.partition(":")[2])
        entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        connect = socket.create_connection
        monkeypatch.setattr(socket, "create_connection", lambda to, **k: connect(("127.0.0.1", port), **k))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [entry])
        for name in ("dogs.example", "dogs.example."):
            assert fetch_url(f"https://{name}:{port}/", allowed=[f"{name}:{port}"]) == b"dog"


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
