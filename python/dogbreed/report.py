"""One HTML file that tells a person how good a model is, what it gets wrong, and how it came to be.

Nothing in it is fetched from anywhere: plots are inline SVG, thumbnails are data URIs, and there is no script.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dogbreed.files import write_text
from dogbreed.metrics import Floats, Ints, Metric, reliability, wilson

if TYPE_CHECKING:
    from markupsafe import Markup

THUMBNAIL_PX = 120
MISTAKES_SHOWN = 12
LABELLED_CLASSES = 40  # a confusion matrix of more has no room for names at its sides

# Plots are drawn in these stand-ins, which become CSS variables of the page: one drawing suits light and dark mode.
_INK, _MUTED, _LINE, _ACCENT, _WARM = "#010203", "#010204", "#010205", "#010206", "#010207"
_CSS_COLOURS = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _ACCENT: "var(--accent)",
    _WARM: "var(--warm)",
}


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study. `state` is Optuna's (`COMPLETE`, `PRUNED`, `FAIL`), `value` the validation loss."""

    number: int
    state: str
    value: float | None
    accuracy: float | None
    params: dict[str, Any]
    seconds: float | None


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """Everything a report shows.

    Args:
        breeds: the C classes as a person reads them.
        files: the N evaluated pictures; one that is gone by now gets an empty frame.
        labels: (N,) int.
        probabilities: (N, C) float, rows summing to one.
        split: which split the pictures are from.
        metrics: as `dogbreed.metrics.measure` gives them.
        config: hyperparameters, backbone and so on, as name and value.
        history: one dict per epoch with `epoch`, `train_loss`, `valid_loss`, `valid_accuracy`; empty for a head that
            is fitted in one step.
        data_summary: pictures per split, skipped pictures and so on, as name and value; values may be dicts.
        rejection: how pictures that show no dog are told apart (`threshold`, `recall`, `false_positive_rate`, …).
        study: the trials that led to the hyperparameters.
        importances: the share of each hyperparameter in the spread of the objective.
        notes: what a reader must know to judge the figures.
        command: the shell command that trains this model again.
    """

    title: str
    created: str
    breeds: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Ints
    probabilities: Floats
    split: str
    metrics: dict[str, Metric]
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    data_summary: dict[str, Any] = field(default_factory=dict)
    rejection: dict[str, Any] | None = None
    study: list[TrialRow] | None = None
    importances: dict[str, float] | None = None
    notes: list[str] = field(default_factory=list)
    command: str = ""


