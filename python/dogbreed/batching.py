"""The work behind the server: threads that decode pictures and run the network, several pictures at once under load.

Large pictures of the formats that are decoded as a whole take seconds and hundreds of megabytes: one is worked on at a
time, and the others wait for it apart from the rest.

A free thread takes what is waiting, its share of it and at most a batch, and never waits for more to come: a single
request is answered as fast as without batches. Each thread has its share of the cores for decoding and network alike,
so that nothing is handed over in between; on a CPU that answers more requests than all cores working on one picture.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dogbreed.data.limits import announced
from dogbreed.data.pictures import Pixels
from dogbreed.gallery import to_jpeg
from dogbreed.inference import BadRequest, Request, pixels_of, to_json
from dogbreed.model import Model

LARGE_PIXELS = 8_000_000

Answer = tuple[dict[str, Any], dict[str, float]]  # what to_json gives, and the milliseconds of each step


@dataclass
class _Job:
    request: Request
    large: bool
    future: Future[Answer] = field(default_factory=Future)
    queued_s: float = field(default_factory=time.perf_counter)
    ms: dict[str, float] = field(default_factory=dict)
    pixels: Pixels | None = None


class Batcher:
    """Answers requests on `threads` threads, each of which has answered a drawn picture when this returns.

    Quick start: `Batcher(model, threads=2, max_batch=8).submit(request).result()`; the model's extractor needs as many
    streams as there are threads.
    """

    def __init__(
        self, model: Model, *, threads: int, max_batch: int, on_batch: Callable[[int], None] = lambda size: None
    ) -> None:
        self._model, self._max_batch, self._on_batch = model, max_batch, on_batch
        self._waiting: deque[_Job] = deque()
        self._large: deque[_Job] = deque()
        self._busy_with_large = False
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []
        for _ in range(threads):  # one after the other: the first makes what all share
            warm: Future[None] = Future()
            thread = threading.Thread(target=self._work, args=(warm,), name="network", daemon=True)
            thread.start()
            warm.result()
            self._threads.append(thread)

    def submit(self, request: Request) -> Future[Answer]:
        """Queues a request. Its future gives the answer or raises BadRequest; cancelling drops it from the queue."""
        header = announced(request.picture)
        job = _Job(request, large=header is not None and header.pixels > LARGE_PIXELS and not header.by_rows)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            (self._large if job.large else self._waiting).append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Answers what is queued and ends the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, warm: Future[None]) -> None:
        try:
            self._warm_up()
            warm.set_result(None)
        except BaseException as error:
            warm.set_exception(error)
            return
        while batch := self._take():
            try:
                self._answer(batch)
            except BaseException as error:
                for job in batch:
                    if not job.future.done():
                        job.future.set_exception(error)
            finally:
                if batch[0].large:
                    with self._changed:
                        self._busy_with_large = False
                        self._changed.notify_all()

    def _warm_up(self) -> None:
        """Decodes a picture and runs the network in the smallest and the largest batch: nothing is left to allocate."""
        drawn = np.linspace(0, 255, 256 * 256 * 3).reshape(256, 256, 3).astype(np.uint8)
        pixels = pixels_of(Request(to_jpeg(drawn, 256)), self._model)
        for size in {1, self._max_batch}:
            self._model.extractor(np.stack([pixels] * size))

    def _take(self) -> list[_Job]:
        """The next batch; empty when closed."""
        with self._changed:
            while not (self._waiting or self._may_take_large()) and not (self._closed and not self._large):
                self._changed.wait()
            if self._may_take_large() and (not self._waiting or self._large[0].queued_s < self._waiting[0].queued_s):
                self._busy_with_large = True
                return [self._large.popleft()]
            share = math.ceil(len(self._waiting) / len(self._threads))
            return [self._waiting.popleft() for _ in range(min(share, self._max_batch))]

    def _may_take_large(self) -> bool:
        return bool(self._large) and not self._busy_with_large

    def _answer(self, batch: list[_Job]) -> None:
        ready = [job for job in batch if job.future.set_running_or_notify_cancel() and self._decode(job)]
        if not ready:
            return
        self._on_batch(len(ready))
        started = time.perf_counter()
        features = self._model.extractor(np.stack([job.pixels for job in ready if job.pixels is not None]))
        network_ms = (time.perf_counter() - started) * 1e3
        for job, row in zip(ready, features, strict=True):
            job.ms["network"] = network_ms
            assert job.pixels is not None
            job.future.set_result((to_json(job.request, self._model, job.pixels, row, job.ms), job.ms))

    def _decode(self, job: _Job) -> bool:
        started = time.perf_counter()
        job.ms["queue"] = (started - job.queued_s) * 1e3
        try:
            job.pixels = pixels_of(job.request, self._model)
        except BadRequest as error:
            job.future.set_exception(error)
            return False
        job.ms["decode"] = (time.perf_counter() - started) * 1e3
        return True
