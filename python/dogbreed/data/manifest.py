"""SageMaker augmented manifests: one JSON line per picture with its `source-ref` and its label."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from dogbreed.data.dataset import Dataset
from dogbreed.errors import DogbreedError
from dogbreed.files import write_text


@dataclass(frozen=True)
class Entry:
    """One line: `source_ref` as written, `label` the class's name, `where` the file and line for messages."""

    source_ref: str
    label: str
    where: str = "the manifest"

    def local_path(self, root: Path) -> Path:
        """The picture's file: a relative reference below `root`, a file URL, or the tail of an S3 key below `root`.

        Raises:
            DogbreedError: there is no such file, or the reference would leave `root`.
        """
        parts = urllib.parse.urlsplit(self.source_ref)
        if parts.scheme == "file":
            return self._existing([Path(urllib.request.url2pathname(parts.path))], root)
        # A key may hold ? and #, so it is not what urlsplit calls the path.
        bucket_and_key = self.source_ref.removeprefix("s3://")
        remote = bucket_and_key != self.source_ref
        key = PurePosixPath(bucket_and_key.partition("/")[2] if remote else bucket_and_key)
        if key.is_absolute() or ".." in key.parts or "://" in bucket_and_key:
            raise DogbreedError(
                f"{self.where}: {self.source_ref!r} does not lie below {root}",
                "Give a path relative to the data set, a file:// address, or an s3:// address.",
            )
        # The longest tail first: s3://bucket/data/train/A/1.jpg is data/train/A/1.jpg, else train/A/1.jpg, ….
        starts = range(len(key.parts)) if remote else range(1)
        return self._existing([root.joinpath(*key.parts[start:]) for start in starts], root)

    def _existing(self, candidates: list[Path], root: Path) -> Path:
        for path in candidates:
            if path.is_file():
                return path
        raise DogbreedError(
            f"{self.where}: the picture {self.source_ref!r} was not found below {root}",
            "Put the pictures beside the manifest, in the folders that it names.",
        )


def write_manifest(
    dataset: Dataset,
    split: str,
    path: Path,
    *,
    base_uri: str = "",
    label_attribute: str = "breed",
    creation_date: datetime | None = None,
    job_name: str = "labeling-job/dogbreed",
) -> int:
    """Writes one split as Ground Truth writes its image classification jobs.

    The same data set gives the same bytes.

    Args:
        base_uri: where the data set's root lies, such as `s3://bucket/dogs`; empty for references relative to the root.
        label_attribute: the key of the class index; its details go under `<label_attribute>-metadata`.
        creation_date: when the labels were made; the newest picture's modification time if not given.

    Returns:
        The number of lines.
    """
    samples = dataset.split(split)
    if creation_date is None:
        newest = max((s.path.stat().st_mtime for s in samples), default=0.0)
        creation_date = datetime.fromtimestamp(int(newest), timezone.utc)
    metadata = {
        "confidence": 1,
        "job-name": job_name,
        "human-annotated": "yes",
        "creation-date": creation_date.replace(tzinfo=None).isoformat(timespec="microseconds"),
        "type": "groundtruth/image-classification",
    }
    lines = []
    for sample in samples:
        line = {
            "source-ref": _reference(sample.path, dataset.root, base_uri),
            label_attribute: sample.class_index,
            f"{label_attribute}-metadata": {"class-name": dataset.classes[sample.class_index], **metadata},
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
    return len(lines)


def _reference(path: Path, root: Path, base_uri: str) -> str:
    try:
        relative = path.relative_to(root).as_posix()
    except ValueError:
        return path.absolute().as_uri()  # named by a file:// line of another manifest
    if not base_uri:
        return relative
    # S3 references hold the key as it is; in a file URL a space or a % must be quoted.
    return f"{base_uri.rstrip('/')}/{urllib.parse.quote(relative) if base_uri.startswith('file:') else relative}"


def read_manifest(path: Path, *, label_attribute: str | None = None) -> list[Entry]:
    """Reads an augmented manifest; blank lines are passed over.

    Args:
        label_attribute: the key of the label. If not given it is the key that has a `<key>-metadata` beside it, or the
            only key besides `source-ref`.

    Raises:
        DogbreedError: no such file, nothing in it, or a line that is not understood, named by its number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DogbreedError(f"There is no manifest {path}", "Write one: dogbreed data manifest DATA") from None
    except UnicodeDecodeError:
        raise DogbreedError(
            f"The manifest {path} is not a text file", "A manifest has one JSON object a line."
        ) from None
    entries = [
        _entry(line, f"{path}, line {number}", label_attribute)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not entries:
        raise DogbreedError(f"The manifest {path} is empty", "Write it again: dogbreed data manifest DATA")
    return entries


def _entry(text: str, where: str, label_attribute: str | None) -> Entry:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise _malformed(where, f"this is not JSON ({error})") from None
    if not isinstance(line, dict):
        raise _malformed(where, "this is not a JSON object")
    reference = line.get("source-ref")
    if not isinstance(reference, str) or not reference:
        raise _malformed(where, "there is no 'source-ref'")
    attribute = label_attribute or _label_attribute(line, where)
    if attribute not in line:
        raise _malformed(where, f"there is no label {attribute!r}")
    metadata = line.get(f"{attribute}-metadata")
    label = metadata.get("class-name") if isinstance(metadata, dict) else None
    if label is None:
        label = line[attribute]
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise _malformed(where, f"the label {attribute!r} is neither a class name nor a class index")
    return Entry(reference, str(label), where)


def _label_attribute(line: dict[str, Any], where: str) -> str:
    keys = [k for k in line if k != "source-ref" and not k.endswith("-metadata")]
    described = [k for k in keys if f"{k}-metadata" in line]
    for found in (described, keys):
        if len(found) == 1:
            return found[0]
    if not keys:
        raise _malformed(where, "there is no label")
    raise _malformed(where, f"it is not clear which is the label ({', '.join(described or keys)})")


def _malformed(where: str, why: str) -> DogbreedError:
    return DogbreedError(
        f"{where}: {why}", 'A line looks like {"source-ref": "train/A/1.jpg", "breed": 0, "breed-metadata": {…}}.'
    )
