"""Files that are either whole or not there, and the folder of caches."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dogbreed.config import SageMaker
from dogbreed.errors import DogbreedError


def cache_dir() -> Path:
    """The folder of what can be computed or fetched again.

    `DOGBREED_CACHE`, else in a SageMaker job what survives a spot interruption, else one in the user's cache folder.
    """
    if chosen := os.environ.get("DOGBREED_CACHE"):
        return Path(chosen).expanduser()
    if SageMaker.in_job():
        return SageMaker.checkpoints() / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dogbreed"


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Gives a path beside `target` to write to; it becomes `target` if the block ends well, else it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.chmod(0o644)  # mkstemp makes files that only their owner can read
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes) -> None:
    with atomic_path(target) as partial:
        partial.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    write_bytes(target, text.encode())


def write_json(target: Path, value: Any) -> None:
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(source: Path, *, what: str, fix: str) -> Any:
    """Reads JSON; a missing or broken file is the user's to mend: `what` names it, `fix` says how."""
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DogbreedError(f"There is no {what} at {source}", fix) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DogbreedError(f"The {what} {source} is not valid JSON ({error})", fix) from None


@contextlib.contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """Like `atomic_path` for a folder: an existing `target` stays until the new one is whole, then it is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial"))
    try:
        yield partial
        partial.chmod(0o755)
        if target.is_mount():  # a volume of a container: it can be filled but not replaced
            for path in target.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(partial, target, dirs_exist_ok=True)
            return
        old = partial.with_suffix(".old")
        try:
            if target.exists():
                target.rename(old)
            partial.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """A hash of a value's canonical JSON: equal values give equal hashes whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
