"""Drawn dogs: a small labelled data set for machines where no photographs can be fetched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dogbreed.console import progress
from dogbreed.cpu import cpu_count
from dogbreed.data.cartoon import BREEDS, draw_jpeg
from dogbreed.data.dataset import SPLITS, find_root
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_dir, write_text

MARKER = "DRAWN.txt"  # tells a data set that was drawn from one of photographs


def draw_sample(out: Path, *, classes: int = 8, per_class: int = 60, seed: int = 0, size_px: int = 256) -> Path:
    """Draws a data set of cartoon dogs, in train, valid and test (70, 15 and 15 of 100).

    A picture depends only on the seed, its breed, its number and its size, so a larger set holds the smaller one's
    pictures, and the same version of Pillow gives the same bytes.

    Args:
        classes: how many breeds, 2 to 10.
        per_class: pictures of each breed, 4 or more.
        size_px: height and width.

    Returns:
        `out`.

    Raises:
        DogbreedError: a number out of range, or an `out` that holds files.
    """
    out = Path(out).expanduser()
    for name, value, low, high in (
        ("classes", classes, 2, len(BREEDS)),
        ("per_class", per_class, 4, 100_000),
        ("size_px", size_px, 64, 1024),
    ):
        if not low <= value <= high:
            raise DogbreedError(f"{name} is {value}", f"Choose a number from {low} to {high}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DogbreedError(f"{out} already exists and is not empty", "Choose another folder.")
    jobs = [(breed, number) for breed in range(classes) for number in range(per_class)]
    with (
        atomic_dir(out) as folder,
        ThreadPoolExecutor(cpu_count()) as pool,
        progress("Drawing", len(jobs), unit="pictures") as advance,
    ):

        def write(job: tuple[int, int]) -> None:
            breed, number = job
            name = f"{breed + 1:03d}.{BREEDS[breed].name}"
            target = folder / _split(number, per_class) / name / f"{BREEDS[breed].name}_{number + 1:05d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(draw_jpeg(breed, number, seed=seed, size_px=size_px))

        # In batches, so that Ctrl-C need not wait for all that is queued.
        for start in range(0, len(jobs), 32):
            batch = jobs[start : start + 32]
            for _ in pool.map(write, batch):
                advance(1)
        write_text(folder / MARKER, f"Cartoon dogs drawn by `dogbreed data sample --seed {seed}`. No photographs.\n")
    return out


def is_sample(data: Path) -> bool:
    """True for a data set that `draw_sample` drew."""
    return (find_root(data) / MARKER).exists()


def _split(number: int, per_class: int) -> str:
    held_out = max(1, round(0.15 * per_class))
    train = per_class - 2 * held_out
    return SPLITS[0 if number < train else 1 if number < train + held_out else 2]
