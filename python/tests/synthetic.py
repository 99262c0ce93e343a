"""Features without pictures: problems small enough to be solved by brute force, hard enough to tell heads apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dogbreed.embed import Features
from dogbreed.head import Problem

# Threads cost more than they bring on problems this small, above all when other tests run beside these.
torch.set_num_threads(1)


def features(
    count: int, *, classes: int = 4, size: int = 16, spread: float = 0.8, noise: float = 0.0, seed: int = 0
) -> Features:
    """Clouds around one centre per class (the same for every `seed`); `noise` is the share of labels that are wrong."""
    centres = np.random.default_rng(99).normal(size=(classes, size))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    matrix = (centres[labels] + spread * rng.normal(size=(count, size))).astype(np.float32)
    wrong = rng.random(count) < noise
    labels = np.where(wrong, rng.integers(0, classes, count), labels).astype(np.int64)
    paths = tuple(Path(f"{i}.jpg") for i in range(count))
    return Features(matrix, labels, paths, key=f"{count} {classes} {size} {spread} {noise} {seed}")


def problem(
    train: int = 200, valid: int = 80, *, classes: int = 4, size: int = 16, spread: float = 0.8, noise: float = 0.0
) -> Problem:
    made = {"classes": classes, "size": size, "spread": spread, "noise": noise}
    return Problem(features(train, seed=1, **made), features(valid, seed=2, **made), classes)  # type: ignore[arg-type]
