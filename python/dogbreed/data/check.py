"""What is wrong with a data set: broken files, copies in several splits, missing and rare classes."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dogbreed.console import out, progress
from dogbreed.cpu import cpu_count
from dogbreed.data.dataset import PICTURE_SUFFIXES, SPLITS, class_folders
from dogbreed.data.manifest import read_manifest
from dogbreed.data.pictures import MAX_BYTES, MAX_PIXELS, BadPicture, open_picture
from dogbreed.errors import DogbreedError
from dogbreed.files import write_json as write_json_file
from dogbreed.files import write_text

TINY_PX = 64
IMBALANCE_RATIO = 4.0
# Two pictures are near duplicates when their perceptual hashes (64 bits) differ in few bits and their standardised
# greyscale thumbnails agree: the hash alone also takes look-alike drawings on plain backgrounds for copies. Of 8,400
# photographs of 120 breeds this finds 37 pairs, by eye all of them one photograph (recoloured, cropped, saved again) or
# once the next shot of the same scene. From a difference of 0.34 on, different photographs come in.
MAX_HASH_DISTANCE = 8
MAX_THUMBNAIL_DIFFERENCE = 0.3  # mean absolute difference, in standard deviations of a picture's brightness
_THUMBNAIL_PX = 32
_FLAT = 4.0  # grey levels; below this deviation a thumbnail has nothing to compare
_BATCH = 256
_SHOWN = 24
_TEMPLATES = Path(__file__).parent.parent / "templates"

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """A kind of problem: how bad it is and what to do about it."""

    severity: str
    title: str
    advice: str


KINDS = {
    "missing-split": Kind("error", "Missing splits", "Divide the class folders with: dogbreed data split SRC OUT"),
    "missing-class": Kind("error", "Classes missing from a split", "Add pictures, or remove the class everywhere."),
    "too-few-classes": Kind("error", "Too few classes", "A classifier needs two classes, each with its own folder."),
    "manifest": Kind("error", "Manifest lines without a picture", "Put the picture in place or remove the line."),
    "broken": Kind("error", "Broken pictures", "Fetch them again or remove them; training skips and counts them."),
    "not-a-picture": Kind("error", "Files that are no pictures", "Remove them; training skips and counts them."),
    "oversized": Kind("error", "Pictures too large to be read", "Scale them down; training skips and counts them."),
    "copy-across-splits": Kind(
        "error", "The same picture in several splits", "Keep one; a model is else tested on what it has learnt."
    ),
    "near-copy-across-splits": Kind(
        "error", "Nearly the same picture in several splits", "Keep one; the measured accuracy is else too good."
    ),
    "two-labels": Kind("error", "The same picture under several classes", "Keep it in the class that is right."),
    "copy": Kind("warning", "The same picture twice in a split", "Keep one; a copy only counts it double."),
    "near-copy": Kind("warning", "Nearly the same picture twice in a split", "Keep one if it adds nothing."),
    "wrong-extension": Kind("warning", "Names that do not fit the content", "Rename the files."),
    "tiny": Kind("warning", f"Pictures under {TINY_PX} px", "Get larger ones; these are blown up for the network."),
    "unlabelled": Kind("warning", "Pictures outside of class folders", "Move each into the folder of its class."),
    "imbalance": Kind("warning", "Unbalanced classes", "Add pictures of the rare classes; read recall per class."),
    "colour-mode": Kind(
        "note", "Pictures that are not plain RGB", "Nothing: they are converted, transparency to white."
    ),
    "ignored": Kind("note", "Other files", "Nothing: they are left out."),
}


@dataclass(frozen=True)
class Problem:
    """One finding: `files` are relative to the data set's root, `detail` says what was found in them."""

    kind: str
    detail: str
    files: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        return KINDS[self.kind].severity


