"""From features to an answer: the fitted head and the rejection score as plain arrays.

It takes NumPy alone, so that a server starts in a second and without PyTorch's half gigabyte of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dogbreed.rejection import rejection_scores

if TYPE_CHECKING:
    from dogbreed.head import Head

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Classifier:
    """What `head.Head` computes, and how unlike every class a picture is.

    mean, scale: (D,), which standardise the features; layers: weight (out, in) and bias (out,) of one linear layer, or
    of two with a ReLU between them; temperature: what the logits are divided by; means: (C, D), see rejection.py.
    """

    mean: FloatArray
    scale: FloatArray
    layers: tuple[tuple[FloatArray, FloatArray], ...]
    temperature: float
    means: FloatArray

    @classmethod
    def of(cls, head: Head, means: FloatArray) -> Classifier:
        state = {name: value.cpu().numpy() for name, value in head.state_dict().items()}
        weights = sorted(name for name in state if name.endswith(".weight"))
        return cls(
            mean=state["mean"],
            scale=state["scale"],
            layers=tuple((state[name], state[name.removesuffix("weight") + "bias"]) for name in weights),
            temperature=float(state["temperature"]),
            means=means,
        )

    def probabilities(self, features: FloatArray) -> FloatArray:
        """(B, D) features → (B, C) float32, each row summing to one."""
        x = (features - self.mean) / self.scale
        for number, (weight, bias) in enumerate(self.layers):
            x = (np.maximum(x, 0) if number else x) @ weight.T + bias
        x = x / np.float32(self.temperature)
        exponentials = np.exp(x - x.max(axis=1, keepdims=True))
        probabilities: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities

    def rejection_scores(self, features: FloatArray) -> FloatArray:
        """(B, D) features → (B,) scores from 0 (like a class) to 2."""
        return rejection_scores(features, self.means)

    def save(self, path: Path) -> None:
        layers: dict[str, Any] = {}
        for number, (weight, bias) in enumerate(self.layers):
            layers |= {f"w{number}": weight, f"b{number}": bias}
        with path.open("wb") as file:
            np.savez(file, mean=self.mean, scale=self.scale, temperature=self.temperature, means=self.means, **layers)

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Raises ValueError, KeyError or OSError for a file that `save` did not write; runs no code from it."""
        with np.load(path, allow_pickle=False) as arrays:
            layers = tuple((arrays[f"w{n}"], arrays[f"b{n}"]) for n in range(2) if f"w{n}" in arrays)
            return cls(arrays["mean"], arrays["scale"], layers, float(arrays["temperature"]), arrays["means"])
