"""Tuning: an objective that means something, and a study that survives whatever happens to it."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from synthetic import features, problem

import dogbreed.embed
import dogbreed.head
import dogbreed.train
from dogbreed.config import HeadConfig, SearchSpace, TrainConfig
from dogbreed.errors import DogbreedError
from dogbreed.head import Problem, fit
from dogbreed.hpo import Study, _importances, _pruner, tune
from dogbreed.report import TrialRow

TRIALS = 20
CONFIG = TrainConfig(epochs=6, patience=3)


def hard_problem(*_: Any) -> tuple[Problem, None, None]:
    """Labels that are partly wrong: settings matter."""
    return problem(120, 80, spread=2, noise=0.2), None, None


@pytest.fixture(autouse=True)
def synthetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "photos" not in request.fixturenames:
        monkeypatch.setattr(dogbreed.train, "load_problem", hard_problem)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dogbreed.train, "load_problem", hard_problem)
        return tune(data=Path("any"), out=tmp_path_factory.mktemp("whole"), config=CONFIG, trials=TRIALS)


def run(out: Path, trials: int = TRIALS, **more: Any) -> Study:
    return tune(data=Path("any"), out=out, trials=trials, **{"config": CONFIG, **more})


def what_was_found(study: Study) -> list[tuple[Any, ...]]:
    return [(t.state, t.params, t.value, t.accuracy) for t in study.trials]


# ---------------------------------------------------------------------------------------------- the search


def test_the_best_of_all_trials_is_chosen_and_can_be_had_again(whole: Study) -> None:
    complete = [t for t in whole.trials if t.state == "COMPLETE"]
    assert len(whole.trials) == TRIALS
    assert whole.best_trial == min(complete, key=lambda t: t.value or 0)
    again = fit(hard_problem()[0], whole.best.part(HeadConfig)).best
    assert (again.valid_loss, again.valid_accuracy) == (whole.best_trial.value, whole.best_trial.accuracy)


def test_a_good_value_is_found(whole: Study) -> None:
    assert whole.best_trial.value is not None
    untuned = fit(hard_problem()[0], HeadConfig(solver="sgd", learning_rate=0.1)).best.valid_loss
    assert whole.best_trial.value < min(untuned, math.log(4))


def test_trials_that_lead_nowhere_are_pruned(tmp_path: Path) -> None:
    states = [t.state for t in run(tmp_path, 40, space=SearchSpace(solvers="adamw,sgd")).trials]
    assert states.count("PRUNED") >= 3 and states.count("COMPLETE") >= 12


def test_only_what_was_asked_for_is_searched(tmp_path: Path) -> None:
    space = SearchSpace(
        solvers="sgd,adamw", batch_sizes="16,64", hidden_sizes="0", learning_rate_min=0.01, learning_rate_max=0.02
    )
    for trial in run(tmp_path, space=space).trials:
        assert trial.params["solver"] in ("sgd", "adamw") and trial.params["batch_size"] in (16, 64)
        assert trial.params["hidden_size"] == 0 and 0.01 <= trial.params["learning_rate"] <= 0.02


def test_the_same_seed_gives_the_same_trials_and_another_one_others(whole: Study, tmp_path: Path) -> None:
    assert what_was_found(run(tmp_path / "same")) == what_was_found(whole)
    other = run(tmp_path / "other", config=TrainConfig(epochs=6, patience=3, seed=1))
    assert what_was_found(other) != what_was_found(whole)


def test_settings_that_diverge_do_not_end_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(p: Problem, config: HeadConfig, **more: Any) -> Any:
        if config.solver == "sgd":
            raise DogbreedError("The loss became nan in epoch 1", "Give a smaller learning rate.")
        return fit(p, config, **more)

    monkeypatch.setattr(dogbreed.head, "fit", diverge)
    study = run(tmp_path)
    assert len(study.trials) == TRIALS
    assert {t.state for t in study.trials if t.params["solver"] == "sgd"} == {"PRUNED"}
    monkeypatch.setattr(dogbreed.head, "fit", lambda p, c, **_: diverge(p, HeadConfig(solver="sgd")))
    with pytest.raises(DogbreedError, match="No trial ended well"):
        run(tmp_path / "all", 5)


@pytest.mark.parametrize("trials", [0, -3])
def test_a_study_has_a_trial(trials: int, tmp_path: Path) -> None:
    with pytest.raises(DogbreedError, match="Give a number of at least 1"):
        run(tmp_path, trials)


# ---------------------------------------------------------------------------------------------- the objective


@pytest.mark.parametrize("batch_size", [32, 64, 128, 256, 512])
def test_at_chance_the_objective_is_ln_of_the_classes_whatever_the_batch_size(batch_size: int) -> None:
    """The original's grew with the batch size: 150 at 32, 2045 at 512, both of them chance among 133 breeds."""
    rng = np.random.default_rng(0)
    train, valid = features(665, classes=133, spread=30, seed=1), features(665, classes=133, spread=30, seed=2)
    rng.shuffle(train.labels)
    config = HeadConfig(solver="adamw", learning_rate=1e-6, batch_size=batch_size, epochs=1)
    assert fit(Problem(train, valid, 133), config).best.valid_loss == pytest.approx(math.log(133), rel=0.05)


