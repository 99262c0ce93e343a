"""The drawn data set: complete, the same every time, different enough to learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dogbreed.data import sample
from dogbreed.data.cartoon import BREEDS, draw_jpeg
from dogbreed.data.check import check
from dogbreed.data.dataset import open_dataset
from dogbreed.data.sample import draw_sample
from dogbreed.errors import DogbreedError


def test_the_data_set_opens_and_has_no_errors(tmp_path: Path) -> None:
    dataset = open_dataset(draw_sample(tmp_path / "dogs", classes=4, per_class=20, size_px=128))
    assert dataset.breeds == ("Sausage hound", "Cloud spitz", "Polka pointer", "Velvet basset")
    assert {name: len(samples) for name, samples in dataset.splits.items()} == {"train": 56, "valid": 12, "test": 12}
    with Image.open(dataset.split("train")[0].path) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (128, 128), "RGB")
    assert check(tmp_path / "dogs").ok


def test_the_same_seed_gives_the_same_bytes_whatever_the_size_of_the_set(tmp_path: Path) -> None:
    small = draw_sample(tmp_path / "small", classes=2, per_class=4, size_px=64)
    large = draw_sample(tmp_path / "large", classes=3, per_class=8, size_px=64)
    other = draw_sample(tmp_path / "other", classes=2, per_class=4, size_px=64, seed=1)
    by_name = {p.name: p.read_bytes() for p in large.rglob("*.jpg")}
    for path in small.rglob("*.jpg"):
        assert path.read_bytes() == by_name[path.name]
    for path in other.rglob("*.jpg"):
        assert path.read_bytes() != by_name[path.name]


def test_no_two_pictures_are_the_same_and_every_breed_can_be_drawn() -> None:
    drawn = [draw_jpeg(breed, number, size_px=64) for breed in range(len(BREEDS)) for number in range(3)]
    assert len(BREEDS) >= 10 and len(set(drawn)) == len(drawn)


def test_a_simple_classifier_beats_chance_but_does_not_get_all(tmp_path: Path) -> None:
    """Nearest class mean on tiny grey thumbnails: something to learn, but not from the background's colour alone."""
    dataset = open_dataset(draw_sample(tmp_path / "dogs", classes=6, per_class=24, size_px=64))

    def pixels(path: Path) -> np.ndarray:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L").resize((16, 16)), dtype=float).ravel()

    x = np.stack([pixels(s.path) for s in dataset.split("train")])
    y = np.array([s.class_index for s in dataset.split("train")])
    means = np.stack([x[y == c].mean(axis=0) for c in range(6)])
    held_out = [*dataset.split("valid"), *dataset.split("test")]
    guesses = [int(((means - pixels(s.path)) ** 2).sum(axis=1).argmin()) for s in held_out]
    accuracy = np.mean([g == s.class_index for g, s in zip(guesses, held_out, strict=True)])
    assert 1 / 6 < accuracy < 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "classes is 1. Choose a number from 2 to 10"),
        ({"classes": 11}, "classes is 11"),
        ({"per_class": 3}, "per_class is 3"),
        ({"size_px": 8}, "size_px is 8"),
    ],
)
def test_a_number_out_of_range_is_named(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(DogbreedError, match=message):
        draw_sample(tmp_path / "dogs", **options)
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DogbreedError, match="not empty"):
        draw_sample(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(breed: int, number: int, **_: int) -> bytes:
        if number == 5:
            raise KeyboardInterrupt
        return b"picture"

    monkeypatch.setattr(sample, "draw_jpeg", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path / "dogs", classes=2, per_class=10)
    assert list(tmp_path.iterdir()) == []
