"""What a person is shown: tables of results, notes on how to read them, and where files were put."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dogbreed.config import SageMaker, TrainConfig

if TYPE_CHECKING:
    from dogbreed.hpo import Study
    from dogbreed.metrics import Metric
    from dogbreed.model import Model
    from dogbreed.optimise import Choice
    from dogbreed.predict import Prediction
    from dogbreed.train import Trained


def train_and_report(
    data: Path,
    out: Path,
    *,
    config: TrainConfig | None = None,
    study: Study | None = None,
    report: Path | None = None,
    device: str = "auto",
) -> Trained:
    """Trains, writes the report and prints the results; the settings are the study's best where none are given."""
    from dogbreed.console import out as console
    from dogbreed.evaluate import report as write_report
    from dogbreed.train import train as run

    trained = run(data=data, out=out, config=config or (study.best if study else None), device=device)
    path = report or report_path(out)
    split = "test" if "test" in trained.evaluations else "valid"
    write_report(
        path,
        trained.model,
        trained.evaluations[split],
        command=f"dogbreed train {data} --like {out}",
        history=list(trained.history),
        study=study,
        notes=notes(data, trained.model),
    )
    say_skipped(trained.skipped, data)
    print_metrics({name: e.metrics for name, e in trained.evaluations.items()})
    console.print(f"Model:  {out}\nReport: {path}", soft_wrap=True, markup=False)
    return trained


def report_path(folder: Path) -> Path:
    """Beside the model directory, whose content is the archive that an endpoint loads; in a job, where outputs go."""
    if SageMaker.in_job():
        outputs = os.environ.get(SageMaker.OUTPUT_DATA_DIR) or SageMaker.base_dir() / "output" / "data"
        return Path(outputs) / "report.html"
    return _beside(folder, "-report.html")


def archive_path(folder: Path) -> Path:
    """Where `pack` puts the archive of a model directory."""
    return _beside(folder, ".tar.gz")


def _beside(folder: Path, ending: str) -> Path:
    # An absolute folder only where it has no name of its own, such as ".".
    folder = folder if folder.name else folder.absolute()
    return folder.with_name(folder.name + ending)


def notes(data: Path, model: Model) -> tuple[str, ...]:
    """What a reader must know to judge the figures."""
    from dogbreed.data.sample import is_sample

    if is_sample(data):
        return ("These pictures are drawn, not photographed: the figures show that everything works, not how well.",)
    if model.config.weights == "random":
        return ("The backbone has random weights: the figures show that everything works, not how well.",)
    return (
        "The backbone was pretrained on ImageNet. Pictures that come from there (Stanford Dogs does) have probably "
        "been seen by it: take the figures for comparing two ways, not as a promise for new photographs.",
    )


def say_skipped(count: int, data: Path) -> None:
    from dogbreed.console import err

    if count:
        err.print(f"{count} pictures could not be used. See: dogbreed data check {data}", soft_wrap=True, markup=False)


def print_study(study: Study) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dogbreed.console import out

    table = Table("trial", "valid loss", "accuracy", "seconds", "settings")
    best = sorted((t for t in study.trials if t.state == "COMPLETE"), key=lambda t: t.value or 0.0)[:5]
    for t in best:
        shown = ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in t.params.items())
        table.add_row(str(t.number), f"{t.value:.4f}", f"{t.accuracy:.1%}", f"{t.seconds:.2f}", escape(shown))
    out.print(table)


def print_metrics(by_split: Mapping[str, Mapping[str, Metric]]) -> None:
    from rich.table import Table

    from dogbreed.console import out

    table = Table("", *by_split, title="95 % intervals in brackets", title_style="dim")
    names = {
        "accuracy": "accuracy", "top5_accuracy": "top-5 accuracy", "mean_class_recall": "mean class recall",
        "log_loss": "log-loss", "ece": "calibration error",
    }  # fmt: skip
    for key, label in names.items():
        shown = "{:.1%} ({:.1%} – {:.1%})" if key != "log_loss" else "{:.3f} ({:.3f} – {:.3f})"
        table.add_row(label, *(shown.format(m[key].value, m[key].low, m[key].high) for m in by_split.values()))
    out.print(table)


def print_predictions(predictions: Sequence[Prediction], breeds: tuple[str, ...], top_k: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dogbreed.console import out

    table = Table("picture", "breed", "probability")
    for p in predictions:
        name = escape(p.source if "://" in p.source else Path(p.source).name)
        if p.answer is None:
            table.add_row(name, f"[red]{escape(p.error or '')}[/red]", "")
            continue
        for i, guess in enumerate(p.answer.predictions(breeds, top_k)):
            doubt = " [yellow](probably none of the known breeds)[/yellow]" if p.answer.rejected and i == 0 else ""
            table.add_row(name if i == 0 else "", escape(guess["breed"]) + doubt, f"{guess['probability']:.1%}")
        table.add_section()
    out.print(table)


def print_choice(choice: Choice) -> None:
    """The arithmetics that were measured, with a mark at the one that was chosen."""
    from rich.table import Table

    from dogbreed.console import out

    table = Table("", "arithmetic", "pictures/s, all cores", "one picture, one core", "valid accuracy")
    for c in choice.candidates:
        mark = "chosen" if c is choice.chosen else ""
        table.add_row(mark, c.precision, f"{c.pictures_per_s:.0f}", f"{c.latency_ms:.1f} ms", f"{c.accuracy:.1%}")
    out.print(table)
