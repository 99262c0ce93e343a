"""Splitting class folders: in proportion, the same every time, copies together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dogbreed.data import split as split_module
from dogbreed.data.split import split
from dogbreed.errors import DogbreedError


def make_source(root: Path, classes: dict[str, int]) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.jpg").write_bytes(f"{name} {i}".encode())
    return root


def placed(out: Path) -> dict[str, str]:
    """Class and name of each picture, with its split."""
    return {"/".join(p.parts[-2:]): p.parts[-3] for p in out.rglob("*.jpg")}


def test_each_class_is_divided_in_proportion(tmp_path: Path) -> None:
    source = make_source(tmp_path / "src", {"A": 100, "B": 20, "C": 3})
    counts = split(source, tmp_path / "out", valid=0.1, test=0.2)
    assert counts == {"train": 70 + 14 + 1, "valid": 10 + 2 + 1, "test": 20 + 4 + 1}
    for split_name, expected in (("train", (70, 14, 1)), ("valid", (10, 2, 1)), ("test", (20, 4, 1))):
        assert tuple(len(list((tmp_path / "out" / split_name / c).iterdir())) for c in "ABC") == expected


def test_the_result_depends_on_seed_and_bytes_not_on_names(tmp_path: Path) -> None:
    source = make_source(tmp_path / "src", {"A": 60, "B": 60})
    split(source, tmp_path / "one")
    split(source, tmp_path / "two")
    split(source, tmp_path / "other", seed=1)
    assert placed(tmp_path / "one") == placed(tmp_path / "two") != placed(tmp_path / "other")
    for path in list(source.rglob("*.jpg")):
        path.rename(path.with_name(f"renamed_{path.name}"))
    split(source, tmp_path / "renamed")
    assert {k.replace("renamed_", ""): v for k, v in placed(tmp_path / "renamed").items()} == placed(tmp_path / "one")


def test_a_new_picture_hardly_moves_the_others(tmp_path: Path) -> None:
    source = make_source(tmp_path / "src", {"A": 60, "B": 60})
    split(source, tmp_path / "before")
    (source / "A" / "new.jpg").write_bytes(b"new")
    split(source, tmp_path / "after")
    before, after = placed(tmp_path / "before"), placed(tmp_path / "after")
    assert sum(after[name] != where for name, where in before.items()) <= 2


def test_copies_share_a_split_even_across_classes(tmp_path: Path) -> None:
    source = make_source(tmp_path / "src", {"A": 30, "B": 30})
    for i in range(10):
        (source / "A" / f"copy{i}.jpg").write_bytes((source / "A" / f"{i}.jpg").read_bytes())
        (source / "B" / f"stray{i}.jpg").write_bytes((source / "A" / f"{i}.jpg").read_bytes())
    split(source, tmp_path / "out", valid=0.25, test=0.25)
    where: dict[str, set[str]] = {}
    for path in (tmp_path / "out").rglob("*.jpg"):
        where.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), set()).add(path.parts[-3])
    assert len(where) == 60 and all(len(splits) == 1 for splits in where.values())


def test_links_take_no_room_and_copies_stand_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(tmp_path / "src", {"A": 10, "B": 10})
    split(source, tmp_path / "linked")
    split(source, tmp_path / "copied", link=False)

    def no_links(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(split_module.os, "link", no_links)
    split(source, tmp_path / "fallback")
    assert all(p.stat().st_nlink == 2 for p in (tmp_path / "linked").rglob("*.jpg"))
    assert all(p.stat().st_nlink == 1 for p in (tmp_path / "copied").rglob("*.jpg"))
    assert placed(tmp_path / "linked") == placed(tmp_path / "copied") == placed(tmp_path / "fallback")


def test_without_a_test_part_there_is_no_test_split(tmp_path: Path) -> None:
    source = make_source(tmp_path / "src", {"A": 10, "B": 10})
    assert split(source, tmp_path / "out", test=0) == {"train": 18, "valid": 2}
    assert not (tmp_path / "out" / "test").exists()


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        ({"A": 10, "B": 2}, {}, "B holds 2 different pictures; 3 are needed"),
        ({"A": 10}, {}, "a classifier needs two"),
        ({"A": 10, "B": 10}, {"valid": 0.6, "test": 0.5}, "not parts of a whole"),
        ({"A": 10, "B": 10}, {"valid": 0.0}, "not parts of a whole"),
        ({"train/A": 3, "valid/A": 3}, {}, "already split"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, classes: dict[str, int], options: dict, message: str) -> None:
    source = make_source(tmp_path / "src", classes)
    with pytest.raises(DogbreedError, match=message):
        split(source, tmp_path / "out", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    source = make_source(tmp_path / "src", {"A": 10, "B": 10})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DogbreedError, match="not empty"):
        split(source, tmp_path / "out")
    with pytest.raises(DogbreedError, match="inside"):
        split(source, source / "out")
    with pytest.raises(DogbreedError, match="no folder"):
        split(tmp_path / "nowhere", tmp_path / "new")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(tmp_path / "src", {"A": 10, "B": 10})
    real, calls = split_module._place, []

    def interrupted(*args: object) -> None:
        calls.append(args)
        if len(calls) == 15:
            raise KeyboardInterrupt
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(split_module, "_place", interrupted)
    with pytest.raises(KeyboardInterrupt):
        split(source, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["src"]
    assert len(list(source.rglob("*.jpg"))) == 20
