"""A data set: `<root>/{train,valid,test}/<class folder>/<picture>`, with the classes taken from the folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dogbreed.errors import DogbreedError

SPLITS = ("train", "valid", "test")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class Sample:
    """One picture with its label; `class_index` counts into `Dataset.classes`."""

    path: Path
    class_index: int


@dataclass(frozen=True)
class Dataset:
    """The pictures of each split. `classes` holds the class folders' names in sorted order."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]

    @property
    def breeds(self) -> tuple[str, ...]:
        """The classes as a person reads them."""
        return breed_names(self.classes)

    def split(self, name: str) -> tuple[Sample, ...]:
        if name not in self.splits:
            raise DogbreedError(
                f"{self.root} has no split {name!r} (it has {', '.join(self.splits)})",
                f"Add a folder {name}/ with the same class folders, or run: dogbreed data split {self.root} OUT",
            )
        return self.splits[name]


def breed_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Readable names: `001.Affenpinscher` → `Affenpinscher`, `Afghan_hound` → `Afghan hound`.

    Where two classes would read the same, all keep their folders' names, so that an answer stays unambiguous.
    """
    names = tuple(re.sub(r"^\d+[._-]", "", c).replace("_", " ").strip() or c for c in classes)
    return names if len(set(names)) == len(names) else classes


def list_pictures(folder: Path) -> list[Path]:
    """The files below `folder` whose names say that they are pictures, sorted; hidden files are left out."""
    return sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def class_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def find_root(path: Path) -> Path:
    """The folder that holds the splits: `path` itself, or the only folder in it that does (as archives have it)."""
    if not path.exists():
        raise DogbreedError(f"There is no data set at {path}", "Give the folder that holds train/, valid/ and test/.")
    if path.is_file():
        raise DogbreedError(f"{path} is a file, not a folder of pictures", f"Unpack it: dogbreed data fetch {path} DIR")
    if _has_splits(path):
        return path
    inside = [p for p in class_folders(path) if _has_splits(p)]
    if len(inside) == 1:
        return inside[0]
    if any(list_pictures(p) for p in class_folders(path)[:3]):
        raise DogbreedError(
            f"{path} holds class folders but no train/ and valid/", f"Split it: dogbreed data split {path} OUT"
        )
    raise DogbreedError(
        f"{path} is not a data set: it has no train/ and valid/ folders",
        "The layout is train/<class>/<picture>.jpg, and the same under valid/ and test/.",
    )


def _has_splits(path: Path) -> bool:
    return any((path / s).is_dir() or (path / f"{s}.manifest").is_file() for s in ("train", "valid"))


def open_dataset(path: Path | str) -> Dataset:
    """Opens a data set and checks that it can be learnt from.

    Raises:
        DogbreedError: no such folder, no `train` or `valid` split, fewer than two classes, an empty class folder, or a
            class that one split has and another lacks.
    """
    root = find_root(Path(path).expanduser())
    found: dict[str, dict[str, list[Path]]] = {}
    for split in SPLITS:
        if (root / f"{split}.manifest").is_file():
            from dogbreed.data.manifest import read_manifest

            by_class: dict[str, list[Path]] = {}
            for entry in read_manifest(root / f"{split}.manifest"):
                by_class.setdefault(entry.label, []).append(entry.local_path(root))
            found[split] = {name: sorted(paths) for name, paths in sorted(by_class.items())}
        elif (root / split).is_dir():
            found[split] = {folder.name: list_pictures(folder) for folder in class_folders(root / split)}
    for needed in ("train", "valid"):
        if needed not in found:
            raise DogbreedError(
                f"{root} has no split {needed!r}", f"Add {needed}/, or split class folders: dogbreed data split SRC OUT"
            )
    classes = tuple(sorted(found["train"]))
    if len(classes) < 2:
        raise DogbreedError(
            f"{root / 'train'} holds {len(classes)} class{'es' if not classes else ''}; a classifier needs two",
            "Put the pictures of each class into a folder of its own.",
        )
    for split, by_class in found.items():
        _check_classes(root, split, by_class, classes)
    index = {name: i for i, name in enumerate(classes)}
    return Dataset(
        root=root,
        classes=classes,
        splits={
            split: tuple(Sample(path, index[name]) for name, paths in by_class.items() for path in paths)
            for split, by_class in found.items()
        },
    )


def _check_classes(root: Path, split: str, by_class: dict[str, list[Path]], classes: tuple[str, ...]) -> None:
    empty = [name for name, paths in by_class.items() if not paths]
    if empty:
        raise DogbreedError(
            f"The class folder {root / split / empty[0]} holds no pictures" + _and_more(empty),
            f"Add pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) or remove the class from every split.",
        )
    missing = sorted(set(classes) - set(by_class))
    if missing:
        raise DogbreedError(
            f"The class {missing[0]!r} is in train but missing from {split}" + _and_more(missing),
            f"Add {root / split / missing[0]}, or remove the class from every split.",
        )
    extra = sorted(set(by_class) - set(classes))
    if extra:
        raise DogbreedError(
            f"The class {extra[0]!r} is in {split} but missing from train" + _and_more(extra),
            f"Add {root / 'train' / extra[0]}, or remove the class from every split.",
        )


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
