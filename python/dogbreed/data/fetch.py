"""Getting a data set: an archive from the web or from a file, unpacked into a folder that is whole or not there."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import http.client
import json
import lzma
import shutil
import socket
import stat
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import filelock

from dogbreed.console import progress
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_dir, read_json, sha256_file, write_json

ORIGINAL_URL = "https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip"  # 133 breeds, 1.1 GB

MAX_BYTES = 32 * 2**30
MAX_FILES = 1_000_000
# Photographs hardly compress; drawings saved as BMP reach some tens. Small archives may compress as they like.
MAX_RATIO = 200
RATIO_FREE_BYTES = 64 * 2**20

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
RETRIES = 5  # in a row, without a single byte gained
RETRY_WAIT_S = 1.0  # doubled after each failure

RECORD = ".dogbreed-source.json"
_CHUNK = 1 << 20
_MB = 1_000_000
_DROPPED = (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError)
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
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most; counted while it is unpacked, for its headers may say anything."""

    max_bytes: int
    max_files: int


def fetch(
    source: str, out: Path, *, sha256: str | None = None, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> Path:
    """Downloads (or opens) an archive and unpacks it into the folder `out`.

    An interrupted download goes on where it stopped, and a second call with the same source does nothing.

    Args:
        source: an http(s) or file URL, or the path of a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz file.
        sha256: the archive's expected checksum, in hexadecimal.
        max_bytes: the most that the unpacked files (and the archive) may take.
        max_files: the most files and folders that the archive may hold.

    Returns:
        `out`, which then holds the archive's files and a hidden record of where they came from.

    Raises:
        DogbreedError: no such source, no connection (within five seconds), a wrong checksum, an archive that is broken,
            too large or unsafe, or an `out` that holds something else.
    """
    out = Path(out).expanduser()
    url = source if urllib.parse.urlsplit(source).scheme in ("http", "https") else None
    expected = sha256.strip().lower() if sha256 else None
    limits = Limits(max_bytes, max_files)
    recorded = _recorded(out)
    if url is None:
        archive = _local_archive(source)
        digest = sha256_file(archive)
        _check_digest(digest, expected, source)
        if not _is_there(out, recorded, "sha256", digest):
            _unpack_into(archive, out, limits, {"source": str(archive.absolute()), "sha256": digest})
        return out
    if _is_there(out, recorded, "source", url) and expected in (None, (recorded or {}).get("sha256")):
        return out
    if recorded:
        raise DogbreedError(f"{out} was fetched with another checksum", "Choose another folder, or remove this one.")
    archive = out.parent / f".{out.name}.archive.partial"
    out.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(archive):
        _download(url, archive, max_bytes)
        try:
            digest = sha256_file(archive)
            _check_digest(digest, expected, source)
            _unpack_into(archive, out, limits, {"source": url, "sha256": digest})
        except DogbreedError:
            _forget(archive)  # another download may be better; after a full disk or Ctrl-C this one is still good
            raise
        _forget(archive)
    return out


def reachable(url: str, timeout_s: float = CONNECT_TIMEOUT_S) -> bool:
    """Whether the address answers with a file within `timeout_s` seconds, the name look-up included."""

    def ask() -> bool:
        with _request(url, {"Range": "bytes=0-0"}, timeout_s) as answer:
            return bool(answer.status in (200, 206))

    try:
        return _within(timeout_s, ask)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _recorded(out: Path) -> dict[str, str] | None:
    """The record in a folder that we unpacked; None where there is nothing yet."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise DogbreedError(f"{out} is a file", "Give a folder to unpack into.")
    if (out / RECORD).is_file():
        record: dict[str, str] = read_json(out / RECORD, what="record of the source", fix=f"Remove the folder {out}.")
        return record
    if any(out.iterdir()):
        raise DogbreedError(f"{out} already holds other files", "Choose another folder, or empty this one.")
    return None


def _is_there(out: Path, recorded: dict[str, str] | None, key: str, value: str) -> bool:
    if recorded is None:
        return False
    if recorded.get(key) == value:
        return True
    raise DogbreedError(
        f"{out} already holds the data set from {recorded.get('source')}", "Choose another folder, or remove this one."
    )


def _local_archive(source: str) -> Path:
    parts = urllib.parse.urlsplit(source)
    if parts.scheme not in ("", "file") and "://" in source:
        raise DogbreedError(
            f"{source} cannot be fetched", "Give an http:// or https:// address, or the path of an archive."
        )
    path = Path(urllib.request.url2pathname(parts.path) if parts.scheme == "file" else source).expanduser()
    if path.is_dir():
        raise DogbreedError(f"{path} is a folder, not an archive", "It needs no fetching: use it as the data set.")
    if not path.is_file():
        raise DogbreedError(f"There is no file {path}", "Give a URL, or the path of a .zip or .tar.gz archive.")
    return path


def _check_digest(digest: str, expected: str | None, source: str) -> None:
    if expected not in (None, digest):
        raise DogbreedError(
            f"The checksum of {source} is {digest}, not {expected}",
            "The file is damaged or another one than expected: fetch it again, or correct the checksum.",
        )


# ── downloading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _download(url: str, partial: Path, max_bytes: int) -> None:
    """Brings `partial` to the whole file; on dropped connections it waits and goes on where it was."""
    _check_connection(url)
    failures, best = 0, _size(partial)
    while True:
        try:
            if _download_rest(url, partial, max_bytes):
                return
            reason = "the connection was closed early"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise DogbreedError(
                    f"{url} answers {error.code} {error.reason}", "Check the address; it may have moved."
                ) from None
            reason = f"the server answers {error.code}"
        except _DROPPED as error:
            reason = _reason(error)
        failures = 0 if _size(partial) > best else failures + 1
        best = max(best, _size(partial))
        if failures >= RETRIES:
            raise DogbreedError(
                f"The download of {url} stopped at {_size(partial) / _MB:.0f} MB ({reason})",
                "Run the same command again: it goes on from there.",
            )
        time.sleep(RETRY_WAIT_S * 2**failures)


def _download_rest(url: str, partial: Path, max_bytes: int) -> bool:
    """Appends what is missing; True when the file is whole, False when the connection ended too soon."""
    done, validator = _resume_point(url, partial)
    headers = {"Range": f"bytes={done}-", "If-Range": validator} if done and validator else {}
    try:
        answer = _request(url, headers, READ_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing lies beyond our last byte: either we have it all, or the file has become shorter.
        if error.headers.get("Content-Range", "").endswith(f"/{done}"):
            return True
        _forget(partial)
        return False
    with answer:
        if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0  # the file has changed, or the server cannot resume: it sends everything
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        _check_room(url, partial, total, done, max_bytes)
        # A weak ETag promises the same meaning, not the same bytes.
        etag = answer.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        if not done:
            _forget(partial)  # before the new validator is written, or a kill would leave it beside the old bytes
        write_json(_resume_file(partial), {"url": url, "validator": validator})
        with (
            partial.open("r+b" if done else "wb") as file,
            progress("Downloading", (total or 0) // _MB, unit="MB") as p,
        ):
            file.seek(done)
            file.truncate()
            p(done // _MB)
            while chunk := answer.read1(_CHUNK):  # what has arrived, so that a dropped connection loses nothing
                file.write(chunk)
                p((done + len(chunk)) // _MB - done // _MB)
                done += len(chunk)
                if done > max_bytes:
                    raise DogbreedError(
                        f"{url} is larger than {max_bytes / 1e9:.1f} GB", "Raise the limit to allow it."
                    )
    return total is None or done == total


def _resume_file(partial: Path) -> Path:
    return partial.with_suffix(".json")


def _resume_point(url: str, partial: Path) -> tuple[int, str]:
    """How many bytes of this very file we have, and the validator (ETag or date) that the server gave with them."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(_resume_file(partial).read_text())
        if known["url"] == url and known["validator"]:
            return _size(partial), known["validator"]
    return 0, ""


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _resume_file(partial).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_room(url: str, partial: Path, total: int | None, done: int, max_bytes: int) -> None:
    if total is None:
        return
    if total > max_bytes:
        raise DogbreedError(
            f"{url} has {total / 1e9:.1f} GB, more than the limit of {max_bytes / 1e9:.1f} GB", "Raise the limit."
        )
    # The archive and its unpacked files lie side by side for a while; pictures take about the same room in both.
    needed, free = 2 * total - done, shutil.disk_usage(partial.parent).free
    if needed > free:
        raise DogbreedError(
            f"{url} needs {needed / 1e9:.1f} GB in {partial.parent}, where {free / 1e9:.1f} GB are free",
            "Free some space, or choose a folder on another disk.",
        )


def _request(url: str, headers: dict[str, str], timeout_s: float) -> http.client.HTTPResponse:
    # Some servers compress on the way, and then neither the length nor a resumed range would fit.
    headers = {"User-Agent": "dogbreed", "Accept-Encoding": "identity", **headers}
    answer: http.client.HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=timeout_s
    )
    return answer


def _check_connection(url: str) -> None:
    """Finds out in a few seconds that there is no way to the host (or to the proxy in front of it)."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        _within(CONNECT_TIMEOUT_S, lambda: socket.create_connection(address, CONNECT_TIMEOUT_S).close())
    except (OSError, ValueError) as error:
        raise DogbreedError(
            f"{url} cannot be reached ({_reason(error)})",
            "Check the address and the connection, or give the path of a downloaded archive.",
        ) from None


def _within(seconds: float, action: Callable[[], T]) -> T:
    """Runs `action` for at most `seconds`: a name look-up has no time limit of its own and can hang for a minute."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause)


@contextlib.contextmanager
def _only_one(partial: Path) -> Iterator[None]:
    """Two downloads into one file would mix their bytes."""
    lock = filelock.FileLock(partial.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise DogbreedError(
            f"Another download into {partial.parent} is running", "Wait for it, or choose another folder."
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


# ── unpacking ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; `archive_bytes` is how much of the archive has been used up to and with it."""

    name: str
    kind: str  # "file", "folder" or "other"
    open: Callable[[], IO[bytes] | None]
    archive_bytes: int


def _unpack_into(archive: Path, out: Path, limits: Limits, record: dict[str, str]) -> None:
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
