"""Unpacking an archive that may be hostile: nothing leaves its folder, and it cannot fill the disk."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dogbreed.console import progress
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_dir, write_json

RECORD = ".dogbreed-source.json"
# Photographs hardly compress; drawings saved as BMP reach some tens. Small archives may compress as they like.
MAX_RATIO = 200
RATIO_FREE_BYTES = 64 * 2**20

_CHUNK = 1 << 20
_MB = 1_000_000
_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a compression method that zipfile lacks
    UnicodeDecodeError,
)
_COMPRESSIONS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most; counted while it is unpacked, for its headers may say anything."""

    max_bytes: int
    max_files: int


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; `archive_bytes` is how much of the archive has been used up to and with it."""

    name: str
    kind: str  # "file", "folder" or "other"
    open: Callable[[], IO[bytes] | None]
    archive_bytes: int


def unpack(archive: Path, out: Path, limits: Limits, record: dict[str, str]) -> None:
    with atomic_dir(out) as folder:
        try:
            count = _unpack(archive, folder, limits)
        except (*_BROKEN_ARCHIVE, RuntimeError) as error:  # zipfile raises RuntimeError for an encrypted entry
            raise _broken(record["source"], error) from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise _broken(record["source"], error) from None  # gzip and bz2 say so with a bare OSError
        if not count:
            raise DogbreedError(f"The archive {record['source']} is empty", "Check the file or the address.")
        write_json(folder / RECORD, record)


def _broken(source: str, error: BaseException) -> DogbreedError:
    return DogbreedError(f"The archive {source} is broken ({error})", "Fetch it again, or check the file.")


def _unpack(archive: Path, folder: Path, limits: Limits) -> int:
    """Unpacks and returns the number of files."""
    members = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
    size = archive.stat().st_size
    entries = files = written = shown = 0
    with contextlib.closing(members), progress("Unpacking", size // _MB, unit="MB") as advance:
        for member in members:
            entries += 1
            if entries > limits.max_files:
                raise _unsafe(archive, f"it holds more than {limits.max_files} files")
            target = _target(archive, folder, member)
            if target is None:
                continue
            try:
                if member.kind == "folder":
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                stream = member.open()
                assert stream is not None  # what tarfile gives for anything but a regular file
                with stream, target.open("xb") as file:
                    while chunk := stream.read(_CHUNK):
                        written += len(chunk)
                        if written > limits.max_bytes:
                            raise _unsafe(archive, f"its files take more than {limits.max_bytes / 1e9:.1f} GB")
                        if written > max(RATIO_FREE_BYTES, MAX_RATIO * size):
                            raise _unsafe(archive, f"it unpacks to more than {MAX_RATIO} times its size")
                        file.write(chunk)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise _unsafe(archive, f"it holds {member.name!r} twice") from None
            files += 1
            advance(member.archive_bytes // _MB - shown, f"{files} files")
            shown = member.archive_bytes // _MB
    return files


def _target(archive: Path, folder: Path, member: _Member) -> Path | None:
    """Where to put an entry; None for what macOS adds. What could be written elsewhere refuses the whole archive."""
    name = member.name.replace("\\", "/")
    path = PurePosixPath(name)
    parts = [p for p in path.parts if p != "."]
    if path.is_absolute() or ".." in parts or "\0" in name or (parts and ":" in parts[0]):
        raise _unsafe(archive, f"{member.name!r} would be written outside of the folder")
    if member.kind == "other":
        raise _unsafe(archive, f"{member.name!r} is a link or a device, not a file")
    if not parts or parts[0] == "__MACOSX" or parts[-1] == ".DS_Store" or parts[-1].startswith("._"):
        return None
    return folder.joinpath(*parts)


def _unsafe(archive: Path, why: str) -> DogbreedError:
    return DogbreedError(f"The archive {archive.name} is not safe to unpack: {why}", "Get it from a source you trust.")


def _zip_members(archive: Path) -> Generator[_Member, None, None]:
    used = 0
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            used += info.compress_size
            yield _Member(
                info.filename,
                "folder" if info.is_dir() else "file" if kind in (0, stat.S_IFREG) else "other",
                lambda info=info: opened.open(info),  # type: ignore[misc]
                used,
            )


def _tar_members(archive: Path) -> Generator[_Member, None, None]:
    with archive.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        # Not tarfile's own unpacking, which passes over gzip's checksum.
        opener = next((opener for start, opener in _COMPRESSIONS.items() if magic.startswith(start)), None)
        plain = opener(raw, mode="rb") if opener else raw
        try:
            # As a stream: each member is read once, in order, and nothing is looked up ahead.
            opened = tarfile.open(fileobj=plain, mode="r|")  # noqa: SIM115
        except (*_BROKEN_ARCHIVE, OSError):
            raise DogbreedError(
                f"{archive.name} is neither a zip nor a tar archive",
                "Give a .zip, .tar or .tar.gz file; an address may have answered with a web page.",
            ) from None
        with opened:
            for info in opened:
                yield _Member(
                    info.name,
                    "folder" if info.isdir() else "file" if info.isreg() else "other",
                    lambda info=info: opened.extractfile(info),  # type: ignore[misc]
                    raw.tell(),
                )
        plain.read(_CHUNK)  # the checksum comes after the last member
