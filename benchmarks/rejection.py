"""Dog or not: how many pictures of other things pass when 95 % of the dogs do, for several scores.

    python benchmarks/rejection.py --data DIR --negatives FOLDER [--backbone NAME]

The threshold is set on the validation split; recall is that of the test split. Also held out: a sixth of the breeds,
which a model that never saw them should still take for dogs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dogbreed.config import EmbedConfig, HeadConfig
from dogbreed.data.dataset import Sample, list_pictures, open_dataset
from dogbreed.embed import Features, embed
from dogbreed.extractor import Extractor, FloatArray
from dogbreed.head import Problem, fit
from dogbreed.rejection import RECALL, class_means, rejection_scores, threshold_at_recall

Score = Callable[[FloatArray], FloatArray]


def scores(train: Features, valid: Features, classes: int) -> dict[str, Score]:
    """Name → a function of (N, D) features that is higher for what is less like a dog."""
    x = np.array(train.matrix)
    head = fit(Problem(train, valid, classes), HeadConfig(solver="ridge", weight_decay=1)).head
    means = class_means(train, classes)
    centre, deviation = x.mean(0), x.std(0) + 1e-6
    standard = (x - centre) / deviation
    averages = np.stack([standard[train.labels == c].mean(0) for c in range(classes)])
    within = standard - averages[train.labels]
    covariance = within.T @ within / len(within)
    precision = np.linalg.inv(covariance + 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)

    def logits(features: FloatArray) -> torch.Tensor:
        with torch.inference_mode():
            return head(torch.from_numpy(np.array(features)))

    def mahalanobis(features: FloatArray) -> FloatArray:
        z = (features - centre) / deviation
        zp, ap = z @ precision, averages @ precision
        distances: FloatArray = ((zp * z).sum(1)[:, None] - 2 * zp @ averages.T + (ap * averages).sum(1)).min(1)
        return distances

    def neighbour(features: FloatArray) -> FloatArray:
        near = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ unit.T
        tenth: FloatArray = -np.partition(near, -10, axis=1)[:, -10]
        return tenth

    return {
        "largest probability": lambda f: -torch.softmax(logits(f), 1).amax(1).numpy(),
        "energy of the logits": lambda f: -torch.logsumexp(logits(f), 1).numpy(),
        "Mahalanobis distance": mahalanobis,
        "10th nearest neighbour": neighbour,
        "cosine to class means (used)": lambda f: rejection_scores(f, means),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--negatives", type=Path, required=True, help="a folder of pictures of other things")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    a = parser.parse_args()
    dataset, extractor = open_dataset(a.data), Extractor.create(EmbedConfig(backbone=a.backbone))
    train, valid, test = (embed(dataset.split(s), extractor, title=s) for s in ("train", "valid", "test"))
    others = embed([Sample(p, 0) for p in list_pictures(a.negatives)], extractor, title="negatives")
    print(f"## Dog or not: {len(others)} pictures of other things, {a.backbone}\n")
    print("| score | other things that pass | test pictures that pass | AUROC |\n|---|---|---|---|")
    for name, score in scores(train, valid, len(dataset.classes)).items():
        threshold = threshold_at_recall(score(valid.matrix))
        no, yes = score(others.matrix), score(test.matrix)
        auroc = (no[:, None] > yes[None]).mean()
        print(f"| {name} | {(no <= threshold).mean():.1%} | {(yes <= threshold).mean():.1%} | {auroc:.4f} |")
    held_out = np.arange(len(dataset.classes)) % 6 == 0
    rows = ~held_out[train.labels]
    known = Features(train.matrix[rows], train.labels[rows], (), "known")
    means = class_means(known, len(dataset.classes))
    means = means[np.linalg.norm(means, axis=1) > 0]
    threshold = threshold_at_recall(rejection_scores(valid.matrix[~held_out[valid.labels]], means))
    unknown = rejection_scores(test.matrix[held_out[test.labels]], means) <= threshold
    passed = rejection_scores(others.matrix, means) <= threshold
    print(
        f"\nWith {held_out.sum()} of {len(held_out)} breeds left out of training: {unknown.mean():.1%} of their"
        f" pictures pass as dogs ({RECALL:.0%} of the known breeds' do), and {passed.mean():.1%} of the other things."
    )


if __name__ == "__main__":
    main()
