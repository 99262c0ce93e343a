"""Getting a data set: an archive from the web or from a file, unpacked into a folder that is whole or not there."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from dogbreed.data.download import download, forget, only_one, reachable
from dogbreed.data.unpack import RECORD, Limits, unpack
from dogbreed.errors import DogbreedError
from dogbreed.files import read_json, sha256_file

__all__ = ["ORIGINAL_URL", "fetch", "reachable"]

ORIGINAL_URL = "https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip"  # 133 breeds, 1.1 GB
MAX_BYTES = 32 * 2**30
MAX_FILES = 1_000_000


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
            unpack(archive, out, limits, {"source": str(archive.absolute()), "sha256": digest})
        return out
    if _is_there(out, recorded, "source", url) and expected in (None, (recorded or {}).get("sha256")):
        return out
    if recorded:
        raise DogbreedError(f"{out} was fetched with another checksum", "Choose another folder, or remove this one.")
    archive = out.parent / f".{out.name}.archive.partial"
    out.parent.mkdir(parents=True, exist_ok=True)
    with only_one(archive):
        download(url, archive, max_bytes)
        try:
            digest = sha256_file(archive)
            _check_digest(digest, expected, source)
            unpack(archive, out, limits, {"source": url, "sha256": digest})
        except DogbreedError:
            forget(archive)  # another download may be better; after a full disk or Ctrl-C this one is still good
            raise
        forget(archive)
    return out


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
