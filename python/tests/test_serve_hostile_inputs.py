"""The server under inputs that mean harm or are broken: odd HTTP, ten thousand of all kinds, bombs, endless JSON.

Whatever comes in: an answer that is documented, the same process afterwards, and ordinary pictures are answered.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import random
import socket
import string
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import hostile
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from photographs import CLASSES, encode
from PIL import Image
from serving import (
    GET,
    PING,
    POST,
    STATUSES,
    Client,
    Load,
    ask,
    connect,
    has_answer,
    memory_mib,
    post,
    problems,
    read_answer,
    wait_until,
    workers_of,
)

from dogbreed import inference
from dogbreed.inference import MAX_BODY_BYTES
from dogbreed.server_process import Running, running
from dogbreed.train import Trained

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

INPUTS, BY_HYPOTHESIS, CALLERS = 10_000, 1500, 4

# Changed bytes may name any machine: names are looked up in vain, and only the loopback device is connected to.
NO_NETWORK = """
import socket
look_up, connect = socket.getaddrinfo, socket.create_connection
def look_up_numbers(host, *arguments, **options):
    return look_up(host, *arguments, **{**options, "flags": socket.AI_NUMERICHOST})
def connect_here(address, *arguments, **options):
    if address[0] != "127.0.0.1":
        raise ConnectionRefusedError
    return connect(address, *arguments, **options)
socket.getaddrinfo, socket.create_connection = look_up_numbers, connect_here
"""


@pytest.fixture(scope="module")
def server(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that reaches no other machine."""
    folder = tmp_path_factory.mktemp("no-network")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        with running(trained.folder) as server:
            yield server


@pytest.fixture(scope="module")
def jpeg(photos: Path) -> bytes:
    return sorted((photos / "test" / CLASSES[1]).iterdir())[0].read_bytes()


