"""The report is one file that needs nothing else, says what is so, and survives odd inputs."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dogbreed.metrics import measure
from dogbreed.report import ReportInputs, TrialRow, write_report

HOSTILE = '<script>alert("x")</script>'


def make_inputs(folder: Path, *, classes: int = 5, per_class: int = 6, missing: bool = False) -> ReportInputs:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    scores = rng.normal(size=(len(labels), classes))
    scores[np.arange(len(labels)), labels] += 2
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    files = tuple(folder / f"picture_{i:04}.jpg" for i in range(len(labels)))
    if not missing:
        for file in files:
            Image.fromarray(rng.integers(0, 255, (150, 200, 3), dtype=np.uint8)).save(file)
    return ReportInputs(
        title="A report",
        created="2026-01-31",
        breeds=tuple(f"Breed {i}" for i in range(classes)),
        files=files,
        labels=labels,
        probabilities=probabilities.astype(np.float32),
        split="test",
        metrics=measure(probabilities, labels, resamples=50),
        config={"backbone": "efficientnet_lite0", "learning_rate": 0.01},
        history=[{"epoch": e, "train_loss": 1 / e, "valid_loss": 1.2 / e, "valid_accuracy": 0.5} for e in (1, 2, 3)],
        data_summary={"pictures": {"train": 30, "test": 30}, "skipped": 1},
        rejection={"threshold": 0.4, "recall": 0.95, "false_positive_rate": 0.08},
        study=trials(),
        importances={"learning_rate": 0.7, "head": 0.3},
        notes=["These pictures are drawn."],
        command="dogbreed train --seed 1",
    )


def trials(count: int = 20) -> list[TrialRow]:
    rng = np.random.default_rng(1)
    rows = [
        TrialRow(
            n, "COMPLETE", float(rng.random() + 0.5), 0.8, {"head": "linear", "learning_rate": float(rng.random())}, 0.4
        )
        for n in range(count - 4)
    ]
    n = len(rows)
    return [
        *rows,
        TrialRow(n, "COMPLETE", 0.6, None, {"head": "ridge"}, None),
        TrialRow(n + 1, "COMPLETE", float("nan"), None, {"head": "linear", "learning_rate": 0.1}, 1.0),
        TrialRow(n + 2, "PRUNED", None, None, {"head": "linear", "learning_rate": 0.1}, 0.1),
        TrialRow(n + 3, "FAIL", None, None, {}, None),
    ]


def page_of(inputs: ReportInputs, folder: Path) -> str:
    path = folder / "report.html"
    write_report(path, inputs)
    page = path.read_text()
    WellFormed().check(page)
    return page


class WellFormed(HTMLParser):
    """Tags close in the order they opened, no id is used twice, inner links have targets, pictures have words."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def check(self, page: str) -> None:
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        assert set(self.links) <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if identifier := values.get("id"):
            self.ids.append(identifier)
        if (link := values.get("href") or "").startswith("#"):
            self.links.append(link[1:])
        if tag == "img":
            assert values.get("alt")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    page = page_of(make_inputs(tmp_path), tmp_path)
    assert "<script" not in page
    assert "http" not in page
    for reference in re.findall(r"""(?:src|href|srcset|poster)\s*=\s*["']?([^"'\s>]*)""", page):
        assert reference.startswith(("data:image/", "#"))
    for reference in re.findall(r"url\(\s*['\"]?([^)]*)", page):
        assert reference.startswith("#")
    assert "@import" not in page


