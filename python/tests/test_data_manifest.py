"""Augmented manifests: written as Ground Truth does, read from wherever the pictures are."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from dogbreed.data.dataset import open_dataset
from dogbreed.data.manifest import Entry, read_manifest, write_manifest
from dogbreed.errors import DogbreedError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "valid"):
        for name in ("001.Affenpinscher", "002.Afghan hound"):
            folder = tmp_path / "dogs" / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                (folder / f"50% {i}.jpg").write_bytes(b"picture")
    return tmp_path / "dogs"


def test_a_line_is_what_ground_truth_writes(root: Path) -> None:
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    count = write_manifest(
        open_dataset(root), "train", root / "out.manifest", base_uri="s3://bucket/data/", creation_date=when
    )
    lines = [json.loads(line) for line in (root / "out.manifest").read_text().splitlines()]
    assert count == len(lines) == 4
    assert lines[2] == {
        "source-ref": "s3://bucket/data/train/002.Afghan hound/50% 0.jpg",
        "breed": 1,
        "breed-metadata": {
            "class-name": "002.Afghan hound",
            "confidence": 1,
            "job-name": "labeling-job/dogbreed",
            "human-annotated": "yes",
            "creation-date": "2024-05-06T07:08:09.000000",
            "type": "groundtruth/image-classification",
        },
    }


def test_the_same_data_gives_the_same_bytes(root: Path) -> None:
    for name in ("a", "b"):
        write_manifest(open_dataset(root), "train", root / name, base_uri="s3://bucket")
    assert (root / "a").read_bytes() == (root / "b").read_bytes()


@pytest.mark.parametrize("base_uri", ["", "s3://bucket/some/prefix", "file"])
def test_a_data_set_of_manifests_opens_as_one_of_folders(root: Path, base_uri: str) -> None:
    dataset = open_dataset(root)
    base_uri = root.as_uri() if base_uri == "file" else base_uri
    for split in ("train", "valid"):
        write_manifest(dataset, split, root / f"{split}.manifest", base_uri=base_uri, label_attribute="dog")
    from_manifests = open_dataset(root)
    assert from_manifests.classes == dataset.classes
    assert from_manifests.splits == dataset.splits


def test_other_labels_are_understood(tmp_path: Path) -> None:
    lines = [
        {"source-ref": "a.jpg", "class": "Poodle"},
        {"source-ref": "a.jpg", "class": 3},
        {"source-ref": "a.jpg", "weight": 2, "my-job": 0, "my-job-metadata": {"class-name": "Pug"}},
    ]
    path = tmp_path / "x.manifest"
    path.write_text("\ufeff" + "\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert [e.label for e in read_manifest(path)] == ["Poodle", "3", "Pug"]
    with pytest.raises(DogbreedError, match="line 1: there is no label 'breed'"):
        read_manifest(path, label_attribute="breed")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "this is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"breed": 1}', "no 'source-ref'"),
        ('{"source-ref": 5, "breed": 1}', "no 'source-ref'"),
        ('{"source-ref": "a.jpg"}', "there is no label"),
        ('{"source-ref": "a.jpg", "x": 1, "y": 2}', r"not clear which is the label \(x, y\)"),
        ('{"source-ref": "a.jpg", "breed": null}', "neither a class name nor a class index"),
        ('{"source-ref": "a.jpg", "breed": true}', "neither a class name nor a class index"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "train.manifest"
    path.write_text('{"source-ref": "a.jpg", "breed": 0}\n' + line + "\n")
    with pytest.raises(DogbreedError, match=f"train.manifest, line 2: .*{message}"):
        read_manifest(path)


def test_a_missing_empty_or_binary_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DogbreedError, match="There is no manifest"):
        read_manifest(tmp_path / "x")
    (tmp_path / "x").write_text("\n")
    with pytest.raises(DogbreedError, match="is empty"):
        read_manifest(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DogbreedError, match="not a text file"):
        read_manifest(tmp_path / "x")


def test_an_s3_key_is_found_by_its_tail(root: Path) -> None:
    picture = root / "train" / "001.Affenpinscher" / "50% 0.jpg"
    for key in ("train/001.Affenpinscher/50% 0.jpg", "a/b/train/001.Affenpinscher/50% 0.jpg"):
        assert Entry(f"s3://bucket/{key}", "x").local_path(root) == picture
    assert Entry("train/001.Affenpinscher/50% 0.jpg", "x").local_path(root) == picture
    assert Entry(picture.as_uri(), "x").local_path(root) == picture


@pytest.mark.parametrize(
    "reference", ["../secret.jpg", "train/../../secret.jpg", "s3://bucket/../secret.jpg", "/{secret}"]
)
def test_no_reference_leaves_the_data_set(root: Path, reference: str) -> None:
    secret = root.parent / "secret.jpg"
    secret.write_bytes(b"secret")
    with pytest.raises(DogbreedError, match="does not lie below"):
        Entry(reference.format(secret=secret), "x").local_path(root)


def test_a_missing_picture_is_named_with_its_line(root: Path) -> None:
    (root / "train.manifest").write_text('{"source-ref": "s3://bucket/train/none.jpg", "breed": "A"}\n')
    with pytest.raises(DogbreedError, match=r"train.manifest, line 1: the picture 's3://bucket/train/none.jpg'"):
        open_dataset(root)
