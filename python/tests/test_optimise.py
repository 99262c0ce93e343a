"""The choice of arithmetic: measured, kept in the model, and followed by everything that uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from photographs import BREEDS, CLASSES

from dogbreed.data.pictures import decode_file
from dogbreed.errors import DogbreedError
from dogbreed.evaluate import evaluate
from dogbreed.model import Model
from dogbreed.optimise import Candidate, choose, optimise
from dogbreed.train import Trained


def candidate(precision: str, speed: float, accuracy: float) -> Candidate:
    return Candidate(precision, speed, 1000 / speed, accuracy)


EXACT = candidate("f32", 100, 0.800)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([candidate("int8", 300, 0.795)], "int8"),
        ([candidate("int8", 300, 0.794)], "f32"),
        ([candidate("bf16", 200, 0.81), candidate("int8", 300, 0.79)], "bf16"),
        ([candidate("bf16", 109, 0.81)], "f32"),
        ([candidate("bf16", 111, 0.80)], "bf16"),
        ([], "f32"),
    ],
)
def test_the_fastest_that_loses_half_a_point_at_most_is_chosen(others: list[Candidate], chosen: str) -> None:
    assert choose([EXACT, *others], max_drop=0.005).precision == chosen


@pytest.fixture(scope="module")
def optimised(trained: Trained, photos: Path, tmp_path_factory: pytest.TempPathFactory, _session_cache: Path) -> Path:
    folder = shutil.copytree(trained.folder, tmp_path_factory.mktemp("optimised") / "model")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOGBREED_CACHE", str(_session_cache))
        # Speeds differ between machines; that int8 is tried, kept and used must not.
        environment.setattr("dogbreed.optimise._speeds", lambda runtimes, _: {p: SPEEDS[p] for p in runtimes})
        choice = optimise(folder, photos, max_drop=0.2, precisions=["int8"])
    assert choice.chosen.precision == "int8" and [c.precision for c in choice.candidates] == ["f32", "int8"]
    return folder


SPEEDS = {"f32": (100.0, 10.0), "int8": (300.0, 4.0)}


@pytest.mark.slow
def test_the_choice_and_its_measurements_are_kept(optimised: Path, trained: Trained) -> None:
    recorded = json.loads((optimised / "config.json").read_text())
    runtime = recorded["runtime"]
    assert runtime["precision"] == "int8" and runtime["on"]["cores"] >= 1 and runtime["on"]["cpu"]
    assert [(m["precision"], m["pictures_per_s"]) for m in runtime["measured"]] == [("f32", 100.0), ("int8", 300.0)]
    assert recorded["train"] == json.loads((trained.folder / "config.json").read_text())["train"]
    small, exact = ((folder / "network.bin").stat().st_size for folder in (optimised, trained.folder))
    assert small < exact / 3
    assert (optimised / "model.pt").read_bytes() == (trained.folder / "model.pt").read_bytes()


@pytest.mark.slow
def test_what_uses_the_model_uses_the_choice(
    optimised: Path, trained: Trained, photos: Path, shared_cache: Path
) -> None:
    exact, quantised = Model.load(trained.folder), Model.load(optimised)
    assert quantised.version != exact.version
    pixels = [decode_file(path, exact.preprocessing) for path in sorted((photos / "test" / CLASSES[2]).iterdir())]
    difference = np.abs(exact.extractor(np.stack(pixels)) - quantised.extractor(np.stack(pixels))).max()
    assert difference > 1e-4, "other arithmetic gives other features"
    assert quantised.answer(pixels)[0].predictions(quantised.breeds, 1)[0]["breed"] == BREEDS[2]
    _, evaluation = evaluate(model_dir=optimised, data=photos)
    assert evaluation.metrics["accuracy"].value > 0.8


@pytest.mark.slow
def test_it_can_be_taken_back(
    optimised: Path, trained: Trained, photos: Path, tmp_path: Path, shared_cache: Path
) -> None:
    folder = shutil.copytree(optimised, tmp_path / "model")
    choice = optimise(folder, photos, precisions=["f32"])
    assert choice.chosen.precision == "f32" and choice.chosen.pictures_per_s > 0 and choice.chosen.latency_ms > 0
    ours, first = Model.load(folder), Model.load(trained.folder)
    pixels = [decode_file(path, ours.preprocessing) for path in sorted((photos / "test" / CLASSES[0]).iterdir())]
    for got, wanted in zip(ours.answer(pixels), first.answer(pixels), strict=True):
        np.testing.assert_allclose(got.probabilities, wanted.probabilities, atol=1e-4)


def test_another_data_set_is_refused_and_nothing_is_changed(trained: Trained, photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "model")
    other = shutil.copytree(photos, tmp_path / "other")
    for split in ("train", "valid", "test"):
        shutil.rmtree(other / split / CLASSES[0])
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(DogbreedError, match="other classes than the model"):
        optimise(folder, other)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
