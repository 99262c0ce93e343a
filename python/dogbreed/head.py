"""The classifier on top of the features: fitted in tenths of a second, by gradient steps or in closed form."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from dogbreed.config import HeadConfig
from dogbreed.embed import Features
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_path, sha256_json

SMALL_STEP = 1e9  # floating-point operations of a mini-batch step below which one thread does it
LBFGS_STEPS = 5  # curvature steps counted as one epoch: about the cost of a few passes over the pictures


class Head(nn.Module):
    """Features (B, D) → calibrated logits (B, C): standardise, a linear layer or two, divide by a temperature."""

    mean: Tensor
    scale: Tensor
    temperature: Tensor

    def __init__(self, feature_size: int, classes: int, hidden_size: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("scale", torch.ones(feature_size))
        self.register_buffer("temperature", torch.ones(()))
        layers: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
        if hidden_size:
            layers += [nn.Linear(feature_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, classes)]
        else:
            layers += [nn.Linear(feature_size, classes)]
        self.layers = nn.Sequential(*layers)

    def standardise(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.layers(self.standardise(features)) / self.temperature)


class Problem:
    """The features that heads are fitted to, standardised once and shared by all trials of a study.

    train and valid: as `embed` gives them; classes: how many there are.
    """

    def __init__(self, train: Features, valid: Features, classes: int, device: str = "cpu") -> None:
        x = torch.from_numpy(np.array(train.matrix)).to(device)
        self.mean = x.mean(0)
        # A feature that never changes says nothing; dividing by its deviation would say it loudly.
        deviation = x.std(0, correction=0)
        self.scale = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
        self.train_x = x.sub_(self.mean).div_(self.scale)
        self.train_y = torch.from_numpy(train.labels).to(device)
        self.valid_x = (torch.from_numpy(np.array(valid.matrix)).to(device) - self.mean) / self.scale
        self.valid_y = torch.from_numpy(valid.labels).to(device)
        self.classes = classes
        self.train, self.valid = train, valid
        # Not of the features alone: the same pictures under other labels are another problem.
        labels = [hashlib.sha256(f.labels.tobytes()).hexdigest() for f in (train, valid)]
        self.key = sha256_json([train.key, valid.key, classes, *labels])[:16]

    def new_head(self, config: HeadConfig) -> Head:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            head = Head(self.train_x.shape[1], self.classes, config.hidden_size, config.dropout)
        head.to(self.train_x.device)
        head.mean.copy_(self.mean)
        head.scale.copy_(self.scale)
        return head

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues (D,) and eigenvectors (D, D) of XᵀX, and X in their basis (N, D): what ridge needs for any λ."""
        values, vectors = torch.linalg.eigh(self.train_x.T @ self.train_x)
        return values.clamp(min=0), vectors, self.train_x @ vectors


@dataclass(frozen=True)
class Epoch:
    """Progress of a fit. Losses are means per picture, in nats."""

    epoch: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float


@dataclass(frozen=True)
class Fitted:
    """A head at its best epoch, with all epochs of the way there."""

    head: Head
    history: tuple[Epoch, ...]
    best: Epoch


Report = Callable[[Epoch], None]


def fit(
    problem: Problem, config: HeadConfig, *, report: Report | None = None, checkpoint: Path | None = None
) -> Fitted:
    """Fits a head; the same problem and config give the same head, also when the fit was interrupted and resumed.

    Args:
        report: called after each epoch; what it raises ends the fit (pruning, Ctrl-C).
        checkpoint: a file that is written after each epoch and, where it exists and fits, resumed from.

    Raises:
        DogbreedError: the loss is no longer a number, or the checkpoint is of another config.
    """
    epochs = _ridge(problem, config) if config.solver == "ridge" else _gradient(problem, config, checkpoint)
    history: list[Epoch] = []
    best_head: Head | None = None
    best: Epoch | None = None
    for epoch, head, is_best in epochs:
        history.append(epoch)
        if not math.isfinite(epoch.valid_loss):
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)  # or it would stand in the way of the smaller learning rate
            raise DogbreedError(
                f"The loss became {epoch.valid_loss} in epoch {epoch.epoch}",
                f"Give a --learning-rate smaller than {config.learning_rate:g}.",
            )
        if is_best:
            best, best_head = epoch, head
        if report:
            report(epoch)
    assert best is not None and best_head is not None
    return Fitted(best_head.eval(), tuple(history), best)


