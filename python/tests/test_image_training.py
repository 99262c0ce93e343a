"""The image for jobs, as far as it can be tried without Docker: its entry point, and what it installs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import run

from dogbreed.aws.package import NEVER_BUNDLED, TRAINING, read_lock
from dogbreed.aws.repository import Repository

REPOSITORY = Path(__file__).parents[2]
TRAIN = REPOSITORY / "docker" / "training" / "train.py"


def lay_out(base: Path, hyperparameters: dict[str, str], channels: list[str] | None = None) -> Path:
    """What SageMaker puts under /opt/ml before it starts a container that is not AWS's."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    files: dict[str, Any] = {
        "hyperparameters": hyperparameters,
        "inputdataconfig": {name: {"TrainingInputMode": "File"} for name in channels or []},
        "resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"]},
    }
    for name, content in files.items():
        (config / f"{name}.json").write_text(json.dumps(content))
    return base


@pytest.mark.slow
def test_trains_on_what_sagemaker_lays_out(tmp_path: Path, photos: Path) -> None:
    base = lay_out(
        tmp_path / "ml",
        {"solver": "ridge", "weight-decay": "0.5", "weights": '"random"', "_tuning_objective_metric": "valid_loss"},
        ["training"],
    )
    shutil.copytree(photos, base / "input" / "data" / "training")

    result = run(TRAIN, "train", cwd=tmp_path, SAGEMAKER_BASE_DIR=str(base))

    assert result.returncode == 0, result.stderr
    assert "valid_loss=" in result.stdout
    config = json.loads((base / "model" / "config.json").read_text())
    assert "ridge" in json.dumps(config) and "random" in json.dumps(config)
    assert not (base / "output" / "failure").exists()


@pytest.mark.slow
def test_tells_why_it_failed(tmp_path: Path) -> None:
    base = lay_out(tmp_path / "ml", {"solver": "ridge"}, ["training"])

    result = run(TRAIN, "train", cwd=tmp_path, SAGEMAKER_BASE_DIR=str(base))

    assert result.returncode != 0
    assert "training" in (base / "output" / "failure").read_text()


def test_refuses_a_program_that_is_not_there(tmp_path: Path) -> None:
    base = lay_out(tmp_path / "ml", {"sagemaker_program": "evil.py"})

    result = run(TRAIN, "train", cwd=tmp_path, SAGEMAKER_BASE_DIR=str(base))

    assert result.returncode == 1
    assert "Set sagemaker_program to train.py or hpo.py" in (base / "output" / "failure").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"epochs": 3}', "The hyperparameter epochs is no text but 3. Put it in quotes, as SageMaker does."),
        ('{"sagemaker_program": null}', "The hyperparameter sagemaker_program is no text but None."),
        ('{"epochs": ', "hyperparameters.json is not valid JSON (Expecting value"),
        ('["epochs"]', "hyperparameters.json holds no JSON object."),
    ],
)
def test_hyperparameters_that_cannot_be_read_are_told(tmp_path: Path, content: str, said: str) -> None:
    base = lay_out(tmp_path / "ml", {})
    (base / "input" / "config" / "hyperparameters.json").write_text(content)

    result = run(TRAIN, "train", cwd=tmp_path, SAGEMAKER_BASE_DIR=str(base))

    assert result.returncode == 1
    assert said in (base / "output" / "failure").read_text()
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr


def test_has_the_packages_of_the_container_that_the_bundle_was_made_for() -> None:
    container = json.loads((REPOSITORY / "python/locks/training-cp312.container.json").read_text())
    lines = (REPOSITORY / "docker" / "training" / "base.txt").read_text().splitlines()
    bundled = {wheel.requirement for wheel in read_lock(TRAINING.lock(Repository(REPOSITORY)))}

    pins = {line for line in lines if not line.startswith("#")}

    assert pins == {f"{name}=={version}" for name, version in container["packages"].items()} - bundled
    assert {pin.partition("==")[0] for pin in pins} >= set(NEVER_BUNDLED)