@dataclass(frozen=True)
class Report:
    """What `check` found. `counts` holds the pictures per split and class, broken ones included."""

    root: Path
    counts: dict[str, dict[str, int]]
    bytes: int
    problems: tuple[Problem, ...]

    @property
    def pictures(self) -> int:
        return sum(sum(by_class.values()) for by_class in self.counts.values())

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({name for by_class in self.counts.values() for name in by_class}))

    @property
    def ok(self) -> bool:
        """No errors; warnings and notes may be there."""
        return not self.count("error")

    @property
    def imbalance(self) -> float:
        """Pictures of the largest class per picture of the smallest, over all splits."""
        totals = [n for _, n in self.class_totals]
        return totals[0] / totals[-1] if totals and totals[-1] else float("inf") if totals else 1.0

    @property
    def class_totals(self) -> list[tuple[str, int]]:
        """Classes with their number of pictures over all splits, the largest first."""
        totals = {name: sum(by_class.get(name, 0) for by_class in self.counts.values()) for name in self.classes}
        return sorted(totals.items(), key=lambda item: (-item[1], item[0]))

    def count(self, severity: str) -> int:
        return sum(p.severity == severity for p in self.problems)

    def by_kind(self) -> dict[str, list[Problem]]:
        """The problems under their kinds, the worst kinds first."""
        return {kind: found for kind in KINDS if (found := [p for p in self.problems if p.kind == kind])}

    def as_dict(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "pictures": self.pictures,
            "bytes": self.bytes,
            "splits": {split: sum(by_class.values()) for split, by_class in self.counts.items()},
            "classes": {
                name: {s: by_class.get(name, 0) for s, by_class in self.counts.items()} for name in self.classes
            },
            "imbalance": self.imbalance if np.isfinite(self.imbalance) else None,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "problems": {
                kind: {
                    "severity": KINDS[kind].severity,
                    "title": KINDS[kind].title,
                    "advice": KINDS[kind].advice,
                    "found": [{"detail": p.detail, "files": list(p.files)} for p in found],
                }
                for kind, found in self.by_kind().items()
            },
        }


@dataclass(frozen=True)
class _File:
    """One file of the data set with its place; `label` is None outside of class folders."""

    path: Path
    name: str
    split: str
    label: str | None


@dataclass(frozen=True)
class _Seen:
    """What reading a file gave: problems as (kind, detail), and what copies are recognised by."""

    file: _File
    size: int
    problems: tuple[tuple[str, str], ...]
    digest: str = ""
    phash: int | None = None
    thumbnail: npt.NDArray[np.uint8] | None = None


def check(root: Path) -> Report:
    """Reads every file below a data set's root and reports what is wrong; changes nothing.

    It copes with what `open_dataset` refuses: missing splits, empty class folders, files in the wrong place. Class
    folders that are not split yet are checked as one split named `unsplit`.

    Raises:
        DogbreedError: there is no such folder, or not a single file in it.
    """
    root = _find_root(Path(root).expanduser())
    files, counts, problems = _list(root)
    if not files:
        raise DogbreedError(f"There are no pictures below {root}", "The layout is train/<class>/<picture>.jpg.")
    seen: list[_Seen] = []
    with (
        ThreadPoolExecutor(cpu_count()) as pool,
        progress("Checking", len(files), unit="files") as advance,
    ):
        # In batches, so that Ctrl-C need not wait for thousands of queued files.
        for start in range(0, len(files), _BATCH):
            batch = list(pool.map(_look, files[start : start + _BATCH]))
            seen += batch
            advance(len(batch))
    for one in seen:
        problems += [Problem(kind, detail, (one.file.name,)) for kind, detail in one.problems]
        if one.file.label is not None and not any(kind == "ignored" for kind, _ in one.problems):
            counts[one.file.split][one.file.label] += 1
    problems += _copies(seen)
    problems += _class_problems(counts)
    return Report(root, counts, sum(s.size for s in seen), tuple(problems))


# ── finding the files ────────────────────────────────────────────────────────────────────────────────────────────────


