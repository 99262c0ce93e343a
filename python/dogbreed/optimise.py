"""Chooses how a model computes on CPUs like this one: the fastest arithmetic that costs no accuracy worth mentioning.

The choice and what was measured are kept in the model's `config.json`; serving, predictions and evaluations follow it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from dogbreed.backbones import Weights
from dogbreed.console import progress
from dogbreed.cpu import cpu_count
from dogbreed.data.dataset import open_dataset
from dogbreed.embed import embed
from dogbreed.errors import DogbreedError
from dogbreed.extractor import Calibration, Extractor, Runtime, convert, cpu_name, has_bf16, quantise, save_network
from dogbreed.files import atomic_dir, sha256_file, write_json
from dogbreed.model import WEIGHTS, Model, network_of, read_config
from dogbreed.rejection import threshold_at_recall

MAX_DROP = 0.005  # of validation accuracy
MIN_GAIN = 1.1  # below this the exact arithmetic is worth more than the speed
ROUNDS, ROUND_S = 5, 0.25


@dataclass(frozen=True)
class Candidate:
    """One arithmetic, measured.

    pictures_per_s: with all cores busy, one picture at a time on each; latency_ms: of one picture on one core, at the
    median; accuracy: on the validation split.
    """

    precision: str
    pictures_per_s: float
    latency_ms: float
    accuracy: float


@dataclass(frozen=True)
class Choice:
    """What was measured, exact arithmetic first, and what was chosen."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate


def optimise(model_dir: Path, data: Path, *, max_drop: float = MAX_DROP, precisions: Sequence[str] = ()) -> Choice:
    """Measures each arithmetic on this machine and keeps the best in the model directory, which is replaced as a whole.

    Args:
        data: the data set that the model was trained on: int8 finds the range of each layer's values in its training
            pictures, and all are measured on its validation pictures.
        max_drop: share of the validation pictures that may be lost against exact arithmetic.
        precisions: of `f32`, `bf16` and `int8` those to try beside f32; by default all that this machine has.

    Raises:
        DogbreedError: another data set, or a package that is missing.
    """
    model = Model.load(model_dir, device="cpu")
    dataset = open_dataset(data)
    if dataset.breeds != model.breeds:
        raise DogbreedError(f"{data} has other classes than the model", "Give the data set that it was trained on.")
    valid = dataset.split("valid")
    with TemporaryDirectory() as scratch:
        networks = _networks(model_dir, model, dataset.split("train"), precisions or _available(), Path(scratch))
        extractors, accuracies, thresholds = {}, {}, {}
        for precision, network in networks.items():
            extractor = _extractor(model, precision, network)
            features = embed(valid, extractor, title=f"Embedding valid in {precision}")
            predicted = model.classifier.probabilities(features.matrix).argmax(axis=1)
            accuracies[precision] = float(np.mean(predicted == features.labels))
            thresholds[precision] = threshold_at_recall(model.classifier.rejection_scores(features.matrix))
            extractors[precision] = extractor
        speeds = _speeds({precision: e.runtime for precision, e in extractors.items()}, model.preprocessing.crop_px)
        candidates = tuple(Candidate(p, *speeds[p], accuracies[p]) for p in networks)
        choice = Choice(candidates, choose(candidates, max_drop))
        precision = choice.chosen.precision
        _keep(model_dir, networks[precision], choice, thresholds[precision])
    return choice


def choose(candidates: Sequence[Candidate], max_drop: float) -> Candidate:
    """The fastest that loses at most `max_drop` against the first, or the first if none is much faster."""
    exact = candidates[0]
    good = [c for c in candidates if c.accuracy >= exact.accuracy - max_drop - 1e-9]
    fastest = max(good, key=lambda c: c.pictures_per_s)
    return fastest if fastest.pictures_per_s >= MIN_GAIN * exact.pictures_per_s else exact


def _available() -> list[str]:
    import importlib.util

    return [*(["bf16"] if has_bf16() else []), *(["int8"] if importlib.util.find_spec("nncf") else [])]


def _networks(
    model_dir: Path, model: Model, train: Sequence[Any], precisions: Sequence[str], folder: Path
) -> dict[str, Path]:
    """The network's file for each arithmetic, f32 first."""
    network = network_of(model_dir, model.config.backbone, model.preprocessing)
    exact = convert(network, model.preprocessing.crop_px)
    save_network(exact, folder / "f32" / "network.xml")
    found = {"f32": folder / "f32" / "network.xml"}
    for precision in precisions:
        if precision == "bf16":  # the same file: it is the arithmetic that is chosen when it runs
            found["bf16"] = found["f32"]
        if precision == "int8":
            calibration = Calibration.choose(train, model.preprocessing)
            save_network(quantise(exact, calibration), folder / "int8" / "network.xml")
            found["int8"] = folder / "int8" / "network.xml"
    return found


def _extractor(model: Model, precision: str, network: Path) -> Extractor:
    digest = sha256_file(network) + sha256_file(network.with_suffix(".bin"))
    return replace(
        model.extractor,
        config=replace(model.extractor.config, precision=precision),
        weights=Weights(str(network), None, digest),
        network=network,
        streams=cpu_count(),
    )


def _speeds(runtimes: dict[str, Runtime], size_px: int) -> dict[str, tuple[float, float]]:
    """Pictures per second and milliseconds for one, measured in turn so that all see the same other work."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, size_px, size_px, 3), dtype=np.uint8)
    rates: dict[str, list[float]] = {name: [] for name in runtimes}
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    with progress("Measuring", ROUNDS * len(runtimes), unit="rounds") as advance:
        for _ in range(ROUNDS):
            for name, run in runtimes.items():
                times[name].extend(_round(run, pixels, 1))
                rates[name].append(len(_round(run, pixels, cpu_count())) / ROUND_S)
                advance(1, name)
    return {name: (float(np.median(rates[name])), float(np.median(times[name]) * 1e3)) for name in runtimes}


def _round(run: Runtime, pixels: np.ndarray[Any, Any], threads: int) -> list[float]:
    """The seconds of each call that so many threads made in one round."""
    seconds: list[float] = []

    def work() -> None:
        run(pixels)
        end = perf_counter() + ROUND_S
        while (started := perf_counter()) < end:
            run(pixels)
            seconds.append(perf_counter() - started)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return seconds


def _keep(model_dir: Path, network: Path, choice: Choice, threshold: float) -> None:
    import platform

    recorded = read_config(model_dir)
    with atomic_dir(model_dir) as partial:
        shutil.copytree(model_dir, partial, dirs_exist_ok=True)
        for name in ("network.xml", "network.bin"):
            shutil.copyfile(network.with_name(name), partial / name)
        recorded["runtime"] = {
            "engine": "openvino",
            "precision": choice.chosen.precision,
            "measured": [asdict(c) for c in choice.candidates],
            "on": {"machine": platform.machine(), "cores": cpu_count(), "cpu": cpu_name()},
        }
        recorded["extractor"]["precision"] = choice.chosen.precision
        recorded["rejection_threshold"] = threshold
        recorded["sha256"] = {name: sha256_file(partial / name) for name in WEIGHTS}
        write_json(partial / "config.json", recorded)
