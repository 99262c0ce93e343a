"""The threads behind the server: batches form under load, and what one request does is no other's business."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from photographs import CLASSES

from dogbreed.batching import Batcher
from dogbreed.data.pictures import Pixels
from dogbreed.extractor import FloatArray
from dogbreed.inference import BadRequest, Request, input_fn, predict_fn
from dogbreed.model import Model
from dogbreed.train import Trained


class Gate:
    """A runtime that waits until it is let through, and notes the sizes of its batches."""

    def __init__(self, model: Model) -> None:
        self.open = threading.Event()
        self.open.set()
        self.sizes: list[int] = []
        self._runtime = model.extractor.runtime
        self._lock = threading.Lock()

    def __call__(self, pixels: Pixels) -> FloatArray:
        self.open.wait(30)
        with self._lock:  # the runtime underneath has one stream
            self.sizes.append(len(pixels))
            return self._runtime(pixels)


@pytest.fixture
def model(trained: Trained, shared_cache: Path) -> Model:
    return Model.load(trained.folder, device="cpu")


@pytest.fixture
def gate(model: Model) -> Gate:
    return Gate(model)


@pytest.fixture
def gated(model: Model, gate: Gate) -> Model:
    extractor = replace(model.extractor)
    vars(extractor)["runtime"] = gate
    return replace(model, extractor=extractor)


@pytest.fixture
def pictures(photos: Path) -> list[bytes]:
    return [path.read_bytes() for name in CLASSES for path in sorted((photos / "test" / name).iterdir())]


@pytest.fixture
def batcher(gated: Model) -> Iterator[Batcher]:
    batcher = Batcher(gated, threads=2, max_batch=4)
    yield batcher
    batcher.close()


def test_under_load_batches_form_and_each_gets_its_own_answer(
    batcher: Batcher, gate: Gate, model: Model, pictures: list[bytes]
) -> None:
    gate.open.clear()
    gate.sizes.clear()
    futures = [batcher.submit(Request(picture)) for picture in pictures]
    gate.open.set()
    answers = [future.result(30)[0] for future in futures]
    for picture, answer in zip(pictures, answers, strict=True):
        wanted = predict_fn(input_fn(picture, "image/jpeg"), model)
        assert [p["breed"] for p in answer["predictions"]] == [p["breed"] for p in wanted["predictions"]]
        got, expected = answer["predictions"][0]["probability"], wanted["predictions"][0]["probability"]
        assert got == pytest.approx(expected, abs=1e-4)
    assert sum(gate.sizes) == len(pictures) and max(gate.sizes) == 4, "as many as wait, and four at most"
    assert len(gate.sizes) < len(pictures)


def test_a_single_request_waits_for_no_other(batcher: Batcher, gate: Gate, pictures: list[bytes]) -> None:
    gate.sizes.clear()
    for picture in pictures[:3]:
        _, ms = batcher.submit(Request(picture)).result(30)
        assert set(ms) == {"queue", "decode", "network"}
    assert gate.sizes == [1, 1, 1]


def test_a_broken_picture_spoils_only_its_own_answer(batcher: Batcher, gate: Gate, pictures: list[bytes]) -> None:
    gate.open.clear()
    bodies = [pictures[0], b"broken", pictures[1][:500], pictures[2], b"", pictures[3]]
    futures = [batcher.submit(Request(body)) for body in bodies]
    gate.open.set()
    for body, future in zip(bodies, futures, strict=True):
        if body in pictures:
            assert future.result(30)[0]["predictions"]
        else:
            with pytest.raises(BadRequest) as caught:
                future.result(30)
            assert caught.value.status == 422


def test_a_request_that_nobody_waits_for_is_not_computed(batcher: Batcher, gate: Gate, pictures: list[bytes]) -> None:
    gate.open.clear()
    gate.sizes.clear()
    busy = [batcher.submit(Request(pictures[0])) for _ in range(2)]
    given_up = batcher.submit(Request(pictures[1]))
    while not given_up.cancel():  # a thread may be taking it at this very moment
        given_up = batcher.submit(Request(pictures[1]))
    gate.open.set()
    for future in busy:
        future.result(30)
    with pytest.raises(CancelledError):
        given_up.result(30)
    batcher.close()
    assert sum(gate.sizes) <= 3


def test_a_fault_of_ours_reaches_the_caller_and_the_thread_goes_on(
    gated: Model, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = Batcher(gated, threads=1, max_batch=1)
    runtime = vars(gated.extractor)["runtime"]

    def fail(pixels: Pixels) -> FloatArray:
        raise RuntimeError("out of order")

    monkeypatch.setitem(vars(gated.extractor), "runtime", fail)
    with pytest.raises(RuntimeError, match="out of order"):
        batcher.submit(Request(pictures[0])).result(30)
    monkeypatch.setitem(vars(gated.extractor), "runtime", runtime)
    assert batcher.submit(Request(pictures[0])).result(30)[0]["predictions"]
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(Request(pictures[0]))


def test_a_network_that_does_not_run_is_known_before_the_first_request(
    gated: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(gated.extractor), "runtime", lambda pixels: np.zeros(1 // (len(pixels) - 1)))
    with pytest.raises(ZeroDivisionError):
        Batcher(gated, threads=2, max_batch=4)
