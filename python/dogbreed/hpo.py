"""Tuning over cached features: a trial is a fit of tenths of a second. Also the entry point of a tuning job.

As a SageMaker entry point it runs one trial with the hyperparameters it is given, or with `--trials N` a whole study.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from dogbreed.config import SEARCHED, HeadConfig, SearchSpace, TrainConfig
from dogbreed.console import progress
from dogbreed.errors import DogbreedError
from dogbreed.files import read_json, write_json
from dogbreed.report import TrialRow

if TYPE_CHECKING:
    import optuna

    from dogbreed.head import Epoch, Problem

FORMAT = 1
STARTUP_TRIALS = 12  # drawn at random before the sampler models anything

# Tried first: what usually works. Names are those of `suggest`.
STARTING_POINTS: tuple[dict[str, Any], ...] = (
    {"solver": "ridge", "ridge_weight_decay": 1.0},
    {"solver": "lbfgs", "lbfgs_weight_decay": 0.01},
    {"solver": "adamw", "learning_rate": 0.001, "batch_size": 256, "hidden_size": 0},
    {"solver": "sgd", "learning_rate": 0.01, "batch_size": 128, "hidden_size": 0},
)


@dataclass(frozen=True)
class Study:
    """A finished study. `trials` are all of them in order, `best` the config with the least validation loss."""

    best: TrainConfig
    best_trial: TrialRow
    trials: tuple[TrialRow, ...]
    importances: dict[str, float]
    seconds: float  # of this call: embedding, fitting and sampling

    @classmethod
    def load(cls, folder: Path) -> Study:
        """Reads what `tune` wrote; raises DogbreedError where it did not."""
        saved = read_json(folder / "study.json", what="study", fix="Run `dogbreed tune` first.")
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise DogbreedError(f"The study in {folder} was written by another version", "Run `dogbreed tune` again.")
        if "best" not in saved:
            raise DogbreedError(
                f"The study in {folder} is not finished", "Run the same `dogbreed tune` again: it goes on."
            )
        return cls(
            TrainConfig.from_dict(saved["best"]),
            TrialRow(**saved["best_trial"]),
            tuple(TrialRow(**row) for row in saved["trials"]),
            saved["importances"],
            saved["seconds"],
        )


def suggest(trial: optuna.Trial, base: TrainConfig, space: SearchSpace) -> TrainConfig:
    """One point of the search space, on top of the settings that stay."""
    solver = trial.suggest_categorical("solver", space.list_of("solvers"))
    chosen: dict[str, Any] = {"solver": solver, "hidden_size": 0}
    if solver == "ridge":
        chosen["weight_decay"] = trial.suggest_float("ridge_weight_decay", 1e-3, 10, log=True)
    elif solver == "lbfgs":
        chosen["weight_decay"] = trial.suggest_float("lbfgs_weight_decay", 1e-4, 0.1, log=True)
    else:
        low, high = space.learning_rate_min, space.learning_rate_max
        chosen["learning_rate"] = trial.suggest_float("learning_rate", low, high, log=True)
        chosen["batch_size"] = trial.suggest_categorical("batch_size", space.sizes("batch_sizes"))
        chosen["hidden_size"] = trial.suggest_categorical("hidden_size", space.sizes("hidden_sizes"))
        chosen["weight_decay"] = trial.suggest_float("weight_decay", 1e-6, 0.1, log=True)
        chosen["label_smoothing"] = trial.suggest_float("label_smoothing", 0, 0.2)
    return TrainConfig.from_dict({**base.as_dict(), **chosen})


def tune(
    *,
    data: Path,
    out: Path,
    config: TrainConfig | None = None,
    space: SearchSpace | None = None,
    trials: int = 100,
    device: str = "auto",
) -> Study:
    """Searches hyperparameters for the least validation loss; the test split is not opened.

    The study is a journal on disk: interrupted, the same call goes on, and ends with the same trials as one that was
    never interrupted.

    Args:
        data: a data set with train/ and valid/.
        out: folder of the study; gets `journal.log` and `study.json`.
        config: the settings that stay (backbone, weights, views, epochs, patience, seed).
        trials: how many the study has in the end.
    """
    started = time.perf_counter()
    config, space = config or TrainConfig(), space or SearchSpace()
    if trials < 1:
        raise DogbreedError(f"--trials is {trials}", "Give a number of at least 1.")

    import optuna

    from dogbreed.train import load_problem

    problem, _, _ = load_problem(data, config, device)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out) as lock:
        _claim(out, config, space, problem)
        study = _open_study(out / "journal.log", lock)
        _run(study, problem, config, space, trials)
        return _conclude(study, out, started)


@contextmanager
def _alone_in(out: Path) -> Iterator[FileLock]:
    """Keeps a second process out of the study; the kernel frees the lock of a process that is killed."""
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DogbreedError(f"Another process is tuning in {out}", "Wait for it, or use another --out.") from None
    try:
        yield lock
    finally:
        lock.release()


def _conclude(study: optuna.Study, out: Path, started: float) -> Study:
    """Writes `study.json`: the best trial, all trials in order, and what mattered."""
    import optuna

    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    rows = tuple(_row(t) for t in study.get_trials(deepcopy=False, states=finished))
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        raise DogbreedError("No trial ended well", "Give a smaller --learning-rate-max, or more --epochs.")
    best = min(complete, key=lambda t: (t.value, t.number))
    result = Study(
        best=TrainConfig.from_dict(best.user_attrs["config"]),
        best_trial=_row(best),
        trials=rows,
        importances=_importances(rows),
        seconds=time.perf_counter() - started,
    )
    settings = read_json(out / "study.json", what="study", fix="Use another --out.")
    summary = {
        "best": result.best.as_dict(),
        "best_trial": asdict(result.best_trial),
        "trials": [asdict(row) for row in rows],
        "importances": result.importances,
        "seconds": result.seconds,
    }
    write_json(out / "study.json", {**settings, **summary})
    return result


def _claim(out: Path, config: TrainConfig, space: SearchSpace, problem: Problem) -> None:
    """Records what the study is about; refuses to go on with a study about something else."""
    # What a trial chooses itself is no part of the study's identity.
    fixed = {k: v for k, v in config.as_dict().items() if k not in SEARCHED}
    settings = {"format": FORMAT, "features": problem.key, "fixed": fixed, "space": space.as_dict()}
    if not (out / "study.json").exists():
        if (out / "journal.log").exists():
            raise DogbreedError(f"The study in {out} lacks its study.json", f"Use another --out, or: rm -r '{out}'")
        write_json(out / "study.json", settings)
        return
    saved = read_json(out / "study.json", what="study", fix=f"Use another --out, or: rm -r '{out}'")
    for name, value in settings.items():
        if not isinstance(saved, dict) or saved.get(name) != value:
            what = {"features": "other pictures or weights", "format": "another version"}.get(name, "other settings")
            raise DogbreedError(f"The folder {out} holds a study with {what}", f"Use another --out, or: rm -r '{out}'")


def _open_study(journal: Path, lock: FileLock) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _mend(journal)
    try:
        study = optuna.create_study(
            study_name="dogbreed",
            # Optuna's own lock is a link that a kill leaves behind, and that the next process would wait for.
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=cast(Any, lock))),
            direction="minimize",
            pruner=_pruner(),
            load_if_exists=True,
        )
        stale = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
    except OSError:
        raise
    except Exception as error:
        raise DogbreedError(f"The journal {journal} cannot be read ({error})", "Use another --out.") from None
    for trial in stale:  # of a run that was killed
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _mend(journal: Path) -> None:
    """Cuts off a last line that was being written when the disk was full or the process killed."""
    if journal.exists():
        whole = journal.read_bytes().rfind(b"\n") + 1
        if whole < journal.stat().st_size:
            os.truncate(journal, whole)


def _pruner() -> optuna.pruners.BasePruner:
    import optuna

    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

    class Halving(optuna.pruners.BasePruner):  # type: ignore[misc]
        """After 1, 2, 4, 8 and so on epochs, only what is among the better half of those that got so far goes on.

        Optuna's own successive halving also counts trials that a kill ended, and so a study that was interrupted would
        end otherwise than one that was not.
        """

        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            step = trial.last_step
            if step is None or step & (step - 1):
                return False
            values = [t.intermediate_values.get(step) for t in study.get_trials(deepcopy=False, states=finished)]
            others = [value for value in values if value is not None]
            better = sum(value < trial.intermediate_values[step] for value in others)
            return bool(better >= max(1, (len(others) + 1) // 2))

    return Halving()


def _run(study: optuna.Study, problem: Problem, config: TrainConfig, space: SearchSpace, trials: int) -> None:
    import optuna

    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    points = [p for p in STARTING_POINTS if p["solver"] in space.list_of("solvers") and _within(p, space)]
    done = len(study.get_trials(deepcopy=False, states=finished))
    with progress("Tuning", trials, unit="trials") as advance:
        advance(min(done, trials))
        while done < trials:
            # A kill right after it leaves it waiting; a kill during its trial does not count as having tried it.
            if done < len(points) and not study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING]):
                study.enqueue_trial(points[done])
            # Seeded by the number of finished trials: a study that goes on draws what it would have drawn.
            study.sampler = optuna.samplers.TPESampler(
                seed=config.seed * 1_000_003 + done, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True
            )
            trial = study.ask()
            run_trial(trial, problem, suggest(trial, config, space), study)
            done += 1
            advance(1, f"best {_best_value(study):.4f}")


def _within(point: dict[str, Any], space: SearchSpace) -> bool:
    if "learning_rate" not in point:
        return True
    return (
        space.learning_rate_min <= point["learning_rate"] <= space.learning_rate_max
        and point["batch_size"] in space.sizes("batch_sizes")
        and point["hidden_size"] in space.sizes("hidden_sizes")
    )


def _best_value(study: optuna.Study) -> float:
    try:
        return float(study.best_value)
    except ValueError:
        return float("nan")


def run_trial(trial: optuna.Trial, problem: Problem, config: TrainConfig, study: optuna.Study) -> None:
    """Fits one point and tells the study."""
    import optuna

    from dogbreed.head import fit

    started = time.perf_counter()
    best: list[Epoch] = []

    def report(epoch: Epoch) -> None:
        if not best or epoch.valid_loss < best[0].valid_loss:
            best[:] = [epoch]
        if config.solver == "ridge":
            return  # done after its only step, which is nothing to measure the others' first epoch by
        # The best so far, as early stopping will keep it; late over-fitting should not get a good trial pruned.
        trial.report(best[0].valid_loss, epoch.epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    value: float | None = None
    try:
        value, state = fit(problem, config.part(HeadConfig), report=report).best.valid_loss, "COMPLETE"
    except optuna.TrialPruned:
        state = "PRUNED"
    except DogbreedError:  # this point's loss is not a number: it counts, or the same one would be drawn for ever
        state = "PRUNED"
    trial.set_user_attr("config", config.as_dict())
    trial.set_user_attr("seconds", time.perf_counter() - started)
    trial.set_user_attr("valid_accuracy", best[0].valid_accuracy if best else 0.0)
    study.tell(trial, value, state=optuna.trial.TrialState[state])


def _row(trial: optuna.trial.FrozenTrial) -> TrialRow:
    return TrialRow(
        number=trial.number,
        state=trial.state.name,
        value=trial.value,
        accuracy=trial.user_attrs.get("valid_accuracy"),
        params=dict(trial.params),
        seconds=trial.user_attrs.get("seconds"),
    )


def _importances(trials: Sequence[TrialRow]) -> dict[str, float]:
    """How much of the differences in the objective each hyperparameter explains: shares, the largest first.

    Empty where there are too few trials to tell. Optuna's evaluators look only at hyperparameters that every trial has,
    or take one that a single solver has for the choice of that solver. Here a trial that did not use one is given its
    usual value, which says nothing about the solver.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    trials = [trial for trial in trials if trial.value is not None and np.isfinite(trial.value)]
    names = sorted({name for trial in trials for name in trial.params})
    if len(trials) < 10 or not names:
        return {}
    columns = [_as_numbers([trial.params.get(name) for trial in trials]) for name in names]
    x, y = np.stack(columns, axis=1), np.log(np.maximum([trial.value or 0.0 for trial in trials], 1e-12))
    forest = RandomForestRegressor(n_estimators=64, min_samples_leaf=2, random_state=0).fit(x, y)
    found = permutation_importance(forest, x, y, n_repeats=8, random_state=0).importances_mean.clip(min=0)
    shares = found / (found.sum() or 1)
    return {names[i]: float(shares[i]) for i in np.argsort(-shares)}


def _as_numbers(values: list[Any]) -> npt.NDArray[np.float64]:
    """Choices as their rank, numbers as they are, what is missing as the median."""
    if any(isinstance(value, str) for value in values):
        ranks = sorted({value for value in values if value is not None})
        values = [None if value is None else ranks.index(value) for value in values]
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.isnan(numbers), np.nanmedian(numbers), numbers)


def trial_job(*, data: Path, out: Path, config: TrainConfig, device: str = "auto") -> None:
    """One trial of a tuning job: fits with these hyperparameters and prints the objective for SageMaker to read."""
    from dogbreed.train import train

    train(data=data, out=out, config=config, device=device, test=False)


if __name__ == "__main__":
    from dogbreed.cli import run_entry_point

    run_entry_point("hpo")
