"""Fetching a data set: real downloads from a server on this machine, real archives, some of them hostile."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dogbreed.data import download
from dogbreed.data.fetch import fetch, reachable
from dogbreed.errors import DogbreedError

FILES = {f"dogs/train/{n:03d}.Breed/{i}.jpg": os.urandom(20_000) for n in (1, 2) for i in range(20)}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pictures(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if not name.startswith(".")}


class Server:
    """A web server with ranges and ETags, which can drop the connection after some bytes."""

    def __init__(self, body: bytes) -> None:
        self.body, self.drops, self.status, self.requests = body, [], 0, []  # type: ignore[var-annotated]
        self.ranges, self.pause = True, 0.0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body, etag = outer.body, f'"{hashlib.md5(outer.body).hexdigest()}"'
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                if outer.status:
                    self.send_error(outer.status)
                    return
                start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and outer.ranges else 0
                if self.headers.get("If-Range") not in (None, etag):
                    start = 0
                if start and start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if start or (wanted and outer.ranges) else 200)
                if start or (wanted and outer.ranges):
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                end = min(len(body), start + outer.drops.pop(0)) if outer.drops else len(body)
                for at in range(start, end, 65536):
                    self.wfile.write(body[at : min(at + 65536, end)])
                    time.sleep(outer.pause)
                if end < len(body):
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/dogImages.zip"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Server]]:
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    servers: list[Server] = []

    def start(body: bytes) -> Server:
        servers.append(Server(body))
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_zip(tmp_path / "dogs.zip", FILES)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_unpacks_tar_archives(tmp_path: Path, mode: str) -> None:
    source = make_tar(tmp_path / "dogs.tar", FILES, mode)
    assert pictures(fetch(str(source), tmp_path / "out")) == FILES


def test_unpacks_a_zip_named_by_a_path_or_a_file_url(tmp_path: Path, archive: Path) -> None:
    assert pictures(fetch(str(archive), tmp_path / "a")) == FILES
    assert pictures(fetch(archive.as_uri(), tmp_path / "b")) == FILES


def test_leaves_out_what_macos_adds(tmp_path: Path) -> None:
    junk = {"__MACOSX/dogs/._1.jpg": b"x", "dogs/.DS_Store": b"x", "dogs/._1.jpg": b"x"}
    source = make_zip(tmp_path / "dogs.zip", {"dogs/1.jpg": b"picture", **junk})
    assert pictures(fetch(str(source), tmp_path / "out")) == {"dogs/1.jpg": b"picture"}


def test_a_second_fetch_changes_nothing(tmp_path: Path, archive: Path) -> None:
    out = fetch(str(archive), tmp_path / "out")
    (out / "mine.txt").write_text("kept")
    before = out.stat().st_ino
    assert fetch(str(archive), out) == out
    assert (out.stat().st_ino, (out / "mine.txt").read_text()) == (before, "kept")


def test_another_archive_does_not_replace_a_data_set(tmp_path: Path, archive: Path) -> None:
    out = fetch(str(archive), tmp_path / "out")
    other = make_zip(tmp_path / "other.zip", {"a/1.jpg": b"other"})
    with pytest.raises(DogbreedError, match=r"already holds the data set from .*dogs.zip.*another folder"):
        fetch(str(other), out)
    assert pictures(out) == FILES


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DogbreedError, match="Choose another folder"):
        fetch(str(archive), tmp_path / "out")
    assert contents(tmp_path / "out") == {"thesis.txt": b"mine"}


def test_an_empty_folder_is_used(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "out").mkdir()
    assert pictures(fetch(str(archive), tmp_path / "out")) == FILES


def test_a_wrong_checksum_of_a_file_is_an_error_and_the_file_stays(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(DogbreedError, match="checksum"):
        fetch(str(archive), tmp_path / "out", sha256="0" * 64)
    assert archive.exists() and not (tmp_path / "out").exists()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert pictures(fetch(str(archive), tmp_path / "out", sha256=digest.upper())) == FILES


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere.zip", "no file"), ("s3://bucket/dogs.zip", "cannot be fetched"), (".", "is a folder")],
)
def test_what_is_no_archive_is_named(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(DogbreedError, match=message):
        fetch(source, tmp_path / "out")


def truncated_zip(path: Path) -> None:
    make_zip(path, FILES)
    path.write_bytes(path.read_bytes()[:300_000])


def damaged_zip(path: Path) -> None:
    make_zip(path, FILES)
    data = bytearray(path.read_bytes())
    data[100_000:100_100] = bytes(100)
    path.write_bytes(data)


def truncated_tar(path: Path) -> None:
    make_tar(path, FILES)
    path.write_bytes(path.read_bytes()[:300_000])


def damaged_gzip(path: Path) -> None:
    make_tar(path, FILES)
    data = bytearray(path.read_bytes())
    data[-8:] = bytes(8)
    path.write_bytes(data)


def web_page(path: Path) -> None:
    path.write_text("<html>Not found</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def empty_zip(path: Path) -> None:
    make_zip(path, {})


@pytest.mark.parametrize(
    "make",
    [truncated_zip, damaged_zip, truncated_tar, damaged_gzip, web_page, empty, empty_zip],
    ids=lambda m: m.__name__,
)
def test_a_broken_archive_leaves_nothing(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "dogs.bin")
    with pytest.raises(DogbreedError, match=r"broken|neither a zip nor a tar|empty"):
        fetch(str(tmp_path / "dogs.bin"), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["dogs.bin"]


# ── hostile archives ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"])
@pytest.mark.parametrize("make", [make_zip, make_tar], ids=["zip", "tar"])
def test_no_entry_is_written_elsewhere(tmp_path: Path, make: Callable[..., Path], name: str) -> None:
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in" / "dogs", {"a/1.jpg": b"picture", name: b"evil"})
    with pytest.raises(DogbreedError, match="outside of the folder"):
        fetch(str(source), tmp_path / "in" / "out")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["in", "in/dogs"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    source = tmp_path / "dogs.tar"
    with tarfile.open(source, "w") as archive:
        info = tarfile.TarInfo("dogs/link.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DogbreedError, match="link or a device"):
        fetch(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("dogs/link.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "dogs.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DogbreedError, match="link or a device"):
        fetch(str(tmp_path / "dogs.zip"), tmp_path / "out")


def test_the_limits_hold_whatever_the_headers_say(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(DogbreedError, match="more than 10 files"):
        fetch(str(archive), tmp_path / "out", max_files=10)
    with pytest.raises(DogbreedError, match="take more than"):
        fetch(str(archive), tmp_path / "out", max_bytes=100_000)
    assert [p.name for p in tmp_path.iterdir()] == ["dogs.zip"]


@pytest.mark.parametrize("make", [make_zip, make_tar], ids=["zip", "tar"])
def test_a_bomb_is_stopped_early(tmp_path: Path, make: Callable[..., Path]) -> None:
    source = make(tmp_path / "bomb", {"a.jpg": bytes(90 * 2**20)})
    with pytest.raises(DogbreedError, match="200 times its size"):
        fetch(str(source), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["bomb"]


def test_an_encrypted_zip_and_a_name_twice_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("a.jpg", "1")
        archive.writestr("a.jpg", "2")
    with pytest.raises(DogbreedError, match="twice"):
        fetch(str(tmp_path / "twice.zip"), tmp_path / "out")
    data = bytearray(make_zip(tmp_path / "locked.zip", {"a.jpg": b"1"}).read_bytes())
    data[6] |= 1  # the flag of encryption, in the entry and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(DogbreedError, match="encrypted"):
        fetch(str(tmp_path / "locked.zip"), tmp_path / "out")


def test_a_gzip_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dogs.tar.gz").write_bytes(gzip.compress(b"not a tar" * 1000))
    with pytest.raises(DogbreedError, match=r"neither a zip nor a tar|broken"):
        fetch(str(tmp_path / "dogs.tar.gz"), tmp_path / "out")


# ── downloads ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dropped_connection_is_resumed(tmp_path: Path, archive: Path, serve: Callable[[bytes], Server]) -> None:
    server = serve(archive.read_bytes())
    server.drops = [300_000, 100_000]
    assert pictures(fetch(server.url, tmp_path / "out")) == FILES
    assert server.requests == [None, "bytes=300000-", "bytes=400000-"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dogs.zip", "out"]


def test_a_second_command_goes_on_where_the_first_stopped(
    tmp_path: Path, archive: Path, serve: Callable[[bytes], Server]
) -> None:
    server = serve(archive.read_bytes())
    server.drops = [300_000, *[0] * 9]
    with pytest.raises(DogbreedError, match="Run the same command again"):
        fetch(server.url, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    server.drops, server.requests = [], []
    assert pictures(fetch(server.url, tmp_path / "out")) == FILES
    assert server.requests == ["bytes=300000-"]


def test_a_changed_file_is_downloaded_anew(tmp_path: Path, archive: Path, serve: Callable[[bytes], Server]) -> None:
    server = serve(os.urandom(500_000))
    server.drops = [300_000, *[0] * 9]
    with pytest.raises(DogbreedError, match="Run the same command again"):
        fetch(server.url, tmp_path / "out")
    server.body, server.drops = archive.read_bytes(), []
    assert pictures(fetch(server.url, tmp_path / "out")) == FILES


def test_a_server_without_ranges_works(tmp_path: Path, archive: Path, serve: Callable[[bytes], Server]) -> None:
    server = serve(archive.read_bytes())
    server.drops, server.ranges = [300_000], False
    assert pictures(fetch(server.url, tmp_path / "out")) == FILES


def test_a_second_fetch_asks_the_server_nothing(
    tmp_path: Path, archive: Path, serve: Callable[[bytes], Server]
) -> None:
    server = serve(archive.read_bytes())
    fetch(server.url, tmp_path / "out")
    server.requests.clear()
    fetch(server.url, tmp_path / "out")
    assert server.requests == []


def test_a_download_with_a_wrong_checksum_is_removed(
    tmp_path: Path, archive: Path, serve: Callable[[bytes], Server]
) -> None:
    server = serve(archive.read_bytes())
    with pytest.raises(DogbreedError, match="checksum"):
        fetch(server.url, tmp_path / "out", sha256="0" * 64)
    assert [p.name for p in tmp_path.iterdir()] == ["dogs.zip"]


def test_a_missing_page_is_an_error_at_once(tmp_path: Path, serve: Callable[[bytes], Server]) -> None:
    server = serve(b"")
    server.status = 404
    with pytest.raises(DogbreedError, match="answers 404"):
        fetch(server.url, tmp_path / "out")
    assert len(server.requests) == 1 and not reachable(server.url)
    server.status = 0
    server.body = b"x"
    assert reachable(server.url)


def test_no_connection_is_found_out_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(download, "CONNECT_TIMEOUT_S", 1.0)
    # A name look-up without an answer hangs far longer than any socket's time limit.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(20))
    began = time.monotonic()
    with pytest.raises(DogbreedError, match=r"cannot be reached.*Check the address and the connection"):
        fetch("http://dogs.example/dogImages.zip", tmp_path / "out")
    assert not reachable("https://dogs.example/dogImages.zip", timeout_s=0.5)
    assert time.monotonic() - began < 4
    assert list(tmp_path.iterdir()) == []


def test_a_closed_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/dogs.zip"
    with pytest.raises(DogbreedError, match="refused"):
        fetch(url, tmp_path / "out")


def test_two_downloads_into_one_folder_do_not_mix(
    tmp_path: Path, archive: Path, serve: Callable[[bytes], Server]
) -> None:
    server = serve(archive.read_bytes())
    server.pause = 0.1
    first = threading.Thread(target=functools.partial(fetch, server.url, tmp_path / "out"))
    first.start()
    while not server.requests:
        time.sleep(0.01)
    with pytest.raises(DogbreedError, match="Another download"):
        fetch(server.url, tmp_path / "out")
    first.join()
    assert pictures(tmp_path / "out") == FILES


def test_after_ctrl_c_the_next_command_resumes(tmp_path: Path, archive: Path, serve: Callable[[bytes], Server]) -> None:
    server = serve(archive.read_bytes())
    server.pause = 0.2
    code = "import pathlib, sys; from dogbreed.data.fetch import fetch; fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    running = subprocess.Popen(
        [sys.executable, "-c", code, server.url, str(tmp_path / "out")],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "no_proxy": "*"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    partial = tmp_path / ".out.archive.partial"
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    assert running.wait(10) != 0
    assert not (tmp_path / "out").exists()
    server.pause = 0.0
    server.requests.clear()
    assert pictures(fetch(server.url, tmp_path / "out")) == FILES
    assert server.requests[0] not in (None, "bytes=0-")
