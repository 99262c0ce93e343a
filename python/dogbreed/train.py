"""Training: pictures and settings in, a model directory out. Also the entry point of a training job."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dogbreed import __version__
from dogbreed.classifier import Classifier
from dogbreed.config import EmbedConfig, HeadConfig, SageMaker, TrainConfig
from dogbreed.console import progress
from dogbreed.data.dataset import Dataset, open_dataset
from dogbreed.embed import embed, embed_views
from dogbreed.errors import DogbreedError
from dogbreed.evaluate import Evaluation, evaluate_features
from dogbreed.extractor import Extractor, choose_device
from dogbreed.gallery import Gallery
from dogbreed.metrics import emit
from dogbreed.model import Model
from dogbreed.rejection import class_means, rejection_scores, threshold_at_recall

if TYPE_CHECKING:
    from dogbreed.head import Epoch, Problem


@dataclass(frozen=True)
class Trained:
    """What a training gave: the model, its evaluations by split, the way there, and the pictures left out."""

    folder: Path
    model: Model
    evaluations: dict[str, Evaluation]
    history: tuple[dict[str, float], ...]
    skipped: int


def load_problem(data: Path, config: TrainConfig, device: str = "auto") -> tuple[Problem, Dataset, Extractor]:
    """Opens a data set and gives the features of its train and valid splits, ready to fit heads to.

    The test split is not touched.
    """
    dataset = open_dataset(data)
    extractor = Extractor.create(config.part(EmbedConfig), device=device, samples=dataset.split("train"))
    train_features = embed_views(dataset.split("train"), extractor, config.view_names, title="Embedding train")
    valid_features = embed(dataset.split("valid"), extractor, title="Embedding valid")

    from dogbreed.head import Problem

    return Problem(train_features, valid_features, len(dataset.classes), choose_device(device)), dataset, extractor


def train(
    *, data: Path, out: Path, config: TrainConfig | None = None, device: str = "auto", test: bool = True
) -> Trained:
    """Trains a model and writes its directory.

    Interrupted at any point, the same call goes on and gives the same model as an uninterrupted one. The test split,
    where there is one, is read once, after everything is decided.

    Args:
        out: the model directory; replaced, if there is one, when the new model is whole.
        test: False leaves the test split alone (a trial of a tuning job).
    """
    config = config or TrainConfig()
    _check_replaceable(out)

    from dogbreed.head import calibrate, fit

    problem, dataset, extractor = load_problem(data, config, device)
    train_features, valid_features = problem.train, problem.valid
    # On a person's terminal the metrics are a table at the end; in a job's log, lines that SageMaker reads.
    report_metrics = emit if SageMaker.in_job() else _quiet
    checkpoint = _checkpoint(out)
    with progress("Fitting", config.epochs, unit="epochs") as advance:

        def report(epoch: Epoch) -> None:
            measured = dataclasses.asdict(epoch)
            report_metrics(**{name: measured[name] for name in ("train_loss", "valid_loss", "valid_accuracy")})
            advance(1, f"valid_loss {epoch.valid_loss:.4f}")

        fitted = fit(problem, config.part(HeadConfig), report=report, checkpoint=checkpoint)
    # Reported last: a tuning job takes the last value it reads, and early stopping keeps the best.
    report_metrics(valid_loss=fitted.best.valid_loss, valid_accuracy=fitted.best.valid_accuracy)
    head = fitted.head
    temperature = calibrate(problem, head)
    head.cpu()
    means = class_means(train_features, len(dataset.classes))
    threshold = threshold_at_recall(rejection_scores(valid_features.matrix, means))
    skipped = (*train_features.skipped, *valid_features.skipped)
    facts = {
        "data": {
            "classes": list(dataset.classes),
            "pictures": {"train": len(train_features), "valid": len(valid_features)},
            "skipped": {os.path.relpath(s.path, dataset.root): s.reason for s in skipped},
            "features": problem.key,
        },
        "fit": {"best_epoch": fitted.best.epoch, "epochs": len(fitted.history), "temperature": temperature},
        "made_with": {
            "device": problem.train_x.device.type,
            "machine": platform.machine(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "timm", "openvino", "numpy", "pillow")},
        },
    }
    plain = len(train_features) // len(config.view_names)  # the rows of the pictures as they are come first
    gallery = Gallery.choose(
        train_features.matrix[:plain],
        train_features.labels[:plain],
        train_features.paths[:plain],
        extractor.preprocessing,
        per_class=config.gallery,
    )
    model = Model(config, dataset.breeds, extractor, Classifier.of(head, means), threshold, gallery, facts)
    evaluations = {"valid": evaluate_features(model, valid_features, "valid")}
    if test and "test" in dataset.splits:
        test_features = embed(dataset.split("test"), extractor, title="Embedding test")
        evaluations["test"] = evaluate_features(model, test_features, "test")
        measured = {name: metric.value for name, metric in evaluations["test"].metrics.items()}
        measured["loss"] = measured.pop("log_loss")  # as `valid_loss` is called
        report_metrics(**{f"test_{name}": value for name, value in measured.items()})
    # A closed form has no way to show.
    history = () if config.solver == "ridge" else tuple(dataclasses.asdict(e) for e in fitted.history)
    metrics = {
        **{split: e.as_dict() for split, e in evaluations.items()},
        "valid_loss": fitted.best.valid_loss,
        "history": list(history),
    }
    model.save(out, head=head, metrics=metrics, card=model_card(model, evaluations))
    checkpoint.unlink(missing_ok=True)
    return Trained(out, model, evaluations, history, len(skipped))


def _quiet(**_: float) -> None: ...


def _check_replaceable(out: Path) -> None:
    """Refuses to put a model in the place of anything else, such as a folder of photographs."""
    if not out.name:
        raise DogbreedError(f"--out is {out}", "Give a folder with a name, such as runs/model.")
    if out.is_dir() and any(out.iterdir()) and not (out / "model.pt").exists():
        raise DogbreedError(f"{out} holds something other than a model", "Give --out a new folder.")
    if out.exists() and not out.is_dir():
        raise DogbreedError(f"{out} is a file", "Give --out a folder.")


def _checkpoint(out: Path) -> Path:
    """Where a fit is saved: the folder that survives a spot interruption, else beside the model."""
    if SageMaker.in_job():
        return SageMaker.checkpoints() / "fit.pt"
    return out.with_name(f".{out.name}.checkpoint.pt")


def model_card(model: Model, evaluations: dict[str, Evaluation]) -> str:
    """The model card: what the model is for, what it learnt from, how well it does, and what it cannot do."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("dogbreed"), trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("model_card.md.j2").render(
        model=model,
        config=model.config.as_dict(),
        data=model.facts["data"],
        evaluations=evaluations,
        version=__version__,
        today=datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())), timezone.utc),
    )


if __name__ == "__main__":
    from dogbreed.cli import run_entry_point

    run_entry_point("train")
