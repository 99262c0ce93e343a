"""Settings: every range, every misspelling, and how they reach a run from flags, SageMaker and recorded files."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from dogbreed import cli, hpo, train
from dogbreed.config import EmbedConfig, HeadConfig, SageMaker, SearchSpace, TrainConfig, _Config
from dogbreed.errors import DogbreedError


def ranged(*classes: type[_Config]) -> list[Any]:
    return [
        pytest.param(cls, f, id=f"{cls.__name__}.{f.name}")
        for cls in classes
        for f in dataclasses.fields(cls)
        if f.metadata["low"] is not None
    ]


def chosen(*classes: type[_Config]) -> list[Any]:
    return [pytest.param(cls, f.name) for cls in classes for f in dataclasses.fields(cls) if f.metadata["choices"]]


# ---------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(("cls", "f"), ranged(HeadConfig))
def test_both_ends_of_a_range_are_in_it_and_what_lies_beyond_is_not(cls: type[_Config], f: Any) -> None:
    low, high = f.metadata["low"], f.metadata["high"]
    for value in (low, high):
        assert getattr(cls(**{f.name: value}), f.name) == value
    whole = isinstance(f.default, int)
    for value in (low - 1, high + 1) if whole else (math.nextafter(low, -1), math.nextafter(high, 1e9)):
        with pytest.raises(DogbreedError, match=f"--{f.name.replace('_', '-')} is .* Give a value from"):
            cls(**{f.name: value})


@pytest.mark.parametrize(("cls", "name"), chosen(TrainConfig))
def test_a_value_that_is_none_of_the_choices_names_them(cls: type[_Config], name: str) -> None:
    with pytest.raises(DogbreedError, match="Choose one of: "):
        cls(**{name: "none of them"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf"])
def test_a_number_is_finite(value: Any) -> None:
    with pytest.raises(DogbreedError, match=r"--weight-decay is .*Give a finite number"):
        HeadConfig(weight_decay=value)
    with pytest.raises(DogbreedError, match="--epochs"):
        HeadConfig(epochs=value)


@pytest.mark.parametrize("value", ["", "many", None, [1], 12.5, "12.5"])
def test_a_count_is_a_whole_number(value: Any) -> None:
    with pytest.raises(DogbreedError, match=r"--batch-size is .*Give a whole number"):
        HeadConfig(batch_size=value)


@pytest.mark.parametrize("value", [64, 64.0, "64"])
def test_numbers_may_come_as_text_as_sagemaker_sends_them(value: Any) -> None:
    config = HeadConfig(batch_size=value, learning_rate="1e-2")
    assert config.batch_size == 64 and isinstance(config.batch_size, int)
    assert config.learning_rate == 0.01


def test_ridge_is_linear() -> None:
    with pytest.raises(DogbreedError, match="--hidden-size 0, or another solver"):
        HeadConfig(solver="ridge", hidden_size=8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate_min": 0.1, "learning_rate_max": 0.1}, "smaller minimum"),
        ({"learning_rate_min": 0.5}, "smaller minimum"),
        ({"learning_rate_max": 99}, "--learning-rate-max is 99"),
        ({"batch_sizes": ""}, "--batch-sizes is empty"),
        ({"batch_sizes": " , "}, "--batch-sizes is empty"),
        ({"batch_sizes": "32;64"}, "Give whole numbers with commas"),
        ({"batch_sizes": "32,0"}, "--batch-size is 0"),
        ({"hidden_sizes": "-1"}, "--hidden-size is -1"),
        ({"solvers": "adamw,adam"}, "--solver is 'adam'.* Choose one of"),
    ],
)
def test_a_search_space_is_checked_before_anything_is_searched(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DogbreedError, match=message):
        SearchSpace(**given)


def test_the_search_space_is_that_of_the_original_projects() -> None:
    space = SearchSpace()
    assert (space.learning_rate_min, space.learning_rate_max) == (0.001, 0.1)
    assert space.sizes("batch_sizes") == [32, 64, 128, 256, 512]


def test_a_message_is_one_line() -> None:
    for bad in ({"solver": "x"}, {"epochs": 0}, {"epochs": "x"}, {"weight_decay": math.nan}):
        with pytest.raises(DogbreedError) as caught:
            HeadConfig(**bad)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- named values


def test_values_are_named_with_either_dash() -> None:
    assert TrainConfig.from_dict({"learning-rate": 0.1, "batch_size": 64}) == TrainConfig(
        learning_rate=0.1, batch_size=64
    )


@pytest.mark.parametrize(
    ("name", "meant"), [("lerning_rate", "learning_rate"), ("epoch", "epochs"), ("batchsize", "batch_size")]
)
def test_a_misspelt_name_gets_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(DogbreedError, match=f"no setting called {name}. Did you mean {meant}?"):
        TrainConfig.from_dict({name: 1})


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(DogbreedError, match="Known are: backbone, batch_size"):
        TrainConfig.from_dict({"xyzzy": 1})


def test_a_config_survives_being_recorded() -> None:
    config = TrainConfig(solver="lbfgs", label_smoothing=0.1, views="flip", seed=7)
    assert TrainConfig.from_dict(config.as_dict()) == config


def test_a_part_shares_the_values_of_the_whole() -> None:
    config = TrainConfig(backbone="resnet50", epochs=3)
    assert config.part(EmbedConfig) == EmbedConfig(backbone="resnet50")
    assert config.part(HeadConfig) == HeadConfig(epochs=3)


def test_a_config_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3  # type: ignore[misc]


# ---------------------------------------------------------------------------------------------- from the outside


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs an entry point or command up to where the work would start; gives what that was called with."""

    def run(command: str, *arguments: str, **environment: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def note(**given: Any) -> None:
            seen.update(given)
            raise KeyboardInterrupt

        monkeypatch.setattr(train, "train", note)
        monkeypatch.setattr(hpo, "tune", note)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", [f"{command}.py", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.run_entry_point(command)
        assert end.value.code == (130 if seen else 1)
        return seen

    return run


JOB = {"SM_MODEL_DIR": "/tmp/model", "SM_CHANNEL_TRAINING": "/tmp/pictures", "SAGEMAKER_BASE_DIR": "/nonexistent"}


@pytest.fixture(autouse=True)
def base_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(JOB, "SAGEMAKER_BASE_DIR", str(tmp_path))


@pytest.mark.parametrize("entry_point", ["train", "hpo"])
@pytest.mark.parametrize("name", ["SM_HP_LEARNING_RATE", "SM_HP_LEARNING-RATE"])
def test_hyperparameters_arrive_from_the_environment_in_either_spelling(
    entry_point: str, name: str, run_with: Any
) -> None:
    seen = run_with(entry_point, **JOB, **{name: "0.0625", "SM_HP_SOLVER": "sgd"})
    assert seen["config"] == TrainConfig(learning_rate=0.0625, solver="sgd")
    assert (seen["data"], seen["out"]) == (Path("/tmp/pictures"), Path("/tmp/model"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--learning_rate", "0.0625", "--batch_size", "64"],
        ["--learning-rate", "0.0625", "--batch-size", "64"],
        ["--learning_rate=0.0625", "--batch-size=64"],
    ],
)
def test_hyperparameters_arrive_as_flags_in_either_spelling(arguments: list[str], run_with: Any) -> None:
    assert run_with("train", *arguments, **JOB)["config"] == TrainConfig(learning_rate=0.0625, batch_size=64)


def test_a_flag_goes_before_the_environment(run_with: Any) -> None:
    seen = run_with("train", "--learning_rate", "0.5", **JOB, SM_HP_LEARNING_RATE="0.25", SM_HP_EPOCHS="3")
    assert seen["config"] == TrainConfig(learning_rate=0.5, epochs=3)


def test_every_setting_can_be_given_by_the_environment(run_with: Any) -> None:
    other = TrainConfig(
        backbone="resnet50", weights="random", precision="bf16", solver="sgd", learning_rate=0.5, batch_size=7,
        hidden_size=9, weight_decay=0.25, label_smoothing=0.125, dropout=0.5, epochs=3, patience=2, seed=11,
        views="flip",
    )  # fmt: skip
    environment = {SageMaker.hyperparameter(name)[0]: str(value) for name, value in other.as_dict().items()}
    assert run_with("train", **JOB, **environment)["config"] == other


def test_the_tuning_entry_point_runs_a_whole_study_when_told_how_many_trials(run_with: Any) -> None:
    assert run_with("hpo", "--trials", "7", **JOB)["trials"] == 7
    assert run_with("hpo", **JOB, SM_HP_TRIALS="8", **{"SM_HP_LEARNING-RATE-MAX": "0.05"})["trials"] == 8


def test_the_tuning_entry_point_runs_one_trial_that_leaves_the_test_split_alone(run_with: Any) -> None:
    assert run_with("hpo", **JOB)["test"] is False


def test_a_bad_value_in_the_environment_is_refused(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with("train", **JOB, SM_HP_EPOCHS="0") == {}
    assert capsys.readouterr().err == "error: --epochs is 0. Give a value from 1 to 10000.\n"
