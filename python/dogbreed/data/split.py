"""Class folders divided into train, valid and test."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from pathlib import Path

from dogbreed.console import progress
from dogbreed.data.dataset import SPLITS, class_folders, list_pictures
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_dir, sha256_file


def split(
    source: Path, out: Path, *, valid: float = 0.1, test: float = 0.1, seed: int = 0, link: bool = True
) -> dict[str, int]:
    """Divides `<source>/<class>/<picture>` into `<out>/{train,valid,test}/<class>/<picture>`.

    Each class is divided by itself, in the order of a hash of `seed` and the picture's bytes. So names and dates do not
    matter, a picture added later displaces at most one other of its class per boundary, and pictures with the same
    bytes (under whatever class) come into the same split.

    Args:
        valid: the part of each class for validation, above 0.
        test: the part of each class for the test; 0 makes no test split.
        link: hard links instead of copies, which take no room; where links are not possible, copies are made.

    Returns:
        The number of pictures in each split.

    Raises:
        DogbreedError: parts that leave nothing to train on, no class folders, a class with too few different pictures,
            or an `out` that holds files or lies inside `source`.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    parts = _check_parts(valid, test)
    _check_folders(source, out)
    pictures = {folder.name: list_pictures(folder) for folder in class_folders(source)}
    pictures = {name: paths for name, paths in pictures.items() if paths}
    if len(pictures) < 2:
        raise DogbreedError(
            f"{source} holds {len(pictures)} class folders with pictures; a classifier needs two",
            "Put the pictures of each class into a folder of its own.",
        )
    chosen: dict[str, str] = {}  # digest → split, over all classes
    counts = dict.fromkeys(parts, 0)
    with (
        atomic_dir(out) as folder,
        progress("Splitting", sum(map(len, pictures.values())), unit="pictures") as advance,
    ):
        for name, paths in pictures.items():
            by_digest: dict[str, list[Path]] = defaultdict(list)
            for path in paths:
                by_digest[sha256_file(path)].append(path)
            _choose(source / name, by_digest, parts, seed, chosen)
            for digest, copies in by_digest.items():
                counts[chosen[digest]] += len(copies)
                for path in copies:
                    _place(path, folder / chosen[digest] / name / path.relative_to(source / name), link)
            advance(len(paths))
    return counts


def _check_parts(valid: float, test: float) -> dict[str, float]:
    if not (0 < valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise DogbreedError(
            f"valid={valid:g} and test={test:g} are not parts of a whole",
            "Give fractions such as 0.1, with valid above 0 and something left for train.",
        )
    return {"train": 1 - valid - test, "valid": valid} | ({"test": test} if test else {})


def _check_folders(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise DogbreedError(f"There is no folder {source}", "Give the folder that holds the class folders.")
    if (source / "train").is_dir() and (source / "valid").is_dir():
        raise DogbreedError(f"{source} is already split into {', '.join(SPLITS)}", "Use it as it is.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DogbreedError(f"{out} already exists and is not empty", "Choose another folder.")
    if out.resolve().is_relative_to(source.resolve()):
        raise DogbreedError(f"{out} lies inside {source}", "Choose a folder outside of the class folders.")


def _choose(
    folder: Path, by_digest: dict[str, list[Path]], parts: dict[str, float], seed: int, chosen: dict[str, str]
) -> None:
    """Adds the split of each digest of one class to `chosen`; what another class has fixed already stays."""
    if len(by_digest) < len(parts):
        raise DogbreedError(
            f"The class folder {folder} holds {len(by_digest)} different picture{'s' * (len(by_digest) != 1)}; "
            f"{len(parts)} are needed, one for each of {', '.join(parts)}",
            "Add pictures, or leave the class out.",
        )
    total = sum(map(len, by_digest.values()))
    wanted = {name: max(1, round(total * part)) for name, part in parts.items() if name != "train"}
    have = dict.fromkeys(parts, 0)
    for digest in by_digest.keys() & chosen.keys():
        have[chosen[digest]] += len(by_digest[digest])
    free = sorted(by_digest.keys() - chosen.keys(), key=lambda d: hashlib.sha256(f"{seed}:{d}".encode()).digest())
    for position, digest in enumerate(free):
        lacking = [name for name in parts if not have[name]]
        if len(free) - position <= len(lacking):  # the last ones go where there is nothing yet
            name = lacking[-1]
        else:
            name = next((name for name, count in wanted.items() if have[name] < count), "train")
        chosen[digest] = name
        have[name] += len(by_digest[digest])
    if empty := [name for name in parts if not have[name]]:
        raise DogbreedError(
            f"The class folder {folder} has no picture left for {empty[0]}: its others are copies from other classes",
            "Remove the copies from all but one class.",
        )


def _place(source: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another disk, or a file system without hard links
            pass
    shutil.copyfile(source, target)
