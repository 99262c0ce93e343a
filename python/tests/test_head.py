"""Fitting a head: right, reproducible, resumable."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import features, problem
from torch.nn import functional as F

import dogbreed.head
from dogbreed.config import HeadConfig
from dogbreed.errors import DogbreedError
from dogbreed.head import Epoch, Fitted, Head, Problem, best_temperature, calibrate, fit, losses

GRADIENT = ("adamw", "sgd", "lbfgs")
# Bad enough a start that the loss falls for many epochs.
SLOW = {"learning_rate": 1e-3, "batch_size": 32, "epochs": 8, "patience": 100}


class Stop(Exception):
    """Stands for a kill: raised from `report`, which runs after each epoch."""


def stop_after(epoch: int) -> Any:
    def report(seen: Epoch) -> None:
        if seen.epoch == epoch:
            raise Stop

    return report


def assert_same(one: Fitted, other: Fitted) -> None:
    assert one.history == other.history and one.best == other.best
    for name, value in one.head.state_dict().items():
        assert torch.equal(value, other.head.state_dict()[name]), name


def weights(fitted: Fitted) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in fitted.head.parameters()])


# ---------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("hidden_size", [0, 32])
@pytest.mark.parametrize("solver", GRADIENT)
def test_gradient_solvers_learn_what_can_be_learnt(solver: str, hidden_size: int) -> None:
    config = HeadConfig(solver=solver, hidden_size=hidden_size, learning_rate=0.01, batch_size=32)
    assert fit(problem(), config).best.valid_accuracy > 0.95


def test_ridge_learns_what_can_be_learnt() -> None:
    fitted = fit(problem(), HeadConfig(solver="ridge", weight_decay=0.01))
    assert fitted.best.valid_accuracy > 0.95
    assert fitted.best.valid_loss < 0.3, "its scores were not made into logits"


def test_ridge_is_the_textbook_solution() -> None:
    p, decay = problem(60, spread=2), 0.3
    layer = fit(p, HeadConfig(solver="ridge", weight_decay=decay)).head.layers[-1]
    x, y = p.train_x.double().numpy(), np.eye(4)[p.train_y]
    expected = np.linalg.solve(x.T @ x + decay * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean(0))).T
    ours = layer.weight.detach().double().numpy()
    temperature = np.linalg.norm(expected) / np.linalg.norm(ours)
    np.testing.assert_allclose(ours * temperature, expected, atol=1e-5)
    np.testing.assert_allclose(layer.bias.detach().numpy() * temperature, y.mean(0), atol=1e-5)


def test_ridge_calibrates_on_true_leave_one_out_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    p, decay = problem(24, size=6, spread=2), 0.2
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(dogbreed.head, "best_temperature", lambda scores, _: seen.append(scores) or 1.0)
    fit(p, HeadConfig(solver="ridge", weight_decay=decay))
    x, y = p.train_x.double().numpy(), np.eye(4)[p.train_y]
    n, d = x.shape
    design = np.c_[x, np.ones(n)]
    penalty = decay * n * np.diag([*np.ones(d), 0])  # the intercept is not penalised
    for i in range(n):
        rest = np.arange(n) != i
        solution = np.linalg.solve(design[rest].T @ design[rest] + penalty, design[rest].T @ y[rest])
        np.testing.assert_allclose(seen[0][i], design[i] @ solution, atol=1e-4)


def test_a_constant_feature_says_nothing() -> None:
    plain = features(200, seed=1), features(80, seed=2)
    with_constant = [
        dataclasses.replace(f, matrix=np.c_[f.matrix, np.full(len(f), 7.5, np.float32)].astype(np.float32))
        for f in plain
    ]
    p = Problem(*with_constant, classes=4)
    assert p.train_x[:, -1].abs().max() == 0
    for solver in (*GRADIENT, "ridge"):
        config = HeadConfig(solver=solver, learning_rate=0.01, weight_decay=1e-3)
        expected = fit(Problem(*plain, classes=4), config).best
        assert fit(p, config).best.valid_loss == pytest.approx(expected.valid_loss, abs=0.1)


@pytest.mark.parametrize("solver", [*GRADIENT, "ridge"])
def test_a_class_without_training_pictures_is_no_obstacle(solver: str) -> None:
    p = Problem(features(60, classes=3, seed=1), features(30, classes=3, seed=2), classes=5)
    fitted = fit(p, HeadConfig(solver=solver, learning_rate=0.01, batch_size=16))
    assert fitted.best.valid_accuracy > 0.8
    assert fitted.head(torch.zeros(1, 16)).shape == (1, 5)


# ---------------------------------------------------------------------------------------------- calibration


def test_the_temperature_of_known_logits_is_found() -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(size=(4000, 5)) * 2
    chances = np.exp(true_logits) / np.exp(true_logits).sum(1, keepdims=True)
    labels = torch.from_numpy((chances.cumsum(1) > rng.random((4000, 1))).argmax(1))
    for temperature in (0.2, 1.0, 5.0):
        assert best_temperature(torch.from_numpy(true_logits * temperature), labels) == pytest.approx(
            temperature, rel=0.1
        )


@pytest.mark.parametrize("solver", ["adamw", "ridge"])
def test_calibration_lowers_the_loss_and_keeps_the_answers(solver: str) -> None:
    p = problem(80, 400, spread=2, noise=0.2)  # over-fits: its confidence is too high
    fitted = fit(p, HeadConfig(solver=solver, learning_rate=0.1, epochs=30, patience=100, weight_decay=1e-4))
    before = losses(p, fitted.head)
    answers = fitted.head(p.valid_x).argmax(1)
    calibrate(p, fitted.head)
    after = losses(p, fitted.head)
    assert after[0] <= before[0] + 1e-3
    assert after[1] == before[1] and torch.equal(fitted.head(p.valid_x).argmax(1), answers)


def test_no_answer_is_certain_because_few_pictures_were_all_right() -> None:
    p = problem(40, 12, spread=0.1)
    fitted = fit(p, HeadConfig(solver="ridge"))
    calibrate(p, fitted.head)
    loss, accuracy = losses(p, fitted.head)
    assert accuracy == 1 and loss > 0.01


# ---------------------------------------------------------------------------------------------- epochs


@pytest.mark.parametrize("solver", GRADIENT)
@pytest.mark.parametrize("epochs", [1, 3, 7])
def test_as_many_epochs_are_run_as_were_asked_for(solver: str, epochs: int) -> None:
    config = HeadConfig(solver=solver, epochs=epochs, patience=100)
    seen: list[int] = []
    history = fit(problem(), config, report=lambda e: seen.append(e.epoch)).history
    assert [e.epoch for e in history] == seen == list(range(1, epochs + 1))


def test_early_stopping_keeps_the_best_epoch_not_the_last() -> None:
    p = problem(40, 200, spread=2, noise=0.3)
    config = HeadConfig(solver="adamw", learning_rate=0.05, batch_size=8, hidden_size=64, epochs=100, patience=4)
    fitted = fit(p, config)
    by_loss = min(fitted.history, key=lambda e: e.valid_loss)
    assert fitted.best == by_loss
    assert len(fitted.history) == by_loss.epoch + config.patience < 100
    assert fitted.history[-1].valid_loss > by_loss.valid_loss
    assert losses(p, fitted.head) == pytest.approx((by_loss.valid_loss, by_loss.valid_accuracy))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 100, 4096])
def test_the_training_loss_is_a_mean_per_picture_whatever_the_batch_size(batch_size: int) -> None:
    p = problem(100, classes=7)
    # So small a step that the head stays where it starts: every batch size sees the same losses.
    config = HeadConfig(solver="sgd", learning_rate=1e-6, batch_size=batch_size, epochs=1)
    start = F.cross_entropy(p.new_head(config).layers(p.train_x), p.train_y).item()
    assert fit(p, config).history[0].train_loss == pytest.approx(start, rel=1e-3)


def test_the_validation_loss_is_a_mean_per_picture() -> None:
    fitted = fit(p := problem(), HeadConfig(epochs=2))
    chances = torch.softmax(fitted.head(p.valid_x * p.scale + p.mean), 1)
    expected = -chances[torch.arange(80), p.valid_y].log().mean().item()
    assert fitted.best.valid_loss == pytest.approx(expected, rel=1e-4)


def test_dropout_leaves_lbfgs_alone() -> None:
    p = problem()
    without, with_dropout = (fit(p, HeadConfig(solver="lbfgs", epochs=3, dropout=d)) for d in (0.0, 0.5))
    assert [e.valid_loss for e in without.history] == [e.valid_loss for e in with_dropout.history]


# ---------------------------------------------------------------------------------------------- the same again


@pytest.mark.parametrize("solver", [*GRADIENT, "ridge"])
def test_the_same_seed_gives_the_same_bits(solver: str) -> None:
    config = HeadConfig(solver=solver, dropout=0.2 if solver in ("adamw", "sgd") else 0.0, epochs=3)
    one = fit(problem(), config)
    torch.rand(3)  # random numbers drawn elsewhere change nothing
    assert_same(one, fit(problem(), config))


@pytest.mark.parametrize("solver", ["adamw", "sgd"])
def test_another_seed_gives_another_head(solver: str) -> None:
    one, other = (fit(problem(), HeadConfig(solver=solver, epochs=2, seed=seed)) for seed in (0, 1))
    assert not torch.equal(weights(one), weights(other))


@pytest.mark.parametrize(
    ("solver", "more"),
    [
        ("adamw", {}),
        ("adamw", {"dropout": 0.3, "hidden_size": 8, "label_smoothing": 0.1}),
        ("sgd", {"learning_rate": 0.01}),
        ("sgd", {"dropout": 0.3}),
        ("lbfgs", {}),
        ("lbfgs", {"hidden_size": 8}),
    ],
)
def test_a_fit_stopped_at_any_epoch_goes_on_to_the_same_bits(solver: str, more: dict[str, Any], tmp_path: Path) -> None:
    p, config = problem(spread=2), HeadConfig(solver=solver, **{**SLOW, **more})
    whole = fit(p, config)
    for epoch in range(1, config.epochs + 1):
        checkpoint = tmp_path / f"{epoch}.pt"
        with pytest.raises(Stop):
            fit(p, config, report=stop_after(epoch), checkpoint=checkpoint)
        assert_same(fit(p, config, checkpoint=checkpoint), whole)


def test_a_fit_stopped_again_and_again_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    p, config = (
        problem(40, 200, spread=2, noise=0.3),
        HeadConfig(learning_rate=0.05, batch_size=8, hidden_size=64, epochs=100, patience=4),
    )
    whole, checkpoint = fit(p, config), tmp_path / "fit.pt"
    for epoch in range(1, len(whole.history) + 1):  # through the best epoch to where early stopping ends it
        with pytest.raises(Stop):
            fit(p, config, report=stop_after(epoch), checkpoint=checkpoint)
    assert_same(fit(p, config, checkpoint=checkpoint), whole)


@pytest.mark.parametrize(
    "changed", [{"learning_rate": 0.02}, {"seed": 5}, {"solver": "sgd"}, {"hidden_size": 4}, {"epochs": 9}]
)
def test_a_checkpoint_of_other_settings_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    fit(problem(), HeadConfig(**SLOW), checkpoint=tmp_path / "fit.pt")
    with pytest.raises(DogbreedError, match=r"other settings or pictures.*rm '.*fit\.pt'"):
        fit(problem(), HeadConfig(**{**SLOW, **changed}), checkpoint=tmp_path / "fit.pt")


def test_a_checkpoint_of_other_pictures_is_refused(tmp_path: Path) -> None:
    fit(problem(), HeadConfig(**SLOW), checkpoint=tmp_path / "fit.pt")
    with pytest.raises(DogbreedError, match="other settings or pictures"):
        fit(problem(spread=1.5), HeadConfig(**SLOW), checkpoint=tmp_path / "fit.pt")


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" * 100])
def test_a_damaged_checkpoint_is_one_clear_line(damage: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / "fit.pt"
    fit(problem(), HeadConfig(**SLOW), checkpoint=checkpoint)
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    with pytest.raises(DogbreedError, match="is damaged") as caught:
        fit(problem(), HeadConfig(**SLOW), checkpoint=checkpoint)
    assert "\n" not in str(caught.value) and f"rm '{checkpoint}'" in str(caught.value)


def test_a_diverging_loss_is_one_clear_line_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    p, checkpoint = problem(), tmp_path / "fit.pt"
    p.train_x *= 1e30
    with pytest.raises(DogbreedError, match="smaller than 10"):
        fit(p, HeadConfig(solver="sgd", learning_rate=10), checkpoint=checkpoint)
    assert not checkpoint.exists(), "it would be refused when the smaller learning rate is tried"


def test_a_head_answers_in_the_scale_of_its_features() -> None:
    """Features as they come from the network go in; the head standardises them itself."""
    p = problem()
    head: Head = fit(p, HeadConfig(solver="ridge", weight_decay=0.01)).head
    valid = features(80, seed=2)
    answers = head(torch.from_numpy(valid.matrix)).argmax(1).numpy()
    assert (answers == valid.labels).mean() > 0.95
