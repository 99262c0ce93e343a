"""Some training pictures of each class, small, inside the model: an answer can then show what the picture is like."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dogbreed.data.pictures import BadPicture, Pixels, Preprocessing, decode_file
from dogbreed.rejection import unit

FloatArray = npt.NDArray[np.float32]

SIDE_PX = 160
QUALITY = 80  # of the JPEGs: about 6 KB each


@dataclass(frozen=True)
class Gallery:
    """Pictures to compare with.

    directions: (G, D) float32, their features scaled to length one; labels: (G,) int64, indices of classes; jpegs: the
    G pictures, `SIDE_PX` square.
    """

    directions: FloatArray
    labels: npt.NDArray[np.int64]
    jpegs: tuple[bytes, ...]

    @classmethod
    def choose(
        cls,
        matrix: FloatArray,
        labels: npt.NDArray[np.int64],
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        *,
        per_class: int,
    ) -> Gallery:
        """Takes pictures that stand for their class's others: the nearest to the centre of each of its clusters.

        Args:
            matrix: (N, D) features; labels: (N,); paths: the N pictures.
        """
        from scipy.cluster.vq import kmeans2

        rows: list[int] = []
        for label in np.unique(labels) if per_class else ():
            mine = np.flatnonzero(labels == label)
            directions = unit(np.array(matrix[mine]))
            if len(mine) <= per_class:
                rows.extend(mine.tolist())
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pictures that are all alike leave clusters empty
                centres, _ = kmeans2(directions, per_class, minit="++", seed=0)
            nearest = (directions @ centres.T).argmax(axis=0)
            rows.extend(mine[np.unique(nearest)].tolist())
        kept = [(row, jpeg) for row in rows if (jpeg := _small(paths[row], preprocessing))]
        chosen = [row for row, _ in kept]
        return cls(unit(np.array(matrix[chosen])).astype(np.float32), labels[chosen], tuple(jpeg for _, jpeg in kept))

    def most_similar(self, features: FloatArray) -> tuple[int, float] | None:
        """(D,) features → the picture's place in the gallery and the cosine to it; None for an empty gallery."""
        if not self.jpegs:
            return None
        cosines = self.directions @ unit(features[None])[0]
        best = int(cosines.argmax())
        return best, float(cosines[best])

    def save(self, path: Path) -> None:
        sizes = np.array([len(jpeg) for jpeg in self.jpegs], dtype=np.int64)
        with path.open("wb") as file:
            np.savez(
                file,
                directions=self.directions.astype(np.float16),
                labels=self.labels,
                sizes=sizes,
                jpegs=np.frombuffer(b"".join(self.jpegs), dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: Path) -> Gallery:
        """Raises ValueError, KeyError or OSError for a file that `save` did not write; runs no code from it."""
        with np.load(path, allow_pickle=False) as arrays:
            data = arrays["jpegs"].tobytes()
            ends = np.cumsum(arrays["sizes"]).tolist()
            jpegs = tuple(data[start:end] for start, end in zip([0, *ends], ends, strict=False))
            return cls(arrays["directions"].astype(np.float32), arrays["labels"], jpegs)


def _small(path: Path, preprocessing: Preprocessing) -> bytes | None:
    """A picture as the network sees it, as a small JPEG; None where its file has changed since and cannot be read."""
    try:
        return to_jpeg(decode_file(path, preprocessing), SIDE_PX)
    except BadPicture:
        return None


def to_jpeg(pixels: Pixels, side_px: int) -> bytes:
    """(S, S, 3) uint8 → a square JPEG of at most `side_px`."""
    picture = Image.fromarray(pixels)
    if picture.width > side_px:
        picture = picture.resize((side_px, side_px), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=QUALITY, optimize=True)
    return data.getvalue()
