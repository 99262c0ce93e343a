"""Fetching a picture from an address that somebody else chose, without being turned against our own network.

Only the standard library, so that the Lambda function can carry this file as it is.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterator
from urllib.parse import SplitResult, quote, urljoin, urlsplit

MAX_BYTES = 20 * 1024 * 1024
TIMEOUT_S = 10.0
MAX_REDIRECTS = 3
MAX_URL_LENGTH = 8192  # characters; signed addresses have some 2,000. urlsplit remembers the last ones, however long
_INTERNET = ipaddress.ip_network("2000::/3")  # of IPv6, all that has been given out
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What Python, in some or all of its versions, takes for public.
_SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's metadata and certificates
        "192.0.0.0/24",  # protocol assignments, Oracle's metadata among them
        "192.88.99.0/24",  # relays of 6to4
        "2001::/32",  # Teredo: IPv4 addresses inside, those of its servers too
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
]
_HEADERS = {"User-Agent": "dogbreed", "Accept": "image/*", "Connection": "close"}


class Refused(ValueError):
    """The address cannot be fetched; the message says why and repeats nothing of what the target answered."""


class TooLarge(Refused):
    """The body has more bytes than are wanted."""


def fetch_url(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
    max_redirects: int = MAX_REDIRECTS,
    allowed: Collection[str] = (),
) -> bytes:
    """The body behind a public http or https address.

    Every address that the host's name resolves to must be public, and the connection goes to an address that was
    checked, so a name that resolves to something else a moment later (DNS rebinding) gains nothing. Redirects are
    checked anew.

    Args:
        timeout_s: for everything together: names, connections, redirects and the last byte.
        allowed: `host:port` pairs that are exempt from the rule of public addresses, for tests and local AWS.

    Raises:
        Refused: the address, its answer or its size (TooLarge) is not acceptable, or time ran out.
    """
    deadline = time.monotonic() + timeout_s
    for _ in range(max_redirects + 1):
        try:
            parts = _checked(url)
            with _connection(parts, deadline, allowed) as connection:
                connection.request("GET", _target(parts), headers=_HEADERS)
                response = connection.getresponse()
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, _of_limited_length(response.getheader("Location") or ""))
                    continue
                if response.status != 200:
                    raise Refused(f"the address answered with status {response.status}")
                body = _body(response, max_bytes)
                _left(deadline)  # cutting a connection ends headers, or a body without a length, as if they were whole
                return body
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, Refused):
                raise
            _left(deadline)  # was it cut because time ran out?
            raise Refused(_reason(error)) from None
    raise Refused(f"the address redirects more than {max_redirects} times")


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(_of_limited_length(url))
        port = parts.port
    except Refused:
        raise
    except ValueError:
        raise Refused("the address is malformed") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("only http:// and https:// addresses can be fetched")
    if parts.username is not None or parts.password is not None:
        raise Refused("an address with a user name or password is not fetched")
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise Refused("the address is malformed")
    if port is not None and port < 1024 and port not in (80, 443):
        raise Refused("only the ports 80, 443 and those from 1024 on can be fetched from")  # not mail, not shells
    return parts


def _of_limited_length(url: str) -> str:
    if len(url) > MAX_URL_LENGTH:
        raise Refused(f"the address is longer than {MAX_URL_LENGTH} characters")
    return url


@contextlib.contextmanager
def _connection(parts: SplitResult, deadline: float, allowed: Collection[str]) -> Iterator[http.client.HTTPConnection]:
    """A connection to a checked address, which is cut when time runs out.

    Socket timeouts alone would not do: they start anew with every byte that a slow host lets drip.
    """
    host = parts.hostname or ""
    is_https = parts.scheme == "https"
    default_port = 443 if is_https else 80
    port = parts.port or default_port
    connection = http.client.HTTPConnection(host, port)
    connection.default_port = default_port  # Host names every other, and signed addresses are signed without this one
    sock = connection.sock = _connect(host, port, deadline, exempt=f"{host}:{port}" in allowed)

    def cut() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    with contextlib.ExitStack() as in_the_end:  # the last first
        in_the_end.callback(lambda: sock.close())  # whichever it is by then
        timer = threading.Timer(_left(deadline), cut)
        _start(timer)
        in_the_end.callback(timer.join)  # or it might cut what gets this socket's number next
        in_the_end.callback(timer.cancel)
        if is_https:
            name = host.removesuffix(".")  # as certificates spell it
            sock = connection.sock = _tls().wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
            _left(deadline)  # the timer may have found neither of the two sockets
            sock.do_handshake()
        yield connection


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all: reading the machine's authorities takes far longer than fetching a picture."""
    return ssl.create_default_context()


def _target(parts: SplitResult) -> str:
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    return path + (f"?{quote(parts.query, safe='/%:@!$&()*+,;=~?')}" if parts.query else "")


def _connect(host: str, port: int, deadline: float, *, exempt: bool) -> socket.socket:
    """Connects to an address of the host that was checked to be public."""
    addresses = _resolve(host, port, deadline)
    if not exempt and not all(is_public(address) for address in addresses):
        raise Refused("the address is not on the public internet")
    problem: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=_left(deadline))
        except OSError as error:
            problem = error
    raise Refused(_reason(problem) if problem else "the host of the address is unknown")


def _resolve(host: str, port: int, deadline: float) -> list[str]:
    """The addresses of a name. In a thread of its own, for there is no other way to stop waiting for an answer."""
    found: list[str] = []

    def look_up() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.extend(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=look_up)
    _start(thread)
    thread.join(_left(deadline))
    if thread.is_alive():
        raise Refused("fetching the address took too long")
    if not found:
        raise Refused("the host of the address is unknown")
    return found


def _start(thread: threading.Thread) -> None:
    thread.daemon = True
    try:
        thread.start()
    except RuntimeError:  # the machine has no more threads
        raise Refused("too many addresses are being fetched; try again in some seconds") from None


def is_public(address: str) -> bool:
    """False for loopback, private, link-local (cloud metadata), multicast and reserved addresses, in any disguise."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # NAT64 is how networks without IPv4 reach it: their name servers answer with such addresses.
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped
        if inner is not None:
            return is_public(str(inner))
        if ip not in _INTERNET:
            return False
    inside = ip.is_multicast or ip.is_reserved or any(ip in network for network in _SPECIAL)
    return ip.is_global and not inside


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    too_large = f"the picture is larger than {max_bytes // 2**20} MiB"
    length = int(response.getheader("Content-Length") or -1)
    if length > max_bytes:
        raise TooLarge(too_large)
    body = bytearray()
    while part := response.read1(65536):
        body += part
        if len(body) > max_bytes:
            raise TooLarge(too_large)
    if length > len(body):
        raise http.client.IncompleteRead(b"")
    return bytes(body)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Refused("fetching the address took too long")
    return left


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "fetching the address took too long"
    if isinstance(error, ssl.SSLError):
        return "the address has no valid certificate"
    if isinstance(error, ConnectionError | http.client.HTTPException):
        return "the host of the address refused or dropped the connection"
    return "the address could not be fetched"