def losses(problem: Problem, head: Head) -> tuple[float, float]:
    """Loss and accuracy on the validation split."""
    head.eval()
    with torch.inference_mode():
        logits = head.layers(problem.valid_x) / head.temperature
        loss = F.cross_entropy(logits, problem.valid_y)
        accuracy = (logits.argmax(1) == problem.valid_y).float().mean()
    return float(loss), float(accuracy)


# ---------------------------------------------------------------------------------------------- by gradient


def _gradient(problem: Problem, config: HeadConfig, checkpoint: Path | None) -> Iterator[tuple[Epoch, Head, bool]]:
    head = problem.new_head(config)
    optimizer = _create_optimizer(head, config)
    past: list[Epoch] = []
    best_state: dict[str, Tensor] = {}
    best_loss, best_epoch = math.inf, 0
    if checkpoint is not None and checkpoint.exists():
        saved = _load_checkpoint(checkpoint, problem, config)
        head.load_state_dict(saved["head"])
        optimizer.load_state_dict(saved["optimizer"])
        past = [Epoch(**e) for e in saved["history"]]
        best_state, best_loss, best_epoch = saved["best_state"], saved["best_loss"], saved["best_epoch"]

    def at_best() -> Head:
        best = problem.new_head(config)
        best.load_state_dict(best_state)
        return best

    for epoch in past:
        yield epoch, at_best(), epoch.epoch == best_epoch
    for number in range(len(past) + 1, config.epochs + 1):
        if number - 1 - best_epoch >= config.patience:
            return
        with torch.random.fork_rng(devices=[]):
            # Seeded by epoch, so that a resumed fit draws what an uninterrupted one would.
            torch.manual_seed(config.seed * 1_000_003 + number)
            train_loss = _epoch(problem, config, head, optimizer, number)
        valid_loss, valid_accuracy = losses(problem, head)
        epoch = Epoch(number, train_loss, valid_loss, valid_accuracy)
        past.append(epoch)
        improved = valid_loss < best_loss
        if improved:
            best_loss, best_epoch = valid_loss, number
            best_state = {name: value.clone() for name, value in head.state_dict().items()}
        if checkpoint is not None:
            _save_checkpoint(checkpoint, problem, config, head, optimizer, past, best_state, best_loss, best_epoch)
        yield epoch, at_best() if improved else head, improved


def _create_optimizer(head: Head, config: HeadConfig) -> torch.optim.Optimizer:
    weights = [p for p in head.parameters() if p.ndim > 1]
    biases = [p for p in head.parameters() if p.ndim == 1]
    if config.solver == "lbfgs":
        return torch.optim.LBFGS(
            head.parameters(), lr=1, max_iter=LBFGS_STEPS, history_size=10, line_search_fn="strong_wolfe"
        )
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    if config.solver == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _epoch(problem: Problem, config: HeadConfig, head: Head, optimizer: torch.optim.Optimizer, number: int) -> float:
    """One pass over the training pictures; returns the mean loss per picture."""
    if isinstance(optimizer, torch.optim.LBFGS):
        return _lbfgs_steps(problem, config, head, optimizer)
    with _threads_for(head, config):
        return _mini_batches(problem, config, head, optimizer, number)