def test_it_says_what_was_measured(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    page = page_of(inputs, tmp_path).replace("\N{NO-BREAK SPACE}", " ")
    right = int((inputs.probabilities.argmax(axis=1) == inputs.labels).sum())
    assert f"Of 30 test pictures of 5 breeds, {right} got the right breed" in page
    assert f"{inputs.metrics['accuracy'].value:.1%}".replace("%", " %") in page
    for expected in ("These pictures are drawn.", "efficientnet_lite0", "dogbreed train --seed 1", "train 30, test 30"):
        assert expected in page
    assert "Top-5" not in page  # of five breeds, always right
    assert page.count('src="data:image/jpeg;base64,') > 4
    assert page.count("<svg") == 5  # matrix, calibration, learning curve, progress, parallel coordinates


def test_confusions_are_mistakes_and_come_in_order(tmp_path: Path) -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    answers = np.array([1, 1, 0, 1, 1, 2, 2, 2, 2])
    probabilities = np.full((9, 3), 0.1, np.float32)
    probabilities[np.arange(9), answers] = 0.8
    inputs = replace(
        make_inputs(tmp_path, classes=3, per_class=3),
        breeds=("Akita", "Borzoi", "Collie"),
        labels=labels,
        probabilities=probabilities,
        metrics=measure(probabilities, labels, resamples=10),
    )
    page = page_of(inputs, tmp_path)
    pairs = re.findall(
        r'<b>(\w+)</b><span class="count">(\d of \d) taken for →</span><b class="answer wrong">(\w+)', page
    )
    assert pairs == [("Akita", "2 of 3", "Borzoi"), ("Borzoi", "1 of 3", "Collie")]
    assert "The most frequent mistake is Akita taken for Borzoi (2 of 3 pictures)." in page
    table = re.findall(r'<tr><th scope="row">(Akita|Borzoi|Collie)</th>', page)
    assert table == ["Akita", "Borzoi", "Collie"]  # the lowest recall first
    assert "Borzoi → Collie: 1 of 3" in page


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    hostile_file = tmp_path / 'x" onerror="alert(1).jpg'
    inputs.files[0].rename(hostile_file)
    answers = inputs.probabilities.argmax(axis=1)
    wrong = int(np.flatnonzero(answers != inputs.labels)[0])
    files = list(inputs.files)
    files[wrong] = hostile_file
    inputs = replace(
        inputs,
        title=HOSTILE,
        files=tuple(files),
        breeds=tuple(f"{HOSTILE}{i} $x_1$" for i in range(5)),
        config={HOSTILE: HOSTILE},
        data_summary={HOSTILE: {HOSTILE: HOSTILE}},
        notes=[HOSTILE],
        command=HOSTILE,
        study=[TrialRow(n, "COMPLETE", 1.0 + n, None, {HOSTILE: f"{HOSTILE}{n}", "$": "$^$"}, None) for n in range(3)],
        importances={HOSTILE: 1.0},
    )
    page = page_of(inputs, tmp_path)
    assert "<script" not in page
    assert ' onerror="' not in page
    assert "&lt;script&gt;" in page


def test_pictures_that_are_gone_or_broken_leave_a_frame(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, missing=True)
    inputs.files[0].write_bytes(b"not a picture")
    page = page_of(inputs, tmp_path)
    assert "<img" not in page
    assert "picture not found" in page


def test_a_model_without_mistakes(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    probabilities = np.eye(5, dtype=np.float32)[inputs.labels]
    metrics = measure(probabilities, inputs.labels, resamples=10)
    page = page_of(replace(inputs, probabilities=probabilities, metrics=metrics), tmp_path)
    assert "Not a single picture was mistaken." in page


def test_two_classes(tmp_path: Path) -> None:
    assert "2 breeds" in page_of(make_inputs(tmp_path, classes=2), tmp_path)


def test_a_class_without_pictures(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    kept = inputs.labels != 3
    inputs = replace(
        inputs,
        labels=inputs.labels[kept],
        probabilities=inputs.probabilities[kept],
        files=tuple(f for f, keep in zip(inputs.files, kept, strict=True) if keep),
    )
    assert "no test picture" in page_of(inputs, tmp_path)


def test_only_what_is_needed(tmp_path: Path) -> None:
    full = make_inputs(tmp_path)
    page = page_of(
        ReportInputs(
            title=full.title,
            created=full.created,
            breeds=full.breeds,
            files=full.files,
            labels=full.labels,
            probabilities=full.probabilities,
            split=full.split,
            metrics=full.metrics,
        ),
        tmp_path,
    )
    assert "fitted in one step" in page
    for absent in ("hyperparameters were found", "Is it a dog", "Do it again", "None"):
        assert absent not in page


@pytest.mark.parametrize(
    "study", [[], trials()[-3:], trials()[:1], [TrialRow(0, "COMPLETE", 1.0, 0.5, {}, 0.1)] * 2], ids=str
)
def test_studies_with_little_in_them(study: list[TrialRow], tmp_path: Path) -> None:
    assert "hyperparameters were found" in page_of(replace(make_inputs(tmp_path), study=study), tmp_path)


def test_histories_with_gaps(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    for history in ([{"epoch": 1, "train_loss": 1.0}], [{"epoch": 1, "train_loss": None, "valid_loss": np.nan}] * 2):
        assert "Learning curve" in page_of(replace(inputs, history=history), tmp_path)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    assert page_of(inputs, tmp_path) == page_of(inputs, tmp_path)


def test_a_full_size_report_stays_small(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, classes=120, per_class=7)
    assert len(page_of(replace(inputs, study=trials(300)), tmp_path).encode()) < 3_000_000


def test_inputs_that_do_not_fit_leave_no_file(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    with pytest.raises(ValueError, match="do not fit"):
        write_report(tmp_path / "report.html", replace(inputs, files=inputs.files[1:]))
    assert not (tmp_path / "report.html").exists()
