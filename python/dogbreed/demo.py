"""The main job from end to end, as `make demo` runs it: pictures → tuning → training → predictions, report, server."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dogbreed.config import TrainConfig
from dogbreed.console import out
from dogbreed.errors import DogbreedError

SHOWN = 4  # pictures whose predictions are printed


@dataclass(frozen=True)
class Demo:
    """What the demo made."""

    data: Path
    model: Path
    report: Path


@contextmanager
def _step(number: int, title: str) -> Iterator[None]:
    out.rule(f"[bold]{number}. {title}", align="left")
    started = time.perf_counter()
    yield
    out.print(f"[dim]{time.perf_counter() - started:.1f} s[/dim]")


def run_demo(data: str | None, folder: Path, *, trials: int = 50) -> Demo:
    """Runs everything and prints what it does.

    Args:
        data: a folder, an archive or a URL; None takes the original pictures where there is internet, drawn ones
            otherwise.
        folder: where pictures, study, model and report go.
    """
    from dogbreed import show
    from dogbreed.data.dataset import open_dataset
    from dogbreed.hpo import tune
    from dogbreed.model import Model
    from dogbreed.optimise import optimise
    from dogbreed.predict import predict

    with _step(1, "Pictures"):
        root = get_data(data, folder)
        dataset = open_dataset(root)
        counts = ", ".join(f"{len(samples)} {split}" for split, samples in dataset.splits.items())
        out.print(f"{len(dataset.classes)} breeds in {dataset.root}: {counts}", soft_wrap=True)
    # A place of its own for each data set, so that the demo can be run on several in turn.
    runs = folder / "runs" / root.name
    with _step(2, f"Tune: {trials} trials on features that are computed once"):
        study = tune(data=root, out=runs / "study", config=TrainConfig(), trials=trials)
        show.print_study(study)
    with _step(3, "Train with the best settings, and read the test split once"):
        show.train_and_report(root, runs / "model", study=study)
    with _step(4, "Choose the fastest arithmetic that is as accurate"):
        show.print_choice(optimise(runs / "model", root))
    samples = dataset.splits.get("test", dataset.splits["valid"])
    some = [s.path for s in samples[:: max(1, len(samples) // SHOWN)]][:SHOWN]
    with _step(5, "Predict"):
        model = Model.load(runs / "model")
        show.print_predictions(list(predict(model, [str(path) for path in some])), model.breeds, top_k=3)
    demo = Demo(root, runs / "model", show.report_path(runs / "model"))
    with _step(6, "Serve"):
        _serve(demo, some)
    return demo


def _serve(demo: Demo, pictures: Sequence[Path]) -> None:
    """Asks a real server; on a terminal it goes on until Ctrl-C."""
    from dogbreed.server_process import running

    with running(demo.model) as server:
        for picture in pictures:
            started = time.perf_counter()
            status, answer = server.classify(picture.read_bytes())
            ms = (time.perf_counter() - started) * 1e3
            if status == 200:
                best = answer["predictions"][0]
                said = f"{best['breed']}, {best['probability']:.1%}, in {ms:.0f} ms"
            else:  # broken, or of a kind or size that is for training only
                said = f"{answer['error']} ({status})"
            out.print(f"POST {server.address}/invocations, {picture.name}: {said}", soft_wrap=True, markup=False)
        out.print(f"Report: {demo.report}", soft_wrap=True, markup=False)
        out.print(f"Try:    {sys.argv[0]} predict PICTURE --model {demo.model}", soft_wrap=True, markup=False)
        if sys.stdin.isatty() and sys.stdout.isatty():
            out.print(f"[bold]The page: {server.address}/[/bold]  (Ctrl-C ends the demo)", soft_wrap=True)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
        else:
            out.print(f"Serve:  {sys.argv[0]} serve {demo.model}", soft_wrap=True, markup=False)


def get_data(data: str | None, folder: Path) -> Path:
    """The folder of pictures that the demo works on, unpacked, downloaded or drawn."""
    from dogbreed.data.fetch import ORIGINAL_URL, fetch, reachable
    from dogbreed.data.sample import draw_sample

    if data and Path(data).expanduser().is_dir():
        return Path(data).expanduser()
    if data:
        return fetch(data, folder / "data" / Path(data).name.partition(".")[0])
    original = folder / "data" / "original"
    if original.is_dir() or reachable(ORIGINAL_URL, timeout_s=5):
        out.print("The original photographs: 133 breeds, 1.1 GB to download the first time.")
        return fetch(ORIGINAL_URL, original)
    out.print(
        "[yellow]There is no way to the original photographs from here, so cartoon dogs are drawn instead.[/yellow]\n"
        "They show that everything works, not how well; give real ones with: make demo DATA=dogImages.zip"
    )
    target = folder / "data" / "drawn"
    try:
        return draw_sample(target)
    except DogbreedError:
        if (target / "train").is_dir():  # drawn by an earlier demo
            return target
        raise