# ------------------------------------------------------------------------------------------------ HTTP

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REQUESTS: dict[str, tuple[bytes, int]] = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60), 400),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /ping\r\n\r\n", 400),
    "HTTP/1.0": (b"GET /ping HTTP/1.0\r\n\r\n", 200),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
    "no host": (b"GET /ping HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "NUL in a header": (GET + b"X: a\0b\r\n\r\n", 400),
    "a header without a name": (GET + b": a\r\n\r\n", 400),
    "space before a colon": (GET + b"Content-Length : 5\r\n\r\n", 400),
    "a header that is folded": (GET + b"X: a\r\n b\r\n\r\n", 200),
    "a request id that is no text": (GET + b"X-Request-Id: \xe9\xff\r\n\r\n", 200),
    "70 KB of headers": (GET + b"X: " + b"a" * 70_000, 400),
    "5,000 headers": (GET + b"X: a\r\n" * 5000 + b"\r\n", 200),
    "a target of 60 KB": (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "a method of 60 KB": (b"A" * 60_000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "another host's target": (b"GET http://b.invalid/ping HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "a tunnel": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "options": (b"OPTIONS /invocations HTTP/1.1\r\nHost: a\r\nOrigin: http://b.invalid\r\n\r\n", 405),
    "trace": (b"TRACE /ping HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "head": (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    "a slash too many": (b"GET /ping/ HTTP/1.1\r\nHost: b.invalid\r\n\r\n", 404),
    "a path upwards": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "a path upwards, disguised": (b"GET /%2e%2e/%2e%2e%2fetc%2fpasswd HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "a web socket": (GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
    "a length below zero": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "a length in other digits": (POST + b"Content-Length: \xb2\r\n\r\n", 400),
    "a length that is no number": (POST + b"Content-Length: 0x10\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    "a length twice": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 422),
    "a length of 20 digits": (POST + b"Content-Length: 99999999999999999999\r\n\r\nabc", 413),
    "a length of 5,000 digits": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc", 400),
    "an encoding nobody has": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
    "an encoding, hidden": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    "chunks": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", 422),
    "chunks with trailers": (CHUNKED + b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n", 422),
    "a chunk that is none": (CHUNKED + b"zz\r\n", 400),
    "a chunk that is none after one": (CHUNKED + b"3\r\nabc\r\nzz\r\n", 400),
    "a chunk below zero": (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk of 2^160": (CHUNKED + b"f" * 40 + b"\r\nabc", 400),
    "a chunk with a bare line end": (CHUNKED + b"3\r\nabc0\r\n\r\n", 400),
    "a wish to go on": (POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", 422),
    "a wish of another kind": (POST + b"Expect: more\r\nContent-Length: 3\r\n\r\nabc", 422),
    "a body that is packed": (POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 422),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REQUESTS))
def test_odd_http_gets_one_documented_answer(server: Running, name: str) -> None:
    data, status = REQUESTS[name]
    answer = ask(server.address, data)
    assert answer
    answer.check()
    assert answer.status == status


@pytest.mark.parametrize(
    "hidden",
    [
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
        POST + b"Content-Length: 0\r\nContent-Length : 50\r\n\r\n",
        GET + b"X: a\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_two_servers_may_read_in_two_ways_ends_the_connection_or_is_read_in_one(
    server: Running, hidden: bytes
) -> None:
    """Behind a proxy, a request that is taken for the body of another one would be smuggled past its rules."""
    with connect(server.address) as connection:
        connection.sendall(hidden + b"GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        got = b"".join(iter(lambda: connection.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 ") and got.count(b"HTTP/1.1 ") <= 2
    if b"\r\ntransfer-encoding: " in hidden.lower() and b"content-length: " in hidden.lower():
        # Both lengths: what RFC 9112 lets a server do is to follow the chunks, or to refuse.
        assert got.split()[1] in (b"400", b"422", b"415")


def test_an_invalid_chunk_after_the_answer_ends_the_connection_and_leaves_no_trace(server: Running) -> None:
    with connect(server.address) as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        answer = read_answer(connection)
        assert answer and answer.status == 404
        connection.sendall(b"zz\r\n")
        assert connection.recv(1000) == b""
    assert problems(server) == []


def test_callers_cannot_write_into_the_log_or_the_metrics(server: Running) -> None:
    client = Client(server.address)
    before = client.get("/metrics").body.count(b"\n")
    for path in ("%0a%0d%7b%22level%22:1%7d", "%1b[31m%c2%9b31m", "%e2%80%ae%e2%80%a8", "%00%ff%ed%a0%80", "a" * 9000):
        client.get(f"/{path}", **{"X-Request-Id": f"x {path[:50]}"})
    for number in range(30):
        client.get(f"/wp-admin/{number}")
        client.ask(f"METHOD{number}", "/")
        client.ask("A" * 50_000, "/ping")
    lines = server.log().splitlines()[1:]
    assert all(line.isascii() and line.isprintable() and len(line) < 2000 for line in lines)
    assert problems(server) == []
    after = client.get("/metrics").body
    assert after.count(b"\n") - before < 60, "as many lines as there are statuses, not as many as there are paths"
    assert b"wp-admin" not in after and b"METHOD" not in after


def test_other_web_pages_learn_nothing_from_the_server_of_somebody_s_machine(server: Running, jpeg: bytes) -> None:
    """A browser sends another page's pictures here only after asking, and then gives that page no answer."""
    for data in (
        b"OPTIONS /invocations HTTP/1.1\r\nHost: a\r\nOrigin: http://b.invalid\r\n"
        b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Private-Network: true\r\n\r\n",
        post(jpeg, Origin="http://b.invalid"),
    ):
        answer = ask(server.address, data)
        assert answer and not [name for name in answer.headers if name.startswith("access-control-")]
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):  # sent without asking
        answer = ask(server.address, post(b'{"url": "http://127.0.0.1/"}', kind))
        assert answer and answer.status == 415


# ------------------------------------------------------------------------------------------------ 10,000 inputs


def broken_http(rng: random.Random, request: bytes) -> bytes:
    """A request with some bytes of its head changed."""
    end = request.find(b"\r\n\r\n") + 4
    head = bytearray(request[:end])
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(head)) if head else 0
        how = rng.randrange(5)
        if how == 0:
            head[at : at + 1] = rng.choice((b"\0", b"\r", b"\n", b" ", b":", b"\xff", b"\t", b"\r\n", b"%0a"))
        elif how == 1:
            del head[at : at + rng.choice((1, 2, 10))]
        elif how == 2:
            head[at:at] = head[at : at + rng.choice((1, 10, 200))]
        elif how == 3:
            line = rng.choice(
                (b"Content-Length: %d" % rng.randrange(-9, 10**7), b"Transfer-Encoding: chunked",
                 b"Expect: 100-continue", b"Connection: close", b"Upgrade: h2c", b"Host: b", b"X: " + b"a" * 9000)
            )  # fmt: skip
            head[at:at] = b"\r\n" + line + b"\r\n"
        else:
            head = head[:at]
    return bytes(head) + request[end:]


@dataclass
class Caller:
    """Sends inputs one after the other, and holds that whatever comes back is in order.

    statuses: of the answers to what was well-formed.
    """

    address: str
    rng: random.Random
    statuses: Counter[int] = field(default_factory=Counter)
    _kept: socket.socket | None = None

    def well_formed(self, request: bytes) -> None:
        """Must be answered; the connection is kept while the server keeps it."""
        for attempt in range(2):
            connection = self._kept or connect(self.address)
            fresh, self._kept = self._kept is None, None
            try:
                connection.sendall(request)
                answer = read_answer(connection)
            except ConnectionError:
                answer = read_answer(connection) if fresh else None  # refused while it was still being sent
            if answer:
                break
            connection.close()
            assert not fresh and attempt == 0, f"no answer to {request[:300]!r}"
        assert answer
        answer.check()
        self.statuses[answer.status] += 1
        if answer.headers.get("connection", "").lower() == "close":
            connection.close()
        else:
            self._kept = connection

    def raw(self, data: bytes) -> None:
        """May be answered, if it happens to be whole; is then left in one of the ways in which callers leave."""
        connection = connect(self.address)
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        leaves = self.rng.randrange(10)
        if leaves == 0:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        if leaves == 1:  # with RST, in the middle of a body or of an answer
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif has_answer(connection, 0.02):
            answer = read_answer(connection, data.split(b" ")[0].decode("latin-1"))
            if answer:  # not counted: how many come in so short a time depends on the machine
                answer.check()
        connection.close()


Act = Callable[[Caller], None]


def carried(rng: random.Random, kind: str, data: bytes | str) -> Act:
    """Some way to send an input of `hostile.variations`."""
    if kind == "address":
        request = post(json.dumps({"url": data}).encode(), "application/json")
    elif kind == "JSON":
        assert isinstance(data, bytes)
        request = post(data, "application/json")
    elif kind == "picture" and rng.random() < 0.3:
        assert isinstance(data, bytes)
        image = base64.b64encode(data).decode()
        request = post(json.dumps({"image": image, "details": rng.random() < 0.5}).encode(), "application/json")
    else:
        assert isinstance(data, bytes)
        request = post(data, rng.choice(("image/jpeg", "image/png", "image/webp", "application/x-image")))
    if rng.random() < 0.3:
        broken = broken_http(rng, request)
        return lambda caller: caller.raw(broken)
    return lambda caller: caller.well_formed(request)


def corpus(jpeg: bytes) -> Iterator[Act]:
    """Everything in the corpora."""
    requests = [post(data) for data in hostile.pictures().values()]
    requests += [
        post(json.dumps({"image": base64.b64encode(data).decode(), "top_k": "all"}).encode(), "application/json")
        for data in hostile.pictures().values()
        if len(data) < 10**6
    ]
    requests += [post(data, "application/json") for data in hostile.json_bodies().values()]
    requests += [post(json.dumps({"url": url}).encode(), "application/json") for url in hostile.urls().values()]
    requests += [post(jpeg, **{"Host": "a", **headers}) for headers in hostile.headers().values()]
    for request in requests:
        yield lambda caller, request=request: caller.well_formed(request)  # type: ignore[misc]
    for data, _ in REQUESTS.values():
        yield lambda caller, data=data: caller.raw(data)  # type: ignore[misc]


def varied(number: int, jpeg: bytes) -> Iterator[Act]:
    rng = random.Random(number)
    heads = [data for data, _ in REQUESTS.values() if len(data) < 5000] + [post(jpeg), post(b"{}", "application/json")]
    for kind, data in hostile.variations(number):
        yield carried(rng, kind, data)
        if rng.random() < 0.3:
            pipelined = b"".join(broken_http(rng, rng.choice(heads)) for _ in range(rng.randint(1, 3)))
            yield lambda caller, pipelined=pipelined: caller.raw(pipelined)  # type: ignore[misc]


def holdings(worker: int) -> tuple[float, int, int]:
    """MiB of memory, open files, threads."""
    process = Path(f"/proc/{worker}")
    return memory_mib(worker), len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def everything_of(callers: list[Caller], acts: list[Act]) -> None:
    def go(number: int) -> None:
        for act in acts[number :: len(callers)]:
            act(callers[number])

    with ThreadPoolExecutor(len(callers)) as pool:
        list(pool.map(go, range(len(callers))))


@pytest.mark.slow
def test_ten_thousand_hostile_inputs_are_answered_and_nothing_grows(server: Running, jpeg: bytes) -> None:
    (worker,) = workers_of(server.process.pid)
    before = Client(server.address).classify(jpeg).json()
    callers = [Caller(server.address, random.Random(number)) for number in range(CALLERS)]
    whole = list(corpus(jpeg))
    random.Random(0).shuffle(whole)
    chances = list(itertools.islice(varied(1, jpeg), INPUTS - BY_HYPOTHESIS - len(whole)))
    assert len(chances) > 5000, "leave some to chance"

    everything_of(callers, whole)
    # What the corpus holds that is large has been seen; from here on two halves of the same kind are compared.
    half = len(chances) // 2
    everything_of(callers, chances[:half])
    first = holdings(worker)
    everything_of(callers, chances[half:])
    second = holdings(worker)

    @seed(2)
    @settings(
        max_examples=BY_HYPOTHESIS, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(request=requests_of_hypothesis())
    def test_one(request: bytes) -> None:
        callers[0].well_formed(request)

    test_one()
    third = holdings(worker)
    total: Counter[int] = sum((caller.statuses for caller in callers), Counter())
    assert total[200] > 200 and total[400] > 500 and total[422] > 1000, total
    assert set(total) <= STATUSES
    assert problems(server) == []
    assert workers_of(server.process.pid) == [worker]
    assert second[0] - first[0] < 24 and third[0] - first[0] < 32, (first, second, third)
    assert max(second[1], third[1]) <= first[1] + 8 and max(second[2], third[2]) <= first[2] + 4
    after = Client(server.address).classify(jpeg).json()
    assert after["predictions"][0]["breed"] == before["predictions"][0]["breed"]
    assert after["predictions"][0]["probability"] == pytest.approx(before["predictions"][0]["probability"], abs=1e-3)


def requests_of_hypothesis() -> st.SearchStrategy[bytes]:
    """Well-formed requests with whatever hypothesis thinks of in their bodies and headers."""
    tokens = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=20)
    values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
    values = values.filter(lambda value: not any(127 <= ord(c) < 160 for c in value))
    kinds = st.sampled_from(["image/jpeg", "image/png", "application/json", "application/json; charset=utf-8"])
    bodies = (hostile.json_values() | hostile.requests()).map(lambda value: json.dumps(value).encode())
    known = {"host", "content-type", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "accept"}
    headers = st.dictionaries(tokens.filter(lambda name: name.lower() not in known), values, max_size=3)
    return (
        st.builds(lambda body, more: post(body, "application/json", **more), bodies, headers)
        | st.builds(lambda body, kind: post(body, kind), hostile.broken_pictures() | st.binary(max_size=300), kinds)
        | st.builds(lambda kind: post(b"{}", kind), values)
    )


# ------------------------------------------------------------------------------------------------ bombs


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *before: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A black picture in a thousandth of its size."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    packer, left = zlib.compressobj(9), height * ((width * channels * depth + 7) // 8 + 1)
    packed = []
    while left > 0:
        packed.append(packer.compress(bytes(min(left, 2**20))))
        left -= 2**20
    data = b"".join(packed) + packer.flush()
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _jpeg_of_scans(count: int, width: int = 8000, height: int = 3999) -> bytes:
    """A grey progressive JPEG; each scan is 50 bytes, and makes the decoder go through all its blocks."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    blocks = -(-width // 8) * -(-height // 8)
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    # Huffman codes of one bit: 0 for "no difference", and for "so many blocks without anything", with 14 bits of number
    codes = segment(0xC4, b"\0\1" + bytes(15) + b"\0") + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    run = "0" + "0" * 14  # 2^14 blocks
    bits = run * -(-blocks // 2**14)
    bits += "1" * (-len(bits) % 8)
    empty = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    scans = [segment(0xDA, bytes([1, 1, 0, k, k, 0])) + empty for k in range(1, 64)]
    return b"".join([b"\xff\xd8", tables, frame, codes, first, *(scans[i % 63] for i in range(count - 1)), b"\xff\xd9"])


def _hidden(segment: bytes) -> bytes:
    """64 KB of segments behind a marker that has no length; who reads one jumps over them all."""
    segments = segment * (65_000 // len(segment))
    return b"\xff\xd0\xff\xff" + segments + b"\xff" * (65_533 - len(segments))


def _plain(mode: str, width: int = 8000, height: int = 3999) -> Image.Image:
    return Image.new(mode, (width, height), "orange" if mode in ("RGB", "RGBA") else 0)


LIMIT = MAX_BODY_BYTES - 10_000
SMALL = encode(Image.linear_gradient("L").convert("RGB"))
TRANSPARENT = (_chunk(b"PLTE", bytes(768)), _chunk(b"tRNS", bytes(range(256))))

BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG of 32 megapixels, RGBA": lambda: _png(8000, 3999, colour=6),
    "PNG of 32 megapixels, 16 bits": lambda: _png(8000, 3999, depth=16),
    "PNG of 32 megapixels, RGBA of 16 bits": lambda: _png(8000, 3999, depth=16, colour=6),
    "PNG of 32 megapixels, 1 bit": lambda: _png(8000, 3999, depth=1),
    "PNG of 32 megapixels, transparent palette": lambda: _png(8000, 3999, *TRANSPARENT, colour=3),
    "PNG of 1 × 32 million": lambda: _png(1, 31_999_999, colour=6),
    "PNG of 32 million × 1": lambda: _png(31_999_999, 1, colour=6),
    "PNG of 400 × 65,000, transparent": lambda: _png(400, 65_000, *TRANSPARENT, colour=3),
    "PNG of 400 × 65,000, RGBA": lambda: _png(400, 65_000, colour=6),
    "PNG of 65,000 × 400, RGBA": lambda: _png(65_000, 400, colour=6),
    "PNG with 5,000 colour profiles": lambda: _png(
        4, 4, _chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**20 - 5), 9)) * 5000
    ),
    "PNG with 400,000 unknown chunks": lambda: _png(4, 4, _chunk(b"prVt", b"") * 400_000),
    "PNG of two sizes": lambda: _png(4, 4)[:33] + _png(8000, 3999, colour=6)[8:],
    "JPEG of 32 megapixels, progressive": lambda: encode(_plain("RGB"), progressive=True, subsampling=0),
    "JPEG of 32 megapixels, CMYK": lambda: encode(_plain("CMYK"), progressive=True),
    "JPEG of 480 × 65,500, progressive": lambda: encode(_plain("RGB", 480, 65_500), progressive=True, subsampling=0),
    "JPEG of 50,000 scans": lambda: _jpeg_of_scans(50_000),
    "JPEG of 400,000 scans of a block": lambda: _jpeg_of_scans(400_000, 8, 8),
    "JPEG of 30 scans": lambda: _jpeg_of_scans(30),
    "JPEG with 500,000 Exif segments": lambda: SMALL[:2] + b"\xff\xe1\0\x09Exif\0\0a" * (LIMIT // 11) + SMALL[2:],
    "JPEG with 1.5 million empty segments": lambda: SMALL[:2] + b"\xff\xe0\0\2" * (LIMIT // 4) + SMALL[2:],
    "JPEG with 500,000 Exif segments, hidden": lambda: SMALL[:2] + _hidden(b"\xff\xe1\0\x09Exif\0\0a") * 90 + SMALL[2:],
    "JPEG with 6 MB of padding": lambda: SMALL[:2] + b"\xff" * LIMIT + SMALL[2:],
    "WebP of 32 megapixels": lambda: encode(_plain("RGB"), "WEBP", lossless=True, method=0),
    "WebP of 16 megapixels, animated": lambda: encode(
        _plain("RGBA", 4000, 3999), "WEBP", save_all=True, lossless=True, method=0,
        append_images=[_plain("RGBA", 4000, 3999)],
    ),
    "GIF with 3 million comments": lambda: b"GIF89a\4\0\4\0\0\0\0!\xfe" + b"\1a" * (LIMIT // 2) + b"\0;",
    "TIFF of 32 megapixels, 32 bits": lambda: encode(_plain("I"), "TIFF", compression="tiff_adobe_deflate"),
}  # fmt: skip

BOMB_CPU, BOMB_MIB = 6, 340  # of one of them, in times `plain_cpu_s` and in MiB; measured: 2.5 and 306


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """The most memory that it has had since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak(pid: int) -> float:
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_mib(pid)


@pytest.fixture(scope="module")
def plain_cpu_s(server: Running) -> float:
    """Seconds of processor time that a worker takes on this machine for an ordinary picture of the largest size."""
    (worker,) = workers_of(server.process.pid)
    picture = post(_png(8000, 3999, colour=2))
    taken = []
    for _ in range(3):
        before = cpu_s(worker)
        answer = ask(server.address, picture, wait_s=60)
        assert answer and answer.status == 200
        taken.append(cpu_s(worker) - before)
    return sorted(taken)[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BOMBS))
def test_no_picture_takes_much_time_or_memory(server: Running, plain_cpu_s: float, name: str) -> None:
    data = BOMBS[name]()
    assert len(data) < MAX_BODY_BYTES
    (worker,) = workers_of(server.process.pid)
    before, memory = cpu_s(worker), forget_peak(worker)
    answer = ask(server.address, post(data), wait_s=60)
    assert answer and answer.status in (200, 413, 422)
    answer.check()
    assert cpu_s(worker) - before < BOMB_CPU * plain_cpu_s
    assert peak_mib(worker) - memory < BOMB_MIB
    assert problems(server) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" + b"[]," * ((LIMIT - 3) // 3) + b"[]]", 400),
        (b"[" + b"{}," * ((LIMIT - 3) // 3) + b"{}]", 400),
        (b"[" + b"0," * ((LIMIT - 3) // 2) + b"0]", 400),
        (b"[" * LIMIT, 400),
        (b'{"image": "' + b"A" * (LIMIT - LIMIT % 4) + b'"}', 422),
        ('{"image": "🐶'.encode() + b"A" * LIMIT + b'"}', 400),
    ],
    ids=["lists", "objects", "numbers", "depth", "base64", "wide text"],
)
def test_no_json_keeps_the_others_waiting_or_fills_the_memory(
    server: Running, jpeg: bytes, body: bytes, status: int
) -> None:
    started = time.monotonic()
    with contextlib.suppress(inference.BadRequest):
        inference.parse(body, "application/json")
    parse_s = time.monotonic() - started
    (worker,) = workers_of(server.process.pid)
    memory = forget_peak(worker)
    with (
        Load(server.address, post(body, "application/json"), 4) as bad,
        Load(server.address, PING, 1, pause_s=0.02) as pings,
        Load(server.address, post(jpeg), 1, pause_s=0.02) as good,
    ):
        wait_until(lambda: len(bad.seconds) > 4 and len(good.seconds) > 3, 60)
    assert set(bad.statuses) == {status}
    assert set(pings.statuses) == {200} and max(pings.seconds) < 2 + parse_s, "2 s is SageMaker's limit for a ping"
    assert set(good.statuses) == {200}
    assert peak_mib(worker) - memory < 300
