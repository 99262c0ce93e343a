"""Downloading a large file: resumed after a drop or Ctrl-C, and given up with one clear line."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import filelock

from dogbreed.console import progress
from dogbreed.errors import DogbreedError
from dogbreed.files import write_json

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
RETRIES = 5  # in a row, without a single byte gained
RETRY_WAIT_S = 1.0  # doubled after each failure

_CHUNK = 1 << 20
_MB = 1_000_000
_DROPPED = (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError)
T = TypeVar("T")


def reachable(url: str, timeout_s: float = CONNECT_TIMEOUT_S) -> bool:
    """Whether the address answers with a file within `timeout_s` seconds, the name look-up included."""

    def ask() -> bool:
        with _request(url, {"Range": "bytes=0-0"}, timeout_s) as answer:
            return bool(answer.status in (200, 206))

    try:
        return _within(timeout_s, ask)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def download(url: str, partial: Path, max_bytes: int) -> None:
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
        forget(partial)
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
            forget(partial)  # before the new validator is written, or a kill would leave it beside the old bytes
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


def forget(partial: Path) -> None:
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
def only_one(partial: Path) -> Iterator[None]:
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