def _find_root(path: Path) -> Path:
    if not path.is_dir():
        raise DogbreedError(f"There is no folder {path}", "Give the folder that holds train/, valid/ and test/.")
    inside = [p for p in class_folders(path) if _splits(p)]
    return inside[0] if not _splits(path) and len(inside) == 1 else path


def _splits(root: Path) -> list[str]:
    return [s for s in SPLITS if (root / s).is_dir() or (root / f"{s}.manifest").is_file()]


def _list(root: Path) -> tuple[list[_File], dict[str, dict[str, int]], list[Problem]]:
    """All files with their places, a zero for each split and class, and what is wrong with the folders themselves."""
    files: list[_File] = []
    problems: list[Problem] = []
    counts: dict[str, dict[str, int]] = {}
    splits = _splits(root)
    for split in splits or ["unsplit"]:
        counts[split] = by_class = {}
        manifest = root / f"{split}.manifest"
        if manifest.is_file():
            for entry in read_manifest(manifest):
                by_class[entry.label] = 0
                try:
                    path = entry.local_path(root)
                except DogbreedError as error:
                    problems.append(Problem("manifest", error.problem, (manifest.name,)))
                else:
                    files.append(_File(path, _relative(path, root), split, entry.label))
            continue
        folder = root / split if splits else root
        for class_folder in class_folders(folder):
            by_class[class_folder.name] = 0
            files += [_File(p, _relative(p, root), split, class_folder.name) for p in _files(class_folder.rglob("*"))]
        files += [_File(p, _relative(p, root), split, None) for p in _files(folder.glob("*"))]
    for missing in SPLITS:
        if missing not in splits:
            similar = [p.name for p in class_folders(root) if splits and p.name.lower().startswith(missing[:3])]
            hint = f"; is {similar[0]}/ meant? Then rename it" if similar else ""
            problems.append(Problem("missing-split", f"there is no {missing}/{hint}"))
    return files, counts, problems


def _files(paths: Iterator[Path]) -> list[Path]:
    return sorted(p for p in paths if not p.name.startswith(".") and p.is_file())


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _class_problems(counts: dict[str, dict[str, int]]) -> list[Problem]:
    problems = []
    classes = sorted({name for by_class in counts.values() for name in by_class})
    if len(classes) < 2:
        problems.append(Problem("too-few-classes", f"there is {len(classes)} class in all"))
    for split, by_class in counts.items():
        for name in classes:
            if not by_class.get(name):
                why = "is empty" if name in by_class else "does not exist"
                problems.append(Problem("missing-class", f"{split}/{name} {why}"))
    totals = {name: sum(by_class.get(name, 0) for by_class in counts.values()) for name in classes}
    filled = sorted((n, name) for name, n in totals.items() if n)
    if filled and filled[-1][0] / filled[0][0] >= IMBALANCE_RATIO:
        (least, _), (most, largest) = filled[0], filled[-1]
        rarest = ", ".join(f"{name} ({n})" for n, name in filled[:5])
        problems.append(
            Problem("imbalance", f"{largest} has {most / least:.1f} times the pictures of the smallest: {rarest}")
        )
    return problems


# ── looking at one file ──────────────────────────────────────────────────────────────────────────────────────────────

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # several JPEGs in one file, as some cameras write them
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
_MODES = {
    "L": "greyscale",
    "1": "black and white",
    "LA": "greyscale with transparency",
    "RGBA": "with transparency (RGBA)",
    "CMYK": "CMYK, colours for print",
    "I;16": "16-bit greyscale",
    "I;16B": "16-bit greyscale",
    "I": "32-bit greyscale",
    "F": "32-bit greyscale",
    "YCbCr": "YCbCr",
    "LAB": "LAB",
}


