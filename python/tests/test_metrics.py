"""The figures against hand-computed ones, their intervals against simulation, the printer against the regexes."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from dogbreed.metrics import METRIC_NAMES, emit, measure, metric_definitions, reliability, wilson


def predictions(pictures: int, classes: int, *, skill: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Perfectly calibrated probabilities (N, C): the labels are drawn from them."""
    rng = np.random.default_rng(seed)
    scores = np.exp(rng.normal(size=(pictures, classes)) * skill)
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > rng.random((pictures, 1))).argmax(axis=1)
    return probabilities.astype(np.float32), labels


def test_values_computed_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.25, 0.25]], np.float32)
    labels = np.array([0, 1, 1, 2])
    found = measure(probabilities, labels)
    assert found["accuracy"].value == 0.5
    assert found["top5_accuracy"].value == 1.0
    assert found["mean_class_recall"].value == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["log_loss"].value == pytest.approx(
        -(math.log(0.7) + math.log(0.3) + math.log(0.8) + math.log(0.25)) / 4
    )
    # One picture per bin: |0.7 − 1|, |0.6 − 0|, |0.8 − 1|, |0.5 − 0|.
    assert found["ece"].value == pytest.approx((0.3 + 0.6 + 0.2 + 0.5) / 4)


def test_values_agree_with_scikit_learn() -> None:
    probabilities, labels = predictions(500, 12)
    found, classes, answers = measure(probabilities, labels), range(12), probabilities.argmax(axis=1)
    assert found["accuracy"].value == pytest.approx(sk.accuracy_score(labels, answers))
    assert found["top5_accuracy"].value == pytest.approx(
        sk.top_k_accuracy_score(labels, probabilities, k=5, labels=classes)
    )
    assert found["mean_class_recall"].value == pytest.approx(
        sk.recall_score(labels, answers, labels=classes, average="macro", zero_division=np.nan)
    )
    assert found["log_loss"].value == pytest.approx(sk.log_loss(labels, probabilities, labels=classes), rel=1e-5)


def test_every_value_lies_in_its_interval_and_the_seed_decides() -> None:
    probabilities, labels = predictions(120, 7)
    found = measure(probabilities, labels, seed=3)
    assert all(m.low <= m.value <= m.high and m.low < m.high for m in found.values())
    assert found == measure(probabilities, labels, seed=3)


@pytest.mark.parametrize("classes", [2, 10, 133])
def test_guessing_costs_the_logarithm_of_the_number_of_classes(classes: int) -> None:
    labels = np.arange(1330) % classes
    found = measure(np.full((1330, classes), 1 / classes, np.float32), labels)
    assert found["log_loss"].value == pytest.approx(math.log(classes), rel=1e-6)
    assert found["accuracy"].value == pytest.approx(1 / classes, abs=0.001)
    assert found["ece"].value == pytest.approx(0, abs=0.001)


def test_the_loss_is_a_mean_per_picture_whatever_the_number_of_pictures() -> None:
    probabilities, labels = predictions(100, 5)
    once, twice = measure(probabilities, labels), measure(np.tile(probabilities, (2, 1)), np.tile(labels, 2))
    assert once["log_loss"].value == pytest.approx(twice["log_loss"].value)


def test_a_calibrated_model_has_no_calibration_error() -> None:
    probabilities, labels = predictions(20_000, 10)
    found = measure(probabilities, labels, resamples=200)["ece"]
    assert found.value < 0.015
    assert found.low == 0


def test_overconfidence_is_a_calibration_error() -> None:
    labels = np.arange(1000) % 2
    probabilities = np.tile(np.array([[0.9, 0.1]], np.float32), (1000, 1))  # 90 % sure, 50 % right
    found = measure(probabilities, labels)["ece"]
    assert found.value == pytest.approx(0.4, abs=1e-6)
    assert found.low > 0.35
    assert found.high < 0.45


def test_intervals_hold_the_truth() -> None:
    """95 % intervals of 200 small samples hold the value of a very large one, about 95 times in 100."""
    probabilities, labels = predictions(200_000, 10)
    truth = {name: metric.value for name, metric in measure(probabilities, labels, resamples=2).items()}
    truth["ece"] = 0.0
    rng, held = np.random.default_rng(5), dict.fromkeys(truth, 0)
    for _ in range(200):
        drawn = rng.integers(0, len(labels), 150)
        for name, metric in measure(probabilities[drawn], labels[drawn], resamples=300).items():
            held[name] += metric.low <= truth[name] <= metric.high
    assert all(count >= 178 for count in held.values()), held


