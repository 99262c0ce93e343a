"""Pictures that look like four breeds: drawn, small, and the same bytes every time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CLASSES = ("001.Affenpinscher", "002.Afghan_hound", "003.Akita", "004.Basset_hound")
BREEDS = ("Affenpinscher", "Afghan hound", "Akita", "Basset hound")
PICTURES = {"train": 12, "valid": 4, "test": 4}  # of each class


def draw(kind: int, seed: int, size: tuple[int, int] = (320, 260)) -> Image.Image:
    """One of four textures (stripes, discs, checks, rings) of any colour, with some of another one mixed in."""
    rng = np.random.default_rng([kind, seed])
    other, share = rng.integers(4), rng.uniform(0, 0.48)
    pattern = (1 - share) * _texture(kind, rng, size) + share * _texture(int(other), rng, size)
    pixels = rng.uniform(90, 190, 3) * (0.7 + 0.3 * pattern[..., None]) + rng.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _texture(kind: int, rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.floating]:
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    period = rng.uniform(20, 50)
    x, y = (x + rng.uniform(-40, 40)) / period, (y + rng.uniform(-40, 40)) / period
    texture: npt.NDArray[np.floating] = [
        lambda: np.sin(2 * np.pi * (x + rng.uniform(-1, 1) * y)),
        lambda: np.where((x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.1, 1.0, -1.0),
        lambda: np.where((x % 1 < 0.5) ^ (y % 1 < 0.5), 1.0, -1.0),
        lambda: np.sin(2 * np.pi * np.hypot(x - 4, y - 4)),
    ][kind]()
    return texture


def encode(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_photos(root: Path, pictures: dict[str, int] = PICTURES) -> Path:
    """A data set at `root` with so many pictures of each class in each split; the same bytes every time."""
    seed = 0
    for split, count in pictures.items():
        for kind, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{split}_{i:02}.jpg").write_bytes(encode(draw(kind, seed)))
                seed += 1
    return root
