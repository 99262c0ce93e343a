"""What a picture's header announces, read without a decoder: some small files keep decoders busy for minutes."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PARTS = 2000  # photographs have some dozens
_COSTLY = MAX_PARTS // 2  # a colour profile in a PNG is unpacked, to a megabyte at most; a photograph has one


@dataclass(frozen=True)
class Announced:
    """Of a JPEG, PNG or WebP: width and height in pixels, 0 if not found; segments or chunks, counted to MAX_PARTS.

    by_rows: a JPEG that is no progressive one, and so decoded row by row and at reduced scale, whatever its size.
    """

    width: int
    height: int
    parts: int
    by_rows: bool = False

    @property
    def pixels(self) -> int:
        return self.width * self.height


def announced(data: bytes) -> Announced | None:
    """What the header says; None for another format."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    return None


def _jpeg(data: bytes) -> Announced:
    """Pillow takes each segment with some lines of Python, and joins those of Exif in quadratic time."""
    width = height = parts = 0
    by_rows = False
    at = 2
    while at < len(data) and parts <= MAX_PARTS:
        parts += 1
        marker = data[at + 1] if data[at] == 0xFF and at + 1 < len(data) else 0
        if marker in (0x00, 0xFF):  # no segment: a decoder looks for the next one, byte by byte
            at += 1
            continue
        if marker == 0xDA:  # the pixels
            break
        if marker == 0xC8 or 0xD0 <= marker <= 0xD9 or 0xF0 <= marker <= 0xFD:  # as Pillow reads them, without a length
            at += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = _big(data, at + 5, 2), _big(data, at + 7, 2)
            by_rows = marker in (0xC0, 0xC1)
        at += 2 + max(2, _big(data, at + 2, 2))
    return Announced(width, height, parts, by_rows)


def _png(data: bytes) -> Announced:
    parts, at = 0, 8
    while at < len(data) and parts <= MAX_PARTS:
        length, kind = _big(data, at, 4), data[at + 4 : at + 8]
        if kind != b"IDAT" or length == 0:  # pixels may come in as many as they like
            parts += _COSTLY if kind == b"iCCP" else 1
        at += 12 + length
    return Announced(_big(data, 16, 4), _big(data, 20, 4), parts)


def _webp(data: bytes) -> Announced:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = 1 + _little(data, 24, 3), 1 + _little(data, 27, 3)
    elif kind == b"VP8L":
        bits = _little(data, 21, 4)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    return Announced(width, height, 1)


def _big(data: bytes, at: int, count: int) -> int:
    return int.from_bytes(data[at : at + count], "big")


def _little(data: bytes, at: int, count: int) -> int:
    return int.from_bytes(data[at : at + count], "little")
