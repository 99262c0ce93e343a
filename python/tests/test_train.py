"""Training: a model directory that is whole, reproducible, and made the same way whatever happens on the way."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import signal
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photographs import BREEDS, PICTURES
from runs import PACKAGE, one_line, run, start
from synthetic import features  # noqa: F401  (one thread, as the processes below)

import dogbreed.train
from dogbreed.cli import run_entry_point
from dogbreed.config import TrainConfig
from dogbreed.data.pictures import decode_file
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_dir, cache_dir
from dogbreed.metrics import metric_definitions
from dogbreed.model import Model, pack
from dogbreed.train import Trained, train

SLOW = TrainConfig(
    solver="adamw", learning_rate=1e-4, batch_size=8, hidden_size=32, dropout=0.1, epochs=150, patience=999
)
SLOW_FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in SLOW.as_dict().items()]


def tensors(model: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(model / "model.pt", weights_only=True)
    return state


def assert_same_tensors(one: Path, other: Path) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def metrics_in(log: str) -> dict[str, list[float]]:
    """What SageMaker would read from the log."""
    return {d["Name"]: [float(v) for v in re.findall(d["Regex"], log)] for d in metric_definitions()}


# ---------------------------------------------------------------------------------------------- the model directory


def test_the_model_directory_holds_what_the_contract_says(trained: Trained) -> None:
    assert {p.name for p in trained.folder.iterdir()} == {
        "model.pt", "network.xml", "network.bin", "classifier.npz", "gallery.npz", "classes.json", "config.json",
        "metrics.json", "model_card.md", "code",
    }  # fmt: skip
    assert {p.name for p in (trained.folder / "code").iterdir()} == {"inference.py", "requirements.txt", "dogbreed"}
    assert [p.name for p in trained.folder.parent.iterdir()] == ["model"], "nothing is left beside it"


def test_the_classes_come_from_the_folders(trained: Trained, photos: Path, tmp_path: Path, shared_cache: Path) -> None:
    assert json.loads((trained.folder / "classes.json").read_text()) == {str(i): b for i, b in enumerate(BREEDS)}
    fewer = tmp_path / "fewer"
    shutil.copytree(photos, fewer, ignore=shutil.ignore_patterns("003*", "004*"))
    model = train(data=fewer, out=tmp_path / "model", config=TrainConfig(solver="ridge")).folder
    assert json.loads((model / "classes.json").read_text()) == {"0": BREEDS[0], "1": BREEDS[1]}
    assert tensors(model)["head.layers.0.bias"].shape == (2,)


def test_it_has_learnt_and_says_how_well_with_intervals(trained: Trained) -> None:
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    for split in ("valid", "test"):
        assert metrics[split]["pictures"] == PICTURES[split] * len(BREEDS)
        accuracy = metrics[split]["accuracy"]
        assert 0.5 < accuracy["value"] <= 1 and accuracy["low"] < accuracy["value"] <= accuracy["high"]


def test_the_card_names_the_classes_and_the_limits(trained: Trained) -> None:
    card = (trained.folder / "model_card.md").read_text()
    assert "efficientnet_lite0" in card and f"{len(BREEDS)}" in card


def test_the_recorded_settings_train_the_same_model_again(
    trained: Trained, photos: Path, shared_cache: Path, tmp_path: Path
) -> None:
    recorded = json.loads((trained.folder / "config.json").read_text())["train"]
    again = train(data=photos, out=tmp_path / "model", config=TrainConfig.from_dict(recorded))
    assert_same_tensors(trained.folder, again.folder)


def test_more_views_are_more_training_pictures(photos: Path, shared_cache: Path, tmp_path: Path) -> None:
    config = TrainConfig(solver="ridge", views="crops")
    made = train(data=photos, out=tmp_path / "model", config=config)
    assert made.model.facts["data"]["pictures"] == {"train": 48 * 5, "valid": 16}


def test_bad_pictures_are_left_out_and_counted(photos: Path, shared_cache: Path, tmp_path: Path) -> None:
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    first, second = sorted((data / "train").rglob("*.jpg"))[:2]
    first.write_bytes(first.read_bytes()[:2000])
    second.write_bytes(b"no picture")
    made = train(data=data, out=tmp_path / "model", config=TrainConfig(solver="ridge"))
    recorded = json.loads((made.folder / "config.json").read_text())["data"]
    assert made.skipped == 2 and recorded["pictures"]["train"] == 46
    assert set(recorded["skipped"]) == {str(p.relative_to(data)) for p in (first, second)}


def test_the_test_split_is_read_once_and_last(
    photos: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_embed, real_calibrate = dogbreed.train.embed, dogbreed.head.calibrate

    def embed(samples: Any, *given: Any, **more: Any) -> Any:
        events.append(samples[0].path.parts[-3])
        return real_embed(samples, *given, **more)

    def calibrate(*given: Any) -> Any:
        events.append("calibrate")
        return real_calibrate(*given)

    monkeypatch.setattr(dogbreed.train, "embed", embed)
    monkeypatch.setattr(dogbreed.head, "calibrate", calibrate)
    train(data=photos, out=tmp_path / "model", config=TrainConfig(solver="ridge"))
    assert events.count("test") == 1 and events[-1] == "test" and "calibrate" in events
    events.clear()
    train(data=photos, out=tmp_path / "trial", config=TrainConfig(solver="ridge"), test=False)
    assert "test" not in events


def test_a_data_set_without_a_test_split_trains(photos: Path, shared_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos", ignore=shutil.ignore_patterns("test"))
    made = train(data=tmp_path / "photos", out=tmp_path / "model", config=TrainConfig(solver="ridge"))
    assert made.evaluations.keys() == {"valid"}


def test_the_metric_lines_are_read_by_the_jobs_regexes(
    photos: Path,
    shared_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = TrainConfig(solver="ridge")
    train(data=photos, out=tmp_path / "at-home", config=config)
    assert not capsys.readouterr().out, "a person is shown a table instead"
    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path / "model"))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    made = train(data=photos, out=tmp_path / "model", config=config)
    found = metrics_in(capsys.readouterr().out)
    recorded = json.loads((made.folder / "metrics.json").read_text())
    assert found["valid_loss"] == [recorded["valid_loss"]] * 2, "its only epoch, then the best"
    assert found["test_accuracy"] == [recorded["test"]["accuracy"]["value"]]
    assert found["test_loss"] == [recorded["test"]["log_loss"]["value"]]


# ---------------------------------------------------------------------------------------------- interrupted


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, _session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOGBREED_CACHE", str(_session_cache))
        return train(data=photos, out=tmp_path_factory.mktemp("whole") / "model", config=SLOW).folder


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_training_leaves_the_old_model_and_goes_on_to_the_same_bits(
    how: signal.Signals, trained: Trained, uninterrupted: Path, photos: Path, shared_cache: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained.folder, model)
    before = digests(model)
    process = start("-m", "dogbreed", "train", photos, "--out", model, *SLOW_FLAGS)
    checkpoint = tmp_path / ".model.checkpoint.pt"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.001)
    process.send_signal(how)
    _, err = process.communicate()
    if how == signal.SIGKILL:
        assert process.returncode == -how
    else:
        assert process.returncode == 130
        assert one_line(err) == "Stopped. What was done is kept: run the same command again to go on."
    assert digests(model) == before
    assert 0 < len(torch.load(checkpoint, weights_only=True)["history"]) < SLOW.epochs
    # A kill may leave a hidden temporary file; nothing that could be taken for a model.
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")} == {"model"}
    train(data=photos, out=model, config=SLOW)
    assert_same_tensors(model, uninterrupted)
    assert not checkpoint.exists()


def test_a_failure_while_writing_leaves_the_old_model(
    trained: Trained, photos: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained.folder, model)
    before = digests(model)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dogbreed.model, "_write_code", full)
    with pytest.raises(OSError, match="No space"):
        train(data=photos, out=model, config=TrainConfig(solver="ridge"))
    assert digests(model) == before and list(tmp_path.iterdir()) == [model]


def test_a_folder_of_anything_else_is_never_replaced(photos: Path, tmp_path: Path) -> None:
    precious = tmp_path / "holiday.jpg"
    precious.write_bytes(b"precious")
    with pytest.raises(DogbreedError, match="holds something other than a model"):
        train(data=photos, out=tmp_path)
    with pytest.raises(DogbreedError, match="is a file"):
        train(data=photos, out=precious)
    assert precious.read_bytes() == b"precious"


def test_a_folder_that_is_a_mount_is_filled_instead_of_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "model"
    (volume / "old").mkdir(parents=True)
    inode = volume.stat().st_ino
    monkeypatch.setattr(Path, "is_mount", lambda self: self == volume)
    with atomic_dir(volume) as partial:
        (partial / "new").write_text("new")
    assert [p.name for p in volume.iterdir()] == ["new"] and volume.stat().st_ino == inode


# ---------------------------------------------------------------------------------------------- SageMaker


def sagemaker(base: Path, data: Path) -> dict[str, str]:
    (base / "model").mkdir(parents=True)
    return {
        "SAGEMAKER_BASE_DIR": str(base),
        "SM_MODEL_DIR": str(base / "model"),
        "SM_CHANNEL_TRAINING": str(data),
        "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"),
    }


def test_the_training_job_keeps_the_contract(photos: Path, shared_cache: Path, tmp_path: Path) -> None:
    job = sagemaker(tmp_path / "ml", photos)
    script = [PACKAGE / "train.py", "--learning_rate", "0.01", "--batch-size", "16"]
    done = run(
        *script, cwd=tmp_path, **job, **{"SM_HP_EPOCHS": "3", "SM_HP_HIDDEN-SIZE": "8", "SM_HP_HIDDEN_SIZE": "8"}
    )
    assert done.returncode == 0, done.stderr
    model = tmp_path / "ml" / "model"
    recorded = json.loads((model / "config.json").read_text())["train"]
    assert recorded == TrainConfig(learning_rate=0.01, batch_size=16, epochs=3, hidden_size=8).as_dict()
    found = metrics_in(done.stdout)
    assert len(found["train_loss"]) == 3 and len(found["valid_loss"]) == 4, "each epoch's, then the best"
    assert found["valid_loss"][-1] == min(found["valid_loss"])
    assert len(found["test_accuracy"]) == 1
    assert (tmp_path / "ml" / "output" / "data" / "report.html").exists()
    assert not (tmp_path / "ml" / "output" / "failure").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["ml"], "nothing is written outside of what the job keeps"
    Model.load(model)


def test_a_job_saves_its_fit_where_a_spot_interruption_leaves_it(
    photos: Path, uninterrupted: Path, shared_cache: Path, tmp_path: Path
) -> None:
    job = sagemaker(tmp_path, photos)
    process = start("-m", "dogbreed.train", *SLOW_FLAGS, **job)
    checkpoint = tmp_path / "checkpoints" / "fit.pt"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.001)
    process.terminate()  # as SageMaker does two minutes before it takes the machine
    process.communicate()
    assert process.returncode == 130 and not list((tmp_path / "model").iterdir())
    done = run("-m", "dogbreed.train", *SLOW_FLAGS, **job)
    assert done.returncode == 0, done.stderr
    assert_same_tensors(tmp_path / "model", uninterrupted)


def test_only_the_first_host_works_and_writes(photos: Path, shared_cache: Path, tmp_path: Path) -> None:
    job = sagemaker(tmp_path, photos)
    done = run("-m", "dogbreed.train", **job, SM_HOSTS='["algo-1","algo-2"]', SM_CURRENT_HOST="algo-2")
    assert done.returncode == 0 and "this one has nothing to do" in done.stdout
    assert not metrics_in(done.stdout)["valid_loss"] and not list((tmp_path / "model").iterdir())


def test_a_job_keeps_its_features_where_a_spot_interruption_leaves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOGBREED_CACHE")
    for name, value in sagemaker(tmp_path, tmp_path).items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == tmp_path / "checkpoints" / "cache"


def test_a_defect_of_ours_reaches_the_failure_file_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError("ours")

    for name, value in sagemaker(tmp_path, photos).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dogbreed.train, "train", broken)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(ZeroDivisionError):
        run_entry_point("train")
    assert (tmp_path / "output" / "failure").read_text().endswith("ZeroDivisionError: ours\n")


@pytest.mark.slow
def test_an_int8_model_answers_like_the_one_it_was_made_from(
    photos: Path, trained: Trained, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = train(
        data=photos, out=tmp_path / "model", config=dataclasses.replace(trained.model.config, precision="int8")
    )
    assert made.evaluations["valid"].metrics["accuracy"].value >= 0.7
    pixels = [decode_file(path, made.model.preprocessing) for path in made.evaluations["test"].paths]
    monkeypatch.setenv("DOGBREED_CACHE", str(tmp_path / "empty"))  # all that it needs is in its directory
    loaded = Model.load(tmp_path / "model").answer(pixels)
    for before, after in zip(made.model.answer(pixels), loaded, strict=True):
        assert np.allclose(before.probabilities, after.probabilities, atol=1e-4)


def test_a_trial_of_a_tuning_job_prints_its_objective_and_no_test_figures(
    photos: Path, shared_cache: Path, tmp_path: Path
) -> None:
    job = sagemaker(tmp_path, photos)
    done = run(PACKAGE / "hpo.py", "--learning-rate", "0.01", "--batch_size", "32", "--epochs", "2", **job)
    assert done.returncode == 0, done.stderr
    found = metrics_in(done.stdout)
    assert found["valid_loss"][-1] == min(found["valid_loss"])
    assert not any(found[name] for name in found if name.startswith("test_"))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["train"]["batch_size"] == 32


def test_a_whole_study_in_one_job_leaves_its_best_settings(photos: Path, shared_cache: Path, tmp_path: Path) -> None:
    done = run("-m", "dogbreed.hpo", "--trials", "5", "--epochs", "2", **sagemaker(tmp_path, photos))
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "model" / "study.json").read_text())
    assert len(study["trials"]) == 5
    assert metrics_in(done.stdout)["valid_loss"] == [study["best_trial"]["value"]]
    assert (tmp_path / "checkpoints" / "study" / "journal.log").exists(), "it goes on after a spot interruption"


def test_a_failed_job_says_why_in_one_line(photos: Path, tmp_path: Path) -> None:
    for name, arguments, reason in (
        ("range", ["--epochs", "0"], "--epochs is 0. Give a value from 1 to 10000."),
        ("spelling", ["--epoch", "3"], "No such option: --epoch. Did you mean --epochs?"),
    ):
        base = tmp_path / name
        done = run(PACKAGE / "train.py", *arguments, **sagemaker(base, photos))
        assert done.returncode not in (0, None)
        failure = (base / "output" / "failure").read_text()
        assert failure.startswith(reason) and failure == one_line(done.stderr)


# ---------------------------------------------------------------------------------------------- the archive


def test_the_archive_is_the_same_bytes_twice_and_opens_as_the_model(trained: Trained, tmp_path: Path) -> None:
    pack(trained.folder, tmp_path / "one.tar.gz")
    copy = tmp_path / "copy"
    shutil.copytree(trained.folder, copy, copy_function=shutil.copy)  # other times and places
    pack(copy, tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        assert {"model.pt", "classes.json", "config.json", "code/inference.py"} <= set(archive.getnames())
        archive.extractall(tmp_path / "unpacked", filter="data")
    loaded = Model.load(tmp_path / "unpacked")
    assert loaded.breeds == BREEDS
    assert_same_tensors(tmp_path / "unpacked", trained.folder)
