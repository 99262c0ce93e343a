"""Is it one of ours at all? A score from the features that says how unlike every known class a picture is.

One minus the largest cosine between the picture's features and the mean directions of the classes. On photographs of
dogs against pictures of other things it separates far better than the classifier's own confidence, which is as high on
a chair as on a dog, and as well as Mahalanobis or nearest-neighbour distances that need a hundred times the storage
(`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from dogbreed.embed import Features

FloatArray = npt.NDArray[np.float32]

RECALL = 0.95  # share of validation pictures that the threshold lets through


def class_means(train: Features, classes: int) -> FloatArray:
    """The mean direction of each class: (C, D) float32 of length one; zero for a class without a usable picture."""
    sums = np.zeros((classes, train.matrix.shape[1]), dtype=np.float64)
    for start in range(0, len(train), 4096):
        rows = slice(start, start + 4096)
        np.add.at(sums, train.labels[rows], unit(train.matrix[rows]))
    return unit(sums).astype(np.float32)


def rejection_scores(features: FloatArray, means: FloatArray) -> FloatArray:
    """(N, D) features → (N,) scores from 0 (like a class) to 2."""
    scores: FloatArray = 1 - (unit(features) @ means.T).max(axis=1)
    return scores


def threshold_at_recall(scores: FloatArray, recall: float = RECALL) -> float:
    """The score below which lies this share of pictures that are known to belong."""
    return float(np.quantile(scores, recall))


def unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """(N, D) vectors scaled to length one; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: npt.NDArray[np.floating] = vectors / np.maximum(length, 1e-12)
    return scaled