def test_the_test_split_is_not_opened(
    photos: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    real = dogbreed.train.embed

    def spy(samples: Any, *given: Any, **more: Any) -> Any:
        seen.update(s.path.parts[-3] for s in samples)
        return real(samples, *given, **more)

    monkeypatch.setattr(dogbreed.train, "embed", spy)
    monkeypatch.setattr(dogbreed.embed, "embed", spy)
    some = {"config": CONFIG, "space": SearchSpace(solvers="adamw,sgd"), "trials": 3}
    with_test = tune(data=photos, out=tmp_path / "with", **some)  # type: ignore[arg-type]
    assert seen == {"train", "valid"}
    shutil.copytree(photos, tmp_path / "photos", ignore=shutil.ignore_patterns("test"))
    without = tune(data=tmp_path / "photos", out=tmp_path / "without", **some)  # type: ignore[arg-type]
    assert what_was_found(with_test) == what_was_found(without)


# ---------------------------------------------------------------------------------------------- interrupted


@pytest.mark.parametrize("how", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", [0, 1, 3, 5, 15])
def test_an_interrupted_study_ends_as_one_that_was_not(
    at: int, how: type[BaseException], whole: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = 0

    def interrupt(*given: Any, **more: Any) -> Any:
        nonlocal fits
        fits += 1
        if fits > at:
            more["report"](fit(*given).history[0])  # in the middle of the trial: it has reported something
            raise how
        return fit(*given, **more)

    with monkeypatch.context() as patch, pytest.raises(how):
        patch.setattr(dogbreed.head, "fit", interrupt)
        run(tmp_path)
    with pytest.raises(DogbreedError, match="not finished"):
        Study.load(tmp_path)
    assert what_was_found(run(tmp_path)) == what_was_found(whole)


SCRIPT = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    import dogbreed.train
    from test_hpo import CONFIG, TRIALS, hard_problem
    from dogbreed.hpo import tune
    dogbreed.train.load_problem = hard_problem
    tune(data=Path("any"), out=Path(sys.argv[1]), config=CONFIG, trials=TRIALS)
"""


def test_a_study_killed_again_and_again_ends_as_one_that_was_not(whole: Study, tmp_path: Path) -> None:
    journal = tmp_path / "study" / "journal.log"
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), "study", str(Path(__file__).parent)]
    for lines in (4, 60, 150):
        process = subprocess.Popen(command, cwd=tmp_path)  # a relative folder, as the command line's default is
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 6, "tri')  # a line that the kill or a full disk cut short
    started = time.monotonic()
    (tmp_path / "study" / "journal.log.lock").symlink_to("journal.log")  # Optuna's lock, as a kill could leave it
    assert what_was_found(run(tmp_path / "study")) == what_was_found(whole)
    assert time.monotonic() - started < 25, "it waited for the dead"


def test_more_trials_later_go_on_from_those_that_are_done(whole: Study, tmp_path: Path) -> None:
    first = run(tmp_path, 5)
    assert what_was_found(first) == what_was_found(whole)[:5]
    assert what_was_found(run(tmp_path)) == what_was_found(whole)
    assert len(run(tmp_path, 3).trials) == TRIALS, "what is done stays"


def test_a_study_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert run(tmp_path, 6) == Study.load(tmp_path)


# ---------------------------------------------------------------------------------------------- another one's folder


def test_two_processes_do_not_share_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(*given: Any, **more: Any) -> Any:
        with pytest.raises(DogbreedError, match="Another process is tuning in"):
            run(tmp_path)
        return fit(*given, **more)

    monkeypatch.setattr(dogbreed.head, "fit", nested)
    run(tmp_path, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": TrainConfig(epochs=7, patience=3)}, "other settings"),
        ({"config": TrainConfig(epochs=6, patience=3, seed=1)}, "other settings"),
        ({"space": SearchSpace(solvers="adamw")}, "other settings"),
    ],
)
def test_a_study_with_other_settings_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    run(tmp_path, 2)
    with pytest.raises(DogbreedError, match=f"{message}. Use another --out, or: rm -r '{tmp_path}'"):
        run(tmp_path, 2, **changed)


def test_a_study_of_other_pictures_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, 2)
    monkeypatch.setattr(dogbreed.train, "load_problem", lambda *_: (problem(), None, None))
    with pytest.raises(DogbreedError, match="other pictures or weights"):
        run(tmp_path, 2)


def test_the_same_pictures_under_other_labels_are_another_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 2)
    original = hard_problem()[0]
    swapped = dataclasses.replace(original.train, labels=3 - original.train.labels)
    monkeypatch.setattr(
        dogbreed.train, "load_problem", lambda *_: (Problem(swapped, original.valid, original.classes), None, None)
    )
    with pytest.raises(DogbreedError, match="other pictures or weights"):
        run(tmp_path, 2)


def test_what_a_killed_trial_had_reached_does_not_judge_later_trials() -> None:
    study = optuna.create_study(pruner=_pruner())
    for value, state in ((0.1, "FAIL"), (0.2, "FAIL"), (0.5, "COMPLETE")):
        trial = study.ask()
        trial.report(value, 1)
        study.tell(trial, value if state == "COMPLETE" else None, state=optuna.trial.TrialState[state])
    good, bad = study.ask(), study.ask()
    good.report(0.4, 1)
    bad.report(0.6, 1)
    assert not good.should_prune()
    assert bad.should_prune()


def test_importance_sees_what_matters_and_leaves_out_what_diverged() -> None:
    rng = np.random.default_rng(0)
    rows = [
        TrialRow(i, "COMPLETE", float(10 ** abs(rate + 2)), 0.5, {"rate": rate, "other": rng.random()}, 0.1)
        for i, rate in enumerate(rng.uniform(-4, 0, 30))
    ]
    diverged = [TrialRow(30 + i, "PRUNED", None, 0.0, {"rate": -2.0, "other": 0.9}, 0.1) for i in range(5)]
    found = _importances([*rows, *diverged])
    assert found["rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert _importances(rows[:5]) == {}


def test_a_study_of_another_version_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 2)
    saved = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**saved, "format": 99}))
    with pytest.raises(DogbreedError, match="another version"):
        run(tmp_path, 2)
    with pytest.raises(DogbreedError, match="another version"):
        Study.load(tmp_path)


def test_damaged_studies_are_one_clear_line(tmp_path: Path) -> None:
    run(tmp_path, 2)
    whole_journal = (tmp_path / "journal.log").read_bytes()
    (tmp_path / "journal.log").write_bytes(b"garbage\n" + whole_journal)
    with pytest.raises(DogbreedError, match="cannot be read") as caught:
        run(tmp_path, 2)
    assert "\n" not in str(caught.value)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(DogbreedError, match="not valid JSON"):
        run(tmp_path, 2)
    (tmp_path / "study.json").unlink()
    with pytest.raises(DogbreedError, match=r"lacks its study\.json"):
        run(tmp_path, 2)
    with pytest.raises(DogbreedError, match="Run `dogbreed tune` first"):
        Study.load(tmp_path)