def _look(file: _File) -> _Seen:
    named = file.path.suffix.lower() in PICTURE_SUFFIXES
    try:
        size = file.path.stat().st_size
        if size > MAX_BYTES:
            return _Seen(file, size, (("oversized" if named else "ignored", f"{size / 2**20:.0f} MiB"),))
        data = file.path.read_bytes()
    except OSError as error:
        return _Seen(file, 0, (("broken", f"it cannot be read ({error.strerror})"),))
    digest = hashlib.sha256(data).hexdigest()
    try:
        picture = open_picture(data, max_pixels=MAX_PIXELS)
    except BadPicture as error:
        kind = "ignored" if not named else "oversized" if "million pixels" in str(error) else "not-a-picture"
        return _Seen(file, size, ((kind, str(error)),), digest if named else "")
    kind = picture.format or "?"
    problems = []
    if file.path.suffix.lower() not in _SUFFIXES.get(kind, ()):
        left_out = "" if named else ", so it is left out"
        problems.append(
            ("wrong-extension", f"the content is {kind}, the name says {file.path.suffix or 'nothing'}{left_out}")
        )
    if not named:
        return _Seen(file, size, (*problems, ("ignored", "its name is not a picture's")), digest)
    if file.label is None:
        problems.append(("unlabelled", f"in {file.split}/ itself"))
    if min(picture.size) < TINY_PX:
        problems.append(("tiny", f"{picture.width} × {picture.height}"))
    if mode := _mode(picture):
        problems.append(("colour-mode", mode))
    try:
        # All bytes are still read, but a large JPEG is decoded at a fraction of its size.
        picture.draft("L", (4 * _THUMBNAIL_PX, 4 * _THUMBNAIL_PX))
        grey = ImageOps.exif_transpose(picture).convert("L")
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error… on broken pictures
        return _Seen(file, size, (*problems, ("broken", str(error))), digest)
    thumbnail = np.asarray(grey.resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX))
    bits = np.packbits(imagehash.phash(grey).hash)
    return _Seen(file, size, tuple(problems), digest, int.from_bytes(bits.tobytes(), "big"), thumbnail)


def _mode(picture: Image.Image) -> str:
    if picture.mode == "P":
        return "palette with transparency" if "transparency" in picture.info else "palette"
    return "" if picture.mode == "RGB" else _MODES.get(picture.mode, picture.mode)


# ── finding copies ───────────────────────────────────────────────────────────────────────────────────────────────────


def _copies(seen: list[_Seen]) -> list[Problem]:
    by_digest: dict[str, list[_Seen]] = defaultdict(list)
    for one in seen:
        if one.digest and one.file.label is not None:
            by_digest[one.digest].append(one)
    problems = [p for copies in by_digest.values() if len(copies) > 1 for p in _group("copy", copies)]
    different = [copies[0] for copies in by_digest.values() if copies[0].thumbnail is not None]
    for group in _near(different):
        # All copies of each, so that a group's splits and classes are complete.
        problems += _group("near-copy", [copy for one in group for copy in by_digest[one.digest]])
    return problems


def _group(kind: str, group: list[_Seen]) -> list[Problem]:
    files = tuple(one.file.name for one in group)
    splits = sorted({one.file.split for one in group}, key=[*SPLITS, "unsplit"].index)
    labels = sorted({str(one.file.label) for one in group})
    exactly = "the same bytes" if kind == "copy" else "nearly the same picture"
    found = []
    if len(splits) > 1:
        found.append(Problem(f"{kind}-across-splits", f"{exactly} in {' and '.join(splits)}", files))
    else:
        found.append(Problem(kind, f"{exactly} {len(group)} times in {splits[0]}", files))
    if len(labels) > 1:
        found.append(Problem("two-labels", f"{exactly} as {' and '.join(labels)}", files))
    return found