def write_report(path: Path, inputs: ReportInputs) -> None:
    """Writes the report as one self-contained HTML file; the same inputs give the same bytes.

    Raises:
        ValueError: the shapes do not fit, or there is no picture.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if len(inputs.files) != len(inputs.labels) or len(inputs.breeds) != inputs.probabilities.shape[1]:
        raise ValueError(
            f"{len(inputs.files)} files and {len(inputs.breeds)} breeds do not fit probabilities of shape "
            f"{inputs.probabilities.shape} and {len(inputs.labels)} labels"
        )
    answers = inputs.probabilities.argmax(axis=1)
    counts = _confusion_counts(inputs.labels, answers, len(inputs.breeds))
    environment = Environment(
        loader=PackageLoader("dogbreed"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, number=_number, words=_words, value=_value)
    study = None if inputs.study is None else _study(inputs.study, inputs.importances)
    page = environment.get_template("report.html.j2").render(
        report=inputs,
        cards=_cards(inputs),
        summary=_summary(inputs, answers, counts),
        confusions=_worst_confusions(inputs, answers, counts),
        mistakes=_confident_mistakes(inputs, answers),
        matrix=_matrix(inputs, counts),
        classes=_classes(inputs, counts),
        calibration=_calibration_plot(inputs),
        learning=_learning_plot(inputs.history),
        study=study,
        thumbnail=cache(_thumbnail),
    )
    write_text(path, page)


# ---- words and numbers ----


def _percent(share: float, digits: int = 1) -> str:
    return f"{share:.{digits}%}".replace("%", "\N{NO-BREAK SPACE}%")


def _number(value: float) -> str:
    """Four significant digits, and an exponent only where it helps."""
    if isinstance(value, int) or not math.isfinite(value):
        return f"{value:,}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _words(name: str) -> str:
    """`false_positive_rate` → `False positive rate`."""
    spaced = name.replace("_", " ").strip()
    return spaced[:1].upper() + spaced[1:]


def _value(value: Any) -> str:
    """A value of a table's cell, as a person would write it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float | np.integer | np.floating):
        return _number(value if isinstance(value, int) else float(value))
    if isinstance(value, dict):
        return ", ".join(f"{_words(str(k)).lower()} {_value(v)}" for k, v in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(_value(v) for v in value) or "–"
    return str(value)


def _interval(metric: Metric, show: Callable[[float], str]) -> str:
    low = show(metric.low).rstrip("\N{NO-BREAK SPACE}%")  # the unit need be said only once
    return f"{low} – {show(metric.high)}"


def _cards(inputs: ReportInputs) -> list[dict[str, str]]:
    """The headline figures: a name, the figure, its interval, and what it means."""
    classes = len(inputs.breeds)
    kinds = {
        "accuracy": ("Accuracy", _percent, "first answer right"),
        "top5_accuracy": ("Top-5 accuracy", _percent, "right breed among the first five"),
        "mean_class_recall": ("Mean class recall", _percent, "accuracy with every breed counting the same"),
        "log_loss": ("Log-loss", "{:.3f}".format, f"{math.log(classes):.2f} by guessing, 0 at best"),
        "ece": ("Calibration error", _percent, "gap between how sure and how right"),
    }
    return [
        {
            "name": name,
            "value": show(inputs.metrics[key].value),
            "interval": _interval(inputs.metrics[key], show),
            "meaning": meaning,
        }
        for key, (name, show, meaning) in kinds.items()
        if key in inputs.metrics and not (key == "top5_accuracy" and classes <= 5)  # always right, and says nothing
    ]


def _summary(inputs: ReportInputs, answers: Ints, counts: Ints) -> str:
    total, right = len(answers), int((answers == inputs.labels).sum())
    accuracy = inputs.metrics["accuracy"]
    sure = float(inputs.probabilities.max(axis=1).mean())
    sentences = [
        f"Of {total:,} {inputs.split} pictures of {len(inputs.breeds)} breeds, {right:,} got the right breed as first "
        f"answer, that is {_percent(right / total)}; guessing would reach {_percent(1 / len(inputs.breeds))}.",
        f"On other pictures of this kind, expect between {_percent(accuracy.low)} and {_percent(accuracy.high)}.",
    ]
    if accuracy.low <= sure <= accuracy.high:
        sentences.append(f"It is about as sure as it is right: {_percent(sure, 0)} on average.")
    else:
        too = "surer than it should be" if sure > right / total else "less sure than it could be"
        sentences.append(f"It is {too}: {_percent(sure, 0)} sure on average.")
    wrong = counts - np.diag(np.diag(counts))
    if wrong.max() > 1:
        true, answer = np.unravel_index(wrong.argmax(), wrong.shape)
        sentences.append(
            f"The most frequent mistake is {inputs.breeds[true]} taken for {inputs.breeds[answer]} "
            f"({wrong[true, answer]} of {counts[true].sum()} pictures)."
        )
    elif not wrong.any():
        sentences.append("There was no mistake.")
    return " ".join(sentences)


# ---- pictures ----


def _thumbnail(path: Path) -> str | None:
    """The picture as a small JPEG data URI; None where there is no usable picture any more."""
    from PIL import Image, ImageOps

    from dogbreed.data.pictures import open_picture, to_rgb

    try:
        picture = open_picture(path.read_bytes())
        picture.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
        picture = to_rgb(ImageOps.exif_transpose(picture))
        picture = ImageOps.fit(picture, (THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=80, optimize=True)
    except Exception:  # gone, replaced, or broken in one of Pillow's many ways: the figures stand without it
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


# ---- mistakes ----


def _confusion_counts(labels: Ints, answers: Ints, classes: int) -> Ints:
    from sklearn.metrics import confusion_matrix

    counts: Ints = confusion_matrix(labels, answers, labels=range(classes))
    return counts


def _worst_confusions(inputs: ReportInputs, answers: Ints, counts: Ints) -> list[dict[str, Any]]:
    """The pairs of breeds most often taken for each other, each with the surest mistake and a right answer beside it.

    Of pairs with equally many mistakes the one that was made with more confidence comes first.
    """
    confidence = inputs.probabilities.max(axis=1)
    weight = np.zeros(counts.shape)
    np.add.at(weight, (inputs.labels, answers), confidence)
    rank = counts + weight / (counts + 1)  # the mean confidence is below one, so it only breaks ties
    np.fill_diagonal(rank, 0)
    worst = np.argsort(-rank, axis=None, kind="stable")[:MISTAKES_SHOWN]
    pairs = [(int(t), int(a)) for t, a in zip(*np.unravel_index(worst, counts.shape), strict=True)]

    def surest(true: int, answer: int) -> Path | None:
        found = np.flatnonzero((inputs.labels == true) & (answers == answer))
        return inputs.files[found[confidence[found].argmax()]] if len(found) else None

    return [
        {
            "true": inputs.breeds[true],
            "answer": inputs.breeds[answer],
            "count": int(counts[true, answer]),
            "of": int(counts[true].sum()),
            "picture": surest(true, answer),
            "example": surest(answer, answer),
        }
        for true, answer in pairs
        if true != answer and counts[true, answer]
    ]


def _confident_mistakes(inputs: ReportInputs, answers: Ints) -> list[dict[str, Any]]:
    rows = np.arange(len(answers))
    sure = np.where(answers == inputs.labels, 0.0, inputs.probabilities[rows, answers])
    return [
        {
            "true": inputs.breeds[inputs.labels[i]],
            "answer": inputs.breeds[answers[i]],
            "probability": float(sure[i]),
            "of_truth": float(inputs.probabilities[i, inputs.labels[i]]),
            "picture": inputs.files[i],
        }
        for i in np.argsort(-sure, kind="stable")[:MISTAKES_SHOWN]
        if sure[i]
    ]


def _matrix(inputs: ReportInputs, counts: Ints) -> dict[str, Any]:
    """The non-zero cells of the confusion matrix, with the breeds in an order that puts confused ones side by side."""
    order = _confusion_order(inputs, counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    place = np.argsort(order)
    return {
        "breeds": [inputs.breeds[i] for i in order],
        "labelled": len(order) <= LABELLED_CLASSES,
        "cells": [
            {
                "x": int(place[answer]),
                "y": int(place[true]),
                "right": bool(true == answer),
                "share": float(shares[true, answer]),
                "count": int(counts[true, answer]),
                "of": int(counts[true].sum()),
                "true": inputs.breeds[true],
                "answer": inputs.breeds[answer],
            }
            for true, answer in sorted(np.argwhere(counts).tolist(), key=lambda cell: (place[cell[0]], place[cell[1]]))
        ],
    }


def _confusion_order(inputs: ReportInputs, counts: Ints) -> Ints:
    """Leaves of a clustering by confusion. Probabilities tell more than the few mistakes: every picture votes."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    votes = np.zeros(counts.shape)
    np.add.at(votes, inputs.labels, inputs.probabilities)
    votes /= np.maximum(counts.sum(axis=1, keepdims=True), 1)
    distance = 1 - np.sqrt(np.clip(votes + votes.T, 0, 2) / 2)
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    order: Ints = leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))
    return order


def _classes(inputs: ReportInputs, counts: Ints) -> list[dict[str, Any]]:
    """One row per breed, the worst recall first; breeds without a picture last."""
    rows = []
    for i, breed in enumerate(inputs.breeds):
        of, right = int(counts[i].sum()), int(counts[i, i])
        wrong = counts[i].copy()
        wrong[i] = 0
        answered = int(counts[:, i].sum())
        rows.append(
            {
                "breed": breed,
                "of": of,
                "right": right,
                "recall": right / of if of else None,
                "interval": wilson(right, of) if of else None,
                "precision": right / answered if answered else None,
                "taken_for": inputs.breeds[wrong.argmax()] if wrong.any() else None,
                "taken_count": int(wrong.max()),
            }
        )
    return sorted(rows, key=lambda row: (row["recall"] is None, row["recall"], row["breed"]))


# ---- plots ----


def _plot(name: str, alt: str, size: tuple[float, float], draw: Callable[[Any], None]) -> Markup:
    """Draws with matplotlib and returns SVG that belongs into a page: its colours, its fonts, its own ids."""
    import matplotlib
    from markupsafe import Markup, escape
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",  # real text: small, sharp, in the page's font
        "svg.hashsalt": name,  # equal ids for equal plots
        "text.parse_math": False,  # a `$` in a name is a `$`
        "font.size": 10,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _LINE,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": _LINE,
        "grid.linewidth": 0.6,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        written = io.StringIO()
        no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", transparent=True, metadata=no_metadata)
    svg = written.getvalue()
    viewbox = re.search(r'viewBox="[\d. ]+"', svg)
    assert viewbox is not None
    svg = svg[svg.index(">", svg.index("<svg")) + 1 :]
    svg = f'<svg {viewbox[0]} role="img" aria-label="{escape(alt)}">' + svg
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)  # ids are shared by all drawings of a page
    for stand_in, colour in _CSS_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return Markup(svg)


def _percent_axis(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))


def _calibration_plot(inputs: ReportInputs) -> Markup:
    found = reliability(inputs.probabilities, inputs.labels)

    def draw(figure: Any) -> None:
        curve, bars = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        curve.plot([0, 1], [0, 1], color=_MUTED, linestyle="--", linewidth=1, label="as sure as right")
        errors = [found.accuracy - found.low, found.high - found.accuracy]
        curve.errorbar(
            found.confidence, found.accuracy, np.clip(errors, 0, None), color=_ACCENT, marker="o", markersize=4,
            elinewidth=1, linewidth=1.2, label="this model (95 % interval)",
        )  # fmt: skip
        curve.set(ylabel="share that was right", xlim=(0, 1.01), ylim=(-0.02, 1.03))
        curve.legend(loc="upper left")
        bars.bar(found.confidence, found.count, width=0.04, color=_ACCENT, alpha=0.6)
        bars.set(xlabel="probability of the answer", ylabel="pictures")
        bars.grid(visible=False)
        for axis in (curve.xaxis, curve.yaxis):
            _percent_axis(axis)

    worst = int(np.abs(found.confidence - found.accuracy).argmax())
    alt = (
        f"Calibration: share of right answers against their probability in {len(found.count)} bins. Widest gap at "
        f"{_percent(found.confidence[worst])} sure, {_percent(found.accuracy[worst])} right."
    )
    return _plot("calibration", alt, (4.6, 4.6), draw)


def _learning_plot(history: Sequence[dict[str, Any]]) -> Markup | None:
    if not history:
        return None
    nan = float("nan")

    def column(name: str) -> npt.NDArray[np.float64]:
        return np.array([nan if row.get(name) is None else row[name] for row in history], dtype=np.float64)

    epochs, valid_loss, accuracy = column("epoch"), column("valid_loss"), column("valid_accuracy")
    best = None if np.isnan(valid_loss).all() else int(np.nanargmin(valid_loss))
    marker = "o" if len(history) == 1 else None

    def draw(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        losses, right = figure.subplots(2, 1, sharex=True)
        losses.plot(epochs, column("train_loss"), color=_MUTED, marker=marker, label="train")
        losses.plot(epochs, valid_loss, color=_ACCENT, marker=marker, label="valid")
        losses.set(ylabel="loss")
        right.plot(epochs, accuracy, color=_ACCENT, marker=marker, label="valid")
        right.set(ylabel="accuracy", xlabel="epoch")
        _percent_axis(right.yaxis)
        for axes, values in ((losses, valid_loss), (right, accuracy)):
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if best is not None:
                axes.plot(epochs[best], values[best], "o", color=_WARM, markersize=6, label="best epoch")
        losses.legend()

    alt = f"Learning curve over {len(history)} epochs"
    if best is not None:
        alt += f"; lowest validation loss {_number(valid_loss[best])} at epoch {_number(float(epochs[best]))}"
    return _plot("learning", alt, (4.6, 4.6), draw)


def _study(trials: list[TrialRow], importances: dict[str, float] | None) -> dict[str, Any]:
    done = sorted((t for t in trials if _finished(t)), key=lambda t: (t.value, t.number))
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    states = {state: sum(t.state == state for t in trials) for state in dict.fromkeys(t.state for t in trials)}
    seconds = [t.seconds for t in trials if t.seconds is not None]
    return {
        "best": done[:10],
        "names": names,
        "states": ", ".join(f"{count} {state.lower()}" for state, count in states.items()),
        "seconds": sum(seconds) if seconds else None,
        "history": _history_plot(trials, done) if done else None,
        "parallel": _parallel_plot(done, names) if len(done) > 1 and names else None,
        "importances": sorted((importances or {}).items(), key=lambda item: -item[1]),
    }


def _finished(trial: TrialRow) -> bool:
    return trial.state == "COMPLETE" and trial.value is not None and math.isfinite(trial.value)


def _history_plot(trials: list[TrialRow], done: list[TrialRow]) -> Markup:
    in_order = sorted(done, key=lambda t: t.number)
    values = np.array([t.value for t in in_order], dtype=np.float64)
    others = [t for t in trials if not _finished(t)]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([t.number for t in in_order], values, "o", color=_ACCENT, alpha=0.45, markersize=4, label="trial")
        best = np.minimum.accumulate(values)
        axes.step(
            [*(t.number for t in in_order), max(t.number for t in trials)], [*best, best[-1]], where="post",
            color=_WARM, label="best so far",
        )  # fmt: skip
        if values.min() > 0 and values.max() / values.min() > 4:
            axes.set_yscale("log")
            _plain_log_ticks(axes.yaxis)
        if others:
            axes.plot(
                [t.number for t in others], [0.02] * len(others), "x", color=_MUTED, markersize=4,
                transform=axes.get_xaxis_transform(), label="stopped early or failed",
            )  # fmt: skip
        axes.set(xlabel="trial", ylabel="validation loss")
        axes.legend(loc="upper right")

    alt = f"Validation loss of {len(done)} trials; the best, number {done[0].number}, reached {_value(done[0].value)}"
    return _plot("history", alt, (4.6, 3.6), draw)


def _plain_log_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class _Axis:
    """One upright of the parallel coordinates: where a value stands between 0 and 1, and the marks beside it."""

    name: str
    place: Callable[[Any], float]
    marks: list[tuple[float, str]]


UNUSED = -0.12  # where a trial without this hyperparameter passes


def _axis(name: str, values: list[Any]) -> _Axis:
    used = [v for v in values if v is not None]
    if not used or any(isinstance(v, bool) or not isinstance(v, int | float) for v in used) or len(set(used)) <= 6:
        numeric = all(isinstance(v, int | float) for v in used)
        levels = sorted(set(used)) if numeric else sorted(set(used), key=str)
        places = {level: (i + 0.5) / len(levels) for i, level in enumerate(levels)}
        marks = [(place, _value(level)[:14]) for level, place in places.items()]
        return _Axis(name, lambda v: UNUSED if v is None else places[v], marks)
    low, middle, high = (float(v) for v in np.quantile(used, [0, 0.5, 1]))
    # Values that were drawn on a logarithmic scale have their median near the geometric mean.
    logarithmic = low > 0 and high / low > 10 and abs(middle - math.sqrt(low * high)) < abs(middle - (low + high) / 2)
    scale: Callable[[float], float] = math.log10 if logarithmic else float
    start, span = scale(low), scale(high) - scale(low)
    ends = [10 ** (start + span * k / 2) if logarithmic else start + span * k / 2 for k in range(3)]
    marks = [(k / 2, f"{end:.2g}") for k, end in enumerate(ends)]
    return _Axis(name, lambda v: UNUSED if v is None else (scale(float(v)) - start) / span, marks)


def _parallel_plot(done: list[TrialRow], names: list[str], at_most: int = 400) -> Markup:
    shown = done[:at_most]
    axes_of = [*(_axis(name, [t.params.get(name) for t in shown]) for name in names)]
    # One hopeless trial must not press all others together: the worst tenth shares the upper end.
    ceiling = float(np.quantile([t.value for t in shown], 0.9))
    values = [min(t.value, ceiling) for t in shown if t.value is not None]
    losses = _axis("validation loss", values)
    uprights = [*axes_of, losses]

    def draw(figure: Any) -> None:
        from matplotlib.collections import LineCollection

        axes = figure.subplots()
        axes.set(xlim=(-0.15, len(uprights) - 0.55), ylim=(UNUSED - 0.06, 1.05))
        axes.axis("off")
        paths = [
            list(enumerate([*(a.place(t.params.get(a.name)) for a in axes_of), losses.place(value)]))
            for t, value in zip(reversed(shown), reversed(values), strict=True)
        ]
        tenth = max(1, round(len(paths) / 10))
        axes.add_collection(LineCollection(paths[:-tenth], colors=_MUTED, alpha=0.3, linewidths=0.8))
        axes.add_collection(LineCollection(paths[-tenth:-1], colors=_ACCENT, alpha=0.8, linewidths=1.3))
        axes.add_collection(LineCollection(paths[-1:], colors=_WARM, linewidths=2.6))
        for k, upright in enumerate(uprights):
            axes.plot([k, k], [0, 1], color=_LINE, linewidth=1.2, zorder=0)
            axes.text(k, 1.1, _words(upright.name), ha="center", weight="bold")
            for place, mark in upright.marks:
                axes.text(k + 0.03, place, mark, va="center", size=9)
        if any(t.params.get(name) is None for t in shown for name in names):
            axes.text(-0.1, UNUSED, "not used", va="center", ha="right", size=9, color=_MUTED)

    alt = f"Parallel coordinates: hyperparameters and validation loss of the {len(shown)} best trials"
    return _plot("parallel", alt, (1.35 * len(uprights) + 0.6, 3.8), draw)