def test_few_pictures_per_class_still_give_an_honest_recall() -> None:
    rng, held = np.random.default_rng(0), 0
    labels = np.repeat(np.arange(40), 3)
    for _ in range(200):
        right = rng.random(120) < 0.8
        answers = np.where(right, labels, (labels + 1) % 40)
        recall = measure(np.eye(40, dtype=np.float32)[answers], labels, resamples=300)["mean_class_recall"]
        held += recall.low <= 0.8 <= recall.high
    assert held >= 180


def test_a_perfect_score_is_not_certain() -> None:
    found = measure(np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]))
    for name in ("accuracy", "mean_class_recall"):
        assert found[name].value == found[name].high == 1.0
        assert found[name].low < 0.6


def test_a_class_without_pictures_does_not_count_as_missed() -> None:
    found = measure(np.eye(4, dtype=np.float32)[[0, 1, 1]], np.array([0, 1, 1]))
    assert found["mean_class_recall"].value == 1.0


def test_a_certain_mistake_costs_much_but_not_infinitely_much() -> None:
    found = measure(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert found["log_loss"].value == pytest.approx(-math.log(np.finfo(np.float32).eps))


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [((3,), [0, 0, 0]), ((3, 2), [0, 1]), ((0, 2), []), ((2, 2), [0, 2]), ((2, 2), [-1, 0])],
)
def test_inputs_that_do_not_fit_are_refused(probabilities: tuple[int, ...], labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"probabilities|picture|labels"):
        measure(np.full(probabilities, 0.5, np.float32), np.array(labels, dtype=np.int64))


def test_reliability_puts_each_answer_into_one_bin() -> None:
    probabilities, labels = predictions(400, 6)
    found = reliability(probabilities, labels)
    assert found.count.sum() == 400
    assert (found.count > 0).all()
    assert (np.diff(found.confidence) > 0).all()
    assert (found.count * found.accuracy).sum() == pytest.approx((probabilities.argmax(axis=1) == labels).sum())
    assert ((found.low <= found.accuracy + 1e-9) & (found.accuracy <= found.high + 1e-9)).all()
    ece = (found.count / 400 * abs(found.accuracy - found.confidence)).sum()
    assert ece == pytest.approx(measure(probabilities, labels)["ece"].value)


def test_wilson_matches_its_formula() -> None:
    hits, total, z = 87, 100, 1.959964
    middle = (hits / total + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(hits / total * (1 - hits / total) / total + z * z / (4 * total**2))
    assert wilson(hits, total) == pytest.approx((middle - half, middle + half), abs=1e-5)


def read_by_a_job(text: str) -> dict[str, list[float]]:
    found = {d["Name"]: [float(v) for v in re.findall(d["Regex"], text)] for d in metric_definitions()}
    return {name: values for name, values in found.items() if values}


@given(value=st.floats(allow_nan=False, allow_infinity=False), name=st.sampled_from(METRIC_NAMES))
def test_a_job_reads_what_is_printed(value: float, name: str) -> None:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        emit(0, **{name: value})
    assert read_by_a_job(printed.getvalue()) == {name: [value]}


def test_the_printed_form(capsys: pytest.CaptureFixture[str]) -> None:
    emit(0, valid_loss=1e-05, valid_accuracy=np.float32(0.5), train_loss=1200)
    assert capsys.readouterr().out == "valid_loss=1e-05;\nvalid_accuracy=0.5;\ntrain_loss=1200.0;\n"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_no_metrics_store_takes_are_printed_but_not_read(
    value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    emit(0, valid_loss=value)
    printed = capsys.readouterr().out
    assert printed == f"valid_loss={value!r};\n"
    assert read_by_a_job(printed) == {}


def test_a_metric_is_found_behind_a_prefix_but_not_inside_another_name() -> None:
    assert read_by_a_job("[1,mpirank:0,algo-1]<stdout>:valid_loss=0.5;") == {"valid_loss": [0.5]}
    assert read_by_a_job("ensemble_valid_loss=0.5;") == {}
    assert read_by_a_job("valid_loss=0.5x;valid_loss=0.5") == {}


def test_only_rank_0_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    emit(test_loss=1.0)
    emit(2, test_loss=1.0)
    assert capsys.readouterr().out == ""
    emit(0, test_loss=1.0)
    monkeypatch.setenv("RANK", "0")
    emit(test_loss=2.0)
    assert capsys.readouterr().out == "test_loss=1.0;\ntest_loss=2.0;\n"


def test_a_name_that_no_job_would_read_is_refused() -> None:
    with pytest.raises(ValueError, match="vaild_loss"):
        emit(vaild_loss=1.0)


def test_definitions_stay_within_the_limits_of_the_service() -> None:
    definitions = metric_definitions()
    assert [d["Name"] for d in definitions] == list(METRIC_NAMES)
    assert len(definitions) <= 40
    assert all(len(d["Regex"]) <= 500 and re.compile(d["Regex"]).groups == 1 for d in definitions)