def _near(pictures: list[_Seen]) -> list[list[_Seen]]:
    """Groups of near duplicates.

    Each picture's hash is compared with all later ones by counting differing bits, a row at a time: the time is
    quadratic with a tiny constant (a tenth of a second for 8,400), the memory linear.
    """
    if len(pictures) < 2:
        return []
    hashes = np.array([p.phash for p in pictures], dtype=np.uint64)
    thumbnails = np.stack([p.thumbnail for p in pictures if p.thumbnail is not None])
    usable = thumbnails.std(axis=(1, 2)) >= _FLAT
    group = np.arange(len(pictures))  # the first member of each picture's group
    for i in np.flatnonzero(usable):
        distances = np.bitwise_count(hashes[i] ^ hashes[i + 1 :])
        later = np.flatnonzero((distances <= MAX_HASH_DISTANCE) & usable[i + 1 :]) + i + 1
        for j in later:
            # A set of equal drawings would otherwise be compared pair by pair.
            if group[i] != group[j] and _difference(thumbnails[i], thumbnails[j]) <= MAX_THUMBNAIL_DIFFERENCE:
                low, high = sorted((group[i], group[j]))
                group[group == high] = low
    sizes = np.bincount(group, minlength=len(pictures))
    return [[pictures[k] for k in np.flatnonzero(group == first)] for first in np.flatnonzero(sizes > 1)]


def _difference(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """The mean absolute difference of two thumbnails.

    Each is brought to mean 0 and deviation 1 first, so that brightness and contrast do not count.
    """
    x, y = a.astype(np.float32), b.astype(np.float32)
    return float(np.abs((x - x.mean()) / (x.std() + 1e-6) - (y - y.mean()) / (y.std() + 1e-6)).mean())


# ── telling what was found ───────────────────────────────────────────────────────────────────────────────────────────

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def print_report(report: Report) -> None:
    """Prints the counts and one row per kind of problem, with an example of each."""
    splits = ", ".join(f"{sum(by_class.values()):,} {split}" for split, by_class in report.counts.items())
    out.print(
        f"[bold]{escape(str(report.root))}[/]: {report.pictures:,} pictures ({splits}), {len(report.classes)} classes",
        soft_wrap=True,
    )
    if not report.problems:
        out.print("[green]No problems found.[/]")
        return
    table = Table("", "Problem", "Found", "What to do")
    for kind, found in report.by_kind().items():
        severity = KINDS[kind].severity
        table.add_row(f"[{_COLOURS[severity]}]{severity}[/]", KINDS[kind].title, f"{len(found):,}", KINDS[kind].advice)
    out.print(table)
    out.print("For example:")
    for found in report.by_kind().values():
        files = f" ({', '.join(found[0].files[:3])})" if found[0].files else ""
        line = Text.assemble("  ", (found[0].detail, _COLOURS[found[0].severity]), files)
        out.print(line, soft_wrap=True)


def write_json(report: Report, path: Path) -> None:
    write_json_file(path, report.as_dict())


def write_html(report: Report, path: Path) -> None:
    """Writes a page that holds everything it shows, thumbnails included."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pictured = {
        kind: [
            (p, [(name, _data_uri(report.root / name)) for name in p.files[:4]])
            for p in (found[:_SHOWN] if any(p.files for p in found) and kind != "ignored" else [])
        ]
        for kind, found in report.by_kind().items()
    }
    page = environment.get_template("check.html.j2").render(
        report=report, kinds=KINDS, severities=SEVERITIES, pictured=pictured, totals=report.class_totals
    )
    write_text(path, page)


def _data_uri(path: Path, size_px: int = 160) -> str | None:
    """A thumbnail to put into a page; None for what cannot be shown."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        picture = open_picture(data)
        if picture.format == "JPEG":
            # An end marker in place of the missing rest shows the part of a truncated picture that is there.
            picture = open_picture(data + b"\xff\xd9")
        picture.draft("RGB", (size_px, size_px))
        picture = ImageOps.exif_transpose(picture).convert("RGBA")
        picture.thumbnail((size_px, size_px), Image.Resampling.BICUBIC)
    except Exception:
        return None
    paper = Image.new("RGBA", picture.size, "white")
    buffer = io.BytesIO()
    Image.alpha_composite(paper, picture).convert("RGB").filter(ImageFilter.SHARPEN).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
