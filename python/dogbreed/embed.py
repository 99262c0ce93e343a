"""Features of pictures, computed once: with a frozen network they never change.

Cached under a hash of all that they depend on (picture digests, backbone, weights, preprocessing, decoder):

    <cache>/features/v1/<extractor>/extractor.json          what the hash was made of
    <cache>/features/v1/<extractor>/<pictures>/features.npy (N, D) float32, memory-mapped when read
                                               digests.bin  N × 32 bytes: SHA-256 of each picture
                                               meta.json    pictures that could not be used, and why
    <cache>/features/v1/<extractor>/<pictures>.partial/     a computation under way or interrupted: it goes on

Pictures that another set of the same extractor holds are copied from there, so that a data set that grew by ten
pictures costs ten passes of the network.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from dogbreed.console import Advance, progress
from dogbreed.cpu import cpu_count
from dogbreed.data.dataset import Sample
from dogbreed.data.pictures import BadPicture, Pixels, decode_file
from dogbreed.errors import DogbreedError
from dogbreed.extractor import BATCH_SIZE, Extractor, FloatArray
from dogbreed.files import cache_dir, sha256_file, sha256_json, write_bytes, write_json

FORMAT = 1
CHUNK = 8 * BATCH_SIZE  # rows between two marks of progress: what a kill can cost
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Features:
    """The features of one split.

    matrix: (N, D) float32, memory-mapped where no picture was skipped.
    labels: (N,) int64, indices of classes.
    paths: the N pictures, in the order of the rows.
    key: a hash of pictures, extractor and view: equal keys mean equal features.
    skipped: pictures that are not among the N.
    seconds: time spent computing; 0 where everything was cached.
    """

    matrix: FloatArray
    labels: npt.NDArray[np.int64]
    paths: tuple[Path, ...]
    key: str
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)


def embed(
    samples: Sequence[Sample],
    extractor: Extractor,
    *,
    view: str = "plain",
    title: str = "Embedding",
    cache: Path | None = None,
) -> Features:
    """The features of labelled pictures, from the cache or computed now.

    A kill or Ctrl-C loses at most the last `CHUNK` pictures; two processes asking for the same features do the work
    once.

    Args:
        view: one of `pictures.VIEWS`.
        cache: folder of the caches; by default the user's.

    Raises:
        DogbreedError: no picture is usable, the disk is too full, or the cache is of another version.
    """
    started = time.perf_counter()
    paths = [s.path for s in samples]
    folder = (cache or cache_dir()) / "features" / f"v{FORMAT}" / _extractor_id(extractor, view)
    digests = _digests(paths)
    target = folder / hashlib.sha256(digests).hexdigest()[:16]
    cached = (target / "meta.json").exists()
    if not cached:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{target.name}.lock"):
            if not (target / "meta.json").exists():
                write_json(folder / "extractor.json", {**extractor.identity, "view": view})
                _compute(paths, digests, extractor, view, target, title)
    matrix, reasons = _open(target)
    usable = [i for i in range(len(samples)) if i not in reasons]
    if not usable:
        first = f"{paths[0].name}: {reasons[0]}" if paths else "there are none"
        raise DogbreedError(f"None of the {len(paths)} pictures can be used ({first})", "See: dogbreed data check DIR")
    return Features(
        matrix=matrix if len(usable) == len(samples) else matrix[usable],
        labels=np.array([samples[i].class_index for i in usable], dtype=np.int64),
        paths=tuple(paths[i] for i in usable),
        key=f"{folder.name}/{target.name}",
        skipped=tuple(Skipped(paths[i], reason) for i, reason in sorted(reasons.items())),
        seconds=0.0 if cached else time.perf_counter() - started,
    )


def embed_views(
    samples: Sequence[Sample], extractor: Extractor, views: Sequence[str], *, title: str, cache: Path | None = None
) -> Features:
    """The features of several views of each picture, one view after the other: N × V rows."""
    parts = [
        embed(samples, extractor, view=view, title=title if view == "plain" else f"{title} ({view})", cache=cache)
        for view in views
    ]
    if len(parts) == 1:
        return parts[0]
    return Features(
        matrix=np.concatenate([part.matrix for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        paths=tuple(path for part in parts for path in part.paths),
        key=sha256_json([part.key for part in parts])[:16],
        skipped=parts[0].skipped,
        seconds=sum(part.seconds for part in parts),
    )


def _extractor_id(extractor: Extractor, view: str) -> str:
    return sha256_json({**extractor.identity, "view": view})[:16]


def _digests(paths: Sequence[Path]) -> bytes:
    """The SHA-256 of each file, one after the other; of a file that cannot be read, that of nothing."""

    def digest(path: Path) -> bytes:
        try:
            return bytes.fromhex(sha256_file(path))
        except OSError:
            return hashlib.sha256().digest()

    with ThreadPoolExecutor(cpu_count()) as pool:
        return b"".join(pool.map(digest, paths))


def _digest(digests: bytes, row: int) -> bytes:
    return digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]


def _open(folder: Path) -> tuple[FloatArray, dict[int, str]]:
    """The matrix of a finished set, and the rows that hold nothing with the reason."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise ValueError(f"it has format {meta['format']}, this version reads {FORMAT}")
        matrix: FloatArray = np.load(folder / "features.npy", mmap_mode="r")
        if matrix.shape != (meta["rows"], meta["feature_size"]) or matrix.dtype != np.float32:
            raise ValueError("its matrix has another size")
        return matrix, {int(row): reason for row, reason in meta["skipped"].items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DogbreedError(
            f"The cached features in {folder} cannot be used ({error})", f"Remove them: rm -r '{folder}'"
        ) from None


def _compute(paths: Sequence[Path], digests: bytes, extractor: Extractor, view: str, target: Path, title: str) -> None:
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(exist_ok=True)
    store = _Store.open(partial, len(paths), _feature_size(extractor))
    with progress(title, len(paths), unit="pictures") as advance:
        advance(int(store.done.sum()))
        _copy_known(store, digests, target.parent, advance)
        todo = np.flatnonzero(~store.done)
        seeds = [int.from_bytes(_digest(digests, int(row))[:4], "big") for row in todo]

        def load(item: int) -> Pixels:
            return decode_file(paths[todo[item]], extractor.preprocessing, view, seed=seeds[item])

        with contextlib.closing(_batches(load, len(todo))) as batches:
            for items, pixels, bad in batches:
                rows = todo[items]
                if len(rows):
                    store.write(rows, extractor(pixels))
                store.skip({int(todo[item]): reason for item, reason in bad.items()})
                advance(len(items) + len(bad))
    write_bytes(partial / "digests.bin", digests)
    skipped = {str(row): reason for row, reason in sorted(store.skipped.items())}
    meta = {"format": FORMAT, "rows": len(paths), "feature_size": store.feature_size, "skipped": skipped}
    write_json(partial / "meta.json", meta)
    store.finish()
    shutil.rmtree(target, ignore_errors=True)  # what somebody has left of one whose meta.json is gone
    partial.replace(target)


def _feature_size(extractor: Extractor) -> int:
    size = extractor.preprocessing.crop_px
    return int(extractor(np.zeros((1, size, size, 3), np.uint8)).shape[1])


def _batches(
    load: Callable[[int], Pixels], count: int
) -> Generator[tuple[npt.NDArray[np.int64], Pixels, dict[int, str]]]:
    """Decodes in threads, some batches ahead of the network: decoding hides behind it, and memory stays flat.

    Yields:
        The items of a batch, their (B, H, W, 3) pixels, and the items that could not be decoded with the reason.
    """
    ahead = 4 * BATCH_SIZE
    pending: deque[Future[Pixels]] = deque()
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="decode") as pool:
        try:
            pending.extend(pool.submit(load, item) for item in range(min(ahead, count)))
            for first in range(0, count, BATCH_SIZE):
                good: list[int] = []
                pixels: list[Pixels] = []
                bad: dict[int, str] = {}
                for item in range(first, min(first + BATCH_SIZE, count)):
                    try:
                        pixels.append(pending.popleft().result())
                        good.append(item)
                    except BadPicture as error:
                        bad[item] = str(error)
                    if item + ahead < count:
                        pending.append(pool.submit(load, item + ahead))
                yield np.array(good, dtype=np.int64), np.stack(pixels) if pixels else np.empty(0, np.uint8), bad
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Store:
    """The rows of a matrix on disk, and which of them are done.

    Rows are written with plain writes: pages of a memory map would count as this process's memory and grow with the
    data.
    """

    def __init__(self, folder: Path, rows: int, feature_size: int) -> None:
        self.feature_size = feature_size
        self._row_bytes = feature_size * 4
        self._matrix = os.open(folder / "features.npy", os.O_RDWR)
        self._offset = os.fstat(self._matrix).st_size - rows * self._row_bytes
        self._done_file = folder / "done.bin"
        self._skipped_file = folder / "skipped.json"
        self.done = np.zeros(rows, dtype=bool)
        self.skipped: dict[int, str] = {}
        self._unmarked = 0
        if self._done_file.exists() and self._done_file.stat().st_size == rows:
            self.done = np.fromfile(self._done_file, dtype=bool)
            if self._skipped_file.exists():
                self.skipped = {
                    int(row): why for row, why in json.loads(self._skipped_file.read_text(encoding="utf-8")).items()
                }

    @classmethod
    def open(cls, folder: Path, rows: int, feature_size: int) -> _Store:
        matrix = folder / "features.npy"
        needed = rows * feature_size * 4
        if _shape(matrix) != (rows, feature_size):
            (folder / "done.bin").unlink(missing_ok=True)
            free = shutil.disk_usage(folder).free
            if free < needed:
                raise DogbreedError(
                    f"The features need {needed / 1e6:.0f} MB but {folder} has {free / 1e6:.0f} MB left",
                    "Free some space, or set DOGBREED_CACHE to a folder on a larger disk.",
                )
            np.lib.format.open_memmap(matrix, mode="w+", dtype=np.float32, shape=(rows, feature_size))
        return cls(folder, rows, feature_size)

    def write(self, rows: npt.NDArray[np.int64], features: FloatArray) -> None:
        features = np.ascontiguousarray(features, dtype=np.float32)
        for row, values in zip(rows, features, strict=True):
            written = os.pwrite(self._matrix, values.data, self._offset + int(row) * self._row_bytes)
            if written < self._row_bytes:  # the last bytes of a disk take part of a row without an error
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._done_file.with_name("features.npy")))
        self.done[rows] = True
        self._mark(len(rows))

    def skip(self, reasons: dict[int, str]) -> None:
        if reasons:
            self.skipped.update(reasons)
            self.done[list(reasons)] = True
            self._mark(len(reasons))

    def _mark(self, count: int) -> None:
        self._unmarked += count
        if self._unmarked >= CHUNK:
            self.save()

    def save(self) -> None:
        """Rows first, then the marks: a mark never stands for a row that a crash took."""
        os.fsync(self._matrix)
        write_json(self._skipped_file, self.skipped)
        write_bytes(self._done_file, self.done.tobytes())
        self._unmarked = 0

    def finish(self) -> None:
        os.fsync(self._matrix)
        os.close(self._matrix)
        for leftover in (self._done_file, self._skipped_file, *self._done_file.parent.glob(".*.partial")):
            leftover.unlink(missing_ok=True)


