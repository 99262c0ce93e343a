"""How good a model is on pictures it has not learnt from, with intervals, and the report that shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dogbreed.data.dataset import Sample, list_pictures, open_dataset
from dogbreed.embed import Features, Skipped, embed
from dogbreed.errors import DogbreedError
from dogbreed.files import read_json
from dogbreed.metrics import Metric, measure
from dogbreed.model import Model
from dogbreed.rejection import RECALL
from dogbreed.report import ReportInputs, write_report


@dataclass(frozen=True)
class Rejection:
    """How the dog-or-not score does.

    recall: share of this split's pictures that it lets through.
    false_positive_rate: share of pictures of other things that it lets through too, where there were any.
    """

    threshold: float
    recall: float
    false_positive_rate: float | None = None
    negatives: int = 0


@dataclass(frozen=True)
class Evaluation:
    """A model on one split.

    probabilities: (N, C) float32; labels: (N,) int64.
    """

    split: str
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    metrics: dict[str, Metric]
    rejection: Rejection
    skipped: tuple[Skipped, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For metrics.json."""
        values = {name: asdict(metric) for name, metric in self.metrics.items()}
        return {
            "pictures": len(self.paths),
            "skipped": len(self.skipped),
            **values,
            "rejection": asdict(self.rejection),
        }


def evaluate_features(model: Model, features: Features, split: str) -> Evaluation:
    """Measures a model on features of its own extractor."""
    probabilities = model.classifier.probabilities(features.matrix)
    scores = model.classifier.rejection_scores(features.matrix)
    return Evaluation(
        split=split,
        paths=features.paths,
        labels=features.labels,
        probabilities=probabilities,
        metrics=measure(probabilities, features.labels),
        rejection=Rejection(model.threshold, float(np.mean(scores <= model.threshold))),
        skipped=features.skipped,
    )


def evaluate(
    *, model_dir: Path, data: Path, split: str = "test", negatives: Path | None = None, device: str = "auto"
) -> tuple[Model, Evaluation]:
    """Measures a model directory on a split of a data set.

    Args:
        negatives: a folder of pictures of other things, to measure how many the dog-or-not score lets through.

    Raises:
        DogbreedError: the classes of model and data set differ.
    """
    model = Model.load(model_dir, device=device)
    dataset = open_dataset(data)
    if dataset.breeds != model.breeds:
        unknown = sorted(set(dataset.breeds) ^ set(model.breeds))
        raise DogbreedError(
            f"The model knows {len(model.breeds)} classes and {dataset.root} has {len(dataset.breeds)}"
            + (f"; they differ in {unknown[0]!r}" if unknown else ", in another order"),
            "Evaluate on a data set with the classes that the model was trained on.",
        )
    features = embed(dataset.split(split), model.extractor, title=f"Embedding {split}")
    evaluation = evaluate_features(model, features, split)
    if negatives is not None:
        evaluation = replace(evaluation, rejection=_with_negatives(model, evaluation.rejection, negatives))
    return model, evaluation


def _with_negatives(model: Model, rejection: Rejection, folder: Path) -> Rejection:
    pictures = list_pictures(folder) if folder.is_dir() else []
    if not pictures:
        raise DogbreedError(
            f"There are no pictures in {folder}", "Give --negatives a folder of pictures of other things."
        )
    others = embed([Sample(p, 0) for p in pictures], model.extractor, title="Embedding negatives")
    let_through = model.classifier.rejection_scores(others.matrix) <= model.threshold
    return replace(rejection, false_positive_rate=float(let_through.mean()), negatives=len(others))


def report(
    path: Path,
    model: Model,
    evaluation: Evaluation,
    *,
    command: str,
    history: list[dict[str, Any]] | None = None,
    study: Any = None,
    notes: tuple[str, ...] = (),
) -> None:
    """Writes the HTML report of an evaluation; `study` is an `hpo.Study`, shown where it is given."""
    data = model.facts.get("data") or {}
    counts = data.get("pictures", {})
    # Of the splits that the model was made with, those left out are recorded with it.
    left_out = len(data.get("skipped", {})) + (0 if evaluation.split in counts else len(evaluation.skipped))
    write_report(
        path,
        ReportInputs(
            title=f"Dog breeds: {len(model.breeds)} classes",
            created=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
            config=model.config.as_dict(),
            breeds=model.breeds,
            files=evaluation.paths,
            labels=evaluation.labels,
            probabilities=evaluation.probabilities,
            split=evaluation.split,
            metrics=evaluation.metrics,
            history=history or [],
            data_summary={
                **{f"{split} pictures": count for split, count in counts.items()},
                f"{evaluation.split} pictures": len(evaluation.paths),
                "skipped pictures": left_out,
            },
            rejection={**asdict(evaluation.rejection), "target_recall": RECALL},
            study=list(study.trials) if study else None,
            importances=study.importances if study else None,
            notes=list(notes),
            command=command,
        ),
    )


def recorded_history(model_dir: Path) -> list[dict[str, Any]]:
    metrics = read_json(model_dir / "metrics.json", what="metrics", fix="Train the model again.")
    return list(metrics.get("history", []))