@contextlib.contextmanager
def _threads_for(head: Head, config: HeadConfig) -> Iterator[None]:
    """One thread for small steps: several would wait for each other longer than they compute.

    Beside other work on the same cores, that made an epoch ten times as long.
    """
    before = torch.get_num_threads()
    if 6 * config.batch_size * sum(p.numel() for p in head.parameters()) < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _mini_batches(
    problem: Problem, config: HeadConfig, head: Head, optimizer: torch.optim.Optimizer, number: int
) -> float:
    head.train()
    x, y, count = problem.train_x, problem.train_y, len(problem.train_y)
    order = torch.randperm(count).to(x.device)
    steps = math.ceil(count / config.batch_size)
    total = torch.zeros((), device=x.device)
    for step in range(steps):
        done = (number - 1 + step / steps) / config.epochs
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        rows = order[step * config.batch_size : (step + 1) * config.batch_size]
        loss = F.cross_entropy(head.layers(x[rows]), y[rows], label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * len(rows)
    return float(total) / count


def _lbfgs_steps(problem: Problem, config: HeadConfig, head: Head, optimizer: torch.optim.LBFGS) -> float:
    head.eval()  # no dropout: a line search needs the same loss at the same point
    weights = [p for p in head.parameters() if p.ndim > 1]
    seen: list[float] = []

    def closure() -> float:
        optimizer.zero_grad()
        logits = head.layers(problem.train_x)
        loss = F.cross_entropy(logits, problem.train_y, label_smoothing=config.label_smoothing)
        penalised = loss + 0.5 * config.weight_decay * sum((w.square().sum() for w in weights), torch.zeros(()))
        penalised.backward()  # type: ignore[no-untyped-call]
        seen.append(float(loss.detach()))
        return float(penalised.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return seen[-1]


def _save_checkpoint(
    path: Path,
    problem: Problem,
    config: HeadConfig,
    head: Head,
    optimizer: torch.optim.Optimizer,
    history: list[Epoch],
    best_state: dict[str, Tensor],
    best_loss: float,
    best_epoch: int,
) -> None:
    state = {
        "identity": _identity(problem, config),
        "head": head.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [asdict(e) for e in history],
        "best_state": best_state,
        "best_loss": best_loss,
        "best_epoch": best_epoch,
    }
    with atomic_path(path) as partial:
        torch.save(state, partial)


def _identity(problem: Problem, config: HeadConfig) -> dict[str, Any]:
    return {"features": problem.key, **config.part(HeadConfig).as_dict()}


def _load_checkpoint(path: Path, problem: Problem, config: HeadConfig) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        same = saved["identity"] == _identity(problem, config)
    except Exception:  # torch raises what it likes, over many lines
        raise DogbreedError(f"The checkpoint {path} is damaged", f"Start anew: rm '{path}'") from None
    if not same:
        raise DogbreedError(
            f"The checkpoint {path} belongs to other settings or pictures", f"Use those, or start anew: rm '{path}'"
        )
    return saved


# ---------------------------------------------------------------------------------------------- in closed form


def _ridge(problem: Problem, config: HeadConfig) -> Iterator[tuple[Epoch, Head, bool]]:
    """Least squares to one-hot labels with an L2 penalty: minimises |XW + b − Y|² / N + weight_decay · |W|².

    Its scores are no logits: the factor that makes them so is fitted to the leave-one-out scores of the training
    pictures, which come for free (Golub, Heath, Wahba 1979), so that the validation loss stays an honest one.
    """
    y = problem.train_y
    count = len(y)
    values, vectors, rotated = problem.spectrum
    target = F.one_hot(y, problem.classes).float()
    target = target * (1 - config.label_smoothing) + config.label_smoothing / problem.classes
    bias = target.mean(0)
    shrunk = 1 / (values + max(config.weight_decay, 1e-8) * count)
    coefficients = shrunk[:, None] * (rotated.T @ (target - bias))
    fitted = rotated @ coefficients + bias
    leverage = (rotated.square() @ shrunk + 1 / count).clamp(max=1 - 1e-4)
    left_out = target - (target - fitted) / (1 - leverage)[:, None]
    temperature = best_temperature(left_out, y)
    head = problem.new_head(config)
    layer = cast(nn.Linear, head.layers[-1])
    with torch.no_grad():
        layer.weight.copy_((vectors @ coefficients).T / temperature)
        layer.bias.copy_(bias / temperature)
    train_loss = float(F.cross_entropy(left_out / temperature, y))
    valid_loss, valid_accuracy = losses(problem, head)
    yield Epoch(1, train_loss, valid_loss, valid_accuracy), head, True


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T for which softmax(logits / T) has the least log-loss (Guo et al. 2017)."""

    # One picture in N + 2 is taken to be of any class (Platt 1999): where all are right, plain likelihood would have it
    # that the answer is certain.
    smoothing = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels, label_smoothing=smoothing))

    return math.exp(minimize_scalar(loss, bounds=(-7, 7), method="bounded", options={"xatol": 1e-3}).x)


def calibrate(problem: Problem, head: Head) -> float:
    """Sets the head's temperature by the validation split; returns it. Accuracy does not change."""
    head.eval()
    with torch.inference_mode():
        temperature = best_temperature(head.layers(problem.valid_x), problem.valid_y)
    head.temperature.fill_(temperature)
    return temperature