def _shape(matrix: Path) -> tuple[int, ...] | None:
    """The shape of a matrix; None where there is none, or the start of one that a kill or a full disk has left."""
    try:
        shape: tuple[int, ...] = np.load(matrix, mmap_mode="r").shape
    except (OSError, ValueError, EOFError):
        return None
    return shape


def _copy_known(store: _Store, digests: bytes, folder: Path, advance: Advance) -> None:
    """Takes the rows that finished sets of the same extractor hold."""
    wanted = {_digest(digests, int(row)): int(row) for row in np.flatnonzero(~store.done)}
    for meta in sorted(folder.glob("*/meta.json")):
        if not wanted or meta.parent.suffix == ".partial":
            continue
        try:
            matrix, skipped = _open(meta.parent)
            known = (meta.parent / "digests.bin").read_bytes()
        except (DogbreedError, OSError):
            continue  # a neighbour that is broken is reported when it is asked for, not here
        found = [
            (row, wanted[d])
            for row in range(len(matrix))
            if row not in skipped and (d := _digest(known, row)) in wanted
        ]
        for some in _chunks(found):
            store.write(np.array([ours for _, ours in some]), matrix[[theirs for theirs, _ in some]])
            advance(len(some))
        for _, ours in found:
            wanted.pop(_digest(digests, ours), None)


def _chunks(items: list[tuple[int, int]]) -> Iterable[list[tuple[int, int]]]:
    return (items[i : i + CHUNK] for i in range(0, len(items), CHUNK))
