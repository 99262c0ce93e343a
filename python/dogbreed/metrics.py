"""How good a classifier is, with how sure we can be of it, and the metric lines that SageMaker reads from the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dogbreed.config import SageMaker

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

METRIC_NAMES = (
    "train_loss",
    "valid_loss",
    "valid_accuracy",
    "test_loss",
    "test_accuracy",
    "test_top5_accuracy",
    "test_mean_class_recall",
    "test_ece",
)
CALIBRATION_BINS = 15
# Bounds the memory of the resampling (32 MB of indices), whatever the number of pictures.
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Metric:
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Reliability:
    """Is a model right as often as it says? One entry per non-empty bin of confidence; all arrays are (B,).

    `confidence` is the mean probability of the answers in the bin, `accuracy` the share of them that was right, with a
    95 % interval from `low` to `high`, `count` their number.
    """

    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    count: Ints


def measure(probabilities: Floats, labels: Ints, *, seed: int = 0, resamples: int = 1000) -> dict[str, Metric]:
    """The figures that describe a classifier on one split, each with a 95 % interval over the choice of pictures.

    - `accuracy`, `top5_accuracy`: the share of pictures whose breed is the first, or among the first five, answers
      (Wilson interval).
    - `mean_class_recall`: the share of right answers per class, averaged over the classes that have pictures, so that
      a rare breed counts as much as a common one (bootstrap within the classes).
    - `log_loss`: mean over pictures of −ln(probability of the true class), as natural logarithm (bootstrap);
      probabilities are kept above float32's 1.2e-7, as scikit-learn does.
    - `ece`: expected calibration error of the first answer, over 15 bins of equal width (see `_ece`).

    Args:
        probabilities: (N, C) float, rows summing to one.
        labels: (N,) int, counting into the C classes. A class may have no picture.

    Raises:
        ValueError: the shapes do not fit, there is no picture, or a label is not one of the C classes.
    """
    _check(probabilities, labels)
    rng = np.random.default_rng(seed)
    # Stable, so that equal probabilities are answered in the order of the classes, as argmax does.
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    hits = best == labels[:, None]
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.clip(of_truth, np.finfo(np.float32).eps, 1.0))
    return {
        "accuracy": _share(hits[:, 0]),
        "top5_accuracy": _share(hits.any(axis=1)),
        "mean_class_recall": _mean_class_recall(hits[:, 0], labels, rng, resamples),
        "log_loss": Metric(float(losses.mean()), *_percentiles(_bootstrap_means(losses, rng, resamples))),
        "ece": _ece(probabilities.max(axis=1).astype(np.float64), hits[:, 0], rng, resamples),
    }


def reliability(probabilities: Floats, labels: Ints, bins: int = CALIBRATION_BINS) -> Reliability:
    """Confidence against accuracy of the first answer, in `bins` bins of equal width; empty bins are left out.

    Args:
        probabilities: (N, C) float, rows summing to one.
        labels: (N,) int.

    Raises:
        ValueError: as for `measure`.
    """
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1).astype(np.float64)
    hits = probabilities.argmax(axis=1) == labels
    found, bin_of = np.unique(_bins(confidence, bins), return_inverse=True)
    count = np.bincount(bin_of, minlength=len(found))
    right = np.bincount(bin_of, weights=hits, minlength=len(found)).astype(int)
    intervals = np.array([wilson(int(k), int(n)) for k, n in zip(right, count, strict=True)])
    return Reliability(
        confidence=np.bincount(bin_of, weights=confidence) / count,
        accuracy=right / count,
        low=intervals[:, 0],
        high=intervals[:, 1],
        count=count,
    )


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share: unlike the textbook ± it holds near 0 and 1, and for few pictures."""
    from scipy.stats import binomtest

    interval = binomtest(hits, total).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _check(probabilities: Floats, labels: Ints) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"probabilities {probabilities.shape} and labels {labels.shape} are not (N, C) and (N,)")
    if not len(labels):
        raise ValueError("there is no picture to measure")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, not over {probabilities.shape[1]} classes")


def _share(hits: npt.NDArray[np.bool_]) -> Metric:
    return Metric(float(hits.mean()), *wilson(int(hits.sum()), len(hits)))


def _percentiles(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _mean_class_recall(hits: npt.NDArray[np.bool_], labels: Ints, rng: np.random.Generator, resamples: int) -> Metric:
    pictures = np.bincount(labels)
    right = np.bincount(labels, weights=hits)[pictures > 0]
    pictures = pictures[pictures > 0]
    recall = right / pictures
    value = float(recall.mean())
    # A class's resampled hits are binomial, so no picture need be drawn. One draw fewer than there are pictures makes
    # the spread unbiased (McCarthy and Snowden, 1985), which tells at seven pictures per class. A class with a single
    # picture shows no spread at all; such classes are treated as samples of one class.
    rates = recall.copy()
    if (lone := pictures == 1).any():
        rates[lone] = recall[lone].mean()
    draws = np.maximum(pictures - 1, 1)
    low, high = _percentiles((rng.binomial(draws, rates, size=(resamples, len(draws))) / draws).mean(axis=1))
    if low == high:  # every picture right, or every one wrong: resampling cannot show what was not seen
        low, high = wilson(int(hits.sum()), len(hits))
    return Metric(value, min(low, value), max(high, value))


def _resamples(pictures: int, rng: np.random.Generator, resamples: int) -> Iterator[Ints]:
    """Indices of pictures drawn with replacement, (R, N) with the R adding up to `resamples`."""
    at_once = max(1, _DRAWS_AT_ONCE // pictures)
    for start in range(0, resamples, at_once):
        yield rng.integers(0, pictures, size=(min(at_once, resamples - start), pictures))


def _bootstrap_means(values: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    return np.concatenate([values[drawn].mean(axis=1) for drawn in _resamples(len(values), rng, resamples)])


def _bins(confidence: Floats, bins: int) -> Ints:
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _ece(confidence: Floats, hits: npt.NDArray[np.bool_], rng: np.random.Generator, resamples: int) -> Metric:
    """The mean distance between confidence and accuracy, over bins of equal width weighted by their pictures.

    Chance alone puts distance into every bin, so the figure of a perfectly calibrated model is above zero (0.03 for 840
    pictures), and that of a resample is higher still: plain percentiles would lie above the true value. So the interval
    is mirrored around the figure ("basic" bootstrap), and it reaches down to 0 where a perfectly calibrated model with
    these confidences would show as much in one case of twenty.
    """
    bin_of = _bins(confidence, CALIBRATION_BINS)
    gaps = confidence - hits

    def distances(bin_of: Ints, gaps: Floats) -> Floats:
        rows = np.arange(len(gaps))[:, None] * CALIBRATION_BINS
        sums = np.bincount((bin_of + rows).ravel(), gaps.ravel(), minlength=len(gaps) * CALIBRATION_BINS)
        distance: Floats = np.abs(sums.reshape(-1, CALIBRATION_BINS)).sum(axis=1) / gaps.shape[1]
        return distance

    value = float(distances(bin_of[None], gaps[None])[0])
    drawn, by_chance = [], []
    for picked in _resamples(len(gaps), rng, resamples):
        drawn.append(distances(bin_of[picked], gaps[picked]))
        by_chance.append(distances(bin_of[None], confidence - (rng.random(picked.shape) < confidence)))
    low, high = _percentiles(np.concatenate(drawn))
    low, high = 2 * value - high, 2 * value - low
    if value <= np.quantile(np.concatenate(by_chance), 0.95):
        low = 0.0
    return Metric(value, min(value, max(0.0, low)), max(value, min(1.0, high)))


def emit(rank: int | None = None, /, **metrics: float) -> None:
    """Prints one line per metric, `name=value;`, for the log of a training job; only the process of rank 0 prints.

    Args:
        rank: this process's place among those that train together; that of the environment where not given.

    Raises:
        ValueError: a name that is not in `METRIC_NAMES`: no job would pick it up.
    """
    if unknown := sorted(set(metrics) - set(METRIC_NAMES)):
        raise ValueError(f"unknown metric {unknown[0]!r}; known are {', '.join(METRIC_NAMES)}")
    if (SageMaker.rank() if rank is None else rank) != 0:
        return
    for name, value in metrics.items():
        print(f"{name}={float(value)!r};", flush=True)


def metric_definitions() -> list[dict[str, str]]:
    """The `MetricDefinitions` of a training or tuning job: how SageMaker finds what `emit` prints.

    Only finite numbers match. The metrics store takes no others, and a trial that diverged is better left without an
    objective than with one of NaN. There is no `^` because with several processes the log puts a prefix on each line;
    `\\b` keeps `loss` from being found inside `valid_loss`.
    """
    number = r"(-?[0-9]+(?:\.[0-9]+)?(?:e[-+][0-9]+)?)"
    return [{"Name": name, "Regex": rf"\b{name}={number};"} for name in METRIC_NAMES]
