"""Checking a data set: each kind of bad picture is found and named, good ones are left in peace."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dogbreed.console import out
from dogbreed.data import check as check_module
from dogbreed.data.cartoon import draw_jpeg
from dogbreed.data.check import KINDS, Report, check, print_report, write_html, write_json
from dogbreed.errors import DogbreedError


def texture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture as different from the others as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set without any problem."""
    seed = 0
    for split, count in (("train", 6), ("valid", 2), ("test", 2)):
        for name in ("001.Akita", "002.Leonberger"):
            folder = tmp_path / "dogs" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{split}{i}.jpg").write_bytes(jpeg(texture(seed)))
                seed += 1
    return tmp_path / "dogs"


def found(report: Report) -> dict[str, list[tuple[str, ...]]]:
    return {kind: [p.files for p in problems] for kind, problems in report.by_kind().items()}


def detail(report: Report, kind: str) -> str:
    (problem,) = report.by_kind()[kind]
    return problem.detail


AKITA = "train/001.Akita"


def test_a_good_data_set_has_no_problems(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(root)
    assert report.problems == () and report.ok and report.pictures == 20 and report.imbalance == 1
    assert report.counts["train"] == {"001.Akita": 6, "002.Leonberger": 6}
    assert check(root.parent).pictures == 20  # the folder around it, as archives have it


def test_a_truncated_picture_is_found(root: Path) -> None:
    name = "train/002.Leonberger/Leonberger_06571.jpg"
    whole = jpeg(texture(99, (640, 480)))
    (root / name).write_bytes(whole[: len(whole) * 2 // 3])
    report = check(root)
    assert found(report) == {"broken": [(name,)]} and not report.ok
    assert "truncated" in detail(report, "broken")


def test_what_is_no_picture_is_found(root: Path) -> None:
    (root / AKITA / "page.jpg").write_text("<html>Not found</html>")
    (root / AKITA / "empty.jpg").write_bytes(b"")
    (root / AKITA / "notes.txt").write_text("notes")
    (root / AKITA / ".DS_Store").write_bytes(b"hidden")
    report = check(root)
    assert found(report) == {
        "not-a-picture": [(f"{AKITA}/empty.jpg",), (f"{AKITA}/page.jpg",)],
        "ignored": [(f"{AKITA}/notes.txt",)],
    }
    assert report.counts["train"]["001.Akita"] == 8  # the text file is no picture, the others claim to be


def save(mode: str, suffix: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        picture = texture(50)
        if mode == "I;16":
            picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
        elif mode == "P+transparency":
            picture = picture.convert("P")
            picture.info["transparency"] = 0
        else:
            picture = picture.convert(mode)
        picture.save(path.with_suffix(suffix))

    return write


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (save("CMYK", ".jpg"), "CMYK"),
        (save("RGBA", ".png"), "RGBA"),
        (save("L", ".jpg"), "greyscale"),
        (save("LA", ".png"), "greyscale with transparency"),
        (save("I;16", ".png"), "16-bit"),
        (save("P", ".gif"), "palette"),
        (save("P+transparency", ".png"), "palette with transparency"),
    ],
)
def test_colour_modes_are_noted(root: Path, write: Callable[[Path], None], words: str) -> None:
    write(root / AKITA / "odd")
    report = check(root)
    assert list(found(report)) == ["colour-mode"] and words in detail(report, "colour-mode") and report.ok


def test_a_name_that_does_not_fit_is_found(root: Path) -> None:
    texture(60).save(root / AKITA / "a.jpg", "PNG")
    (root / AKITA / "noname").write_bytes(jpeg(texture(61)))
    report = check(root)
    assert found(report)["wrong-extension"] == [(f"{AKITA}/a.jpg",), (f"{AKITA}/noname",)]
    assert "the content is PNG, the name says .jpg" in report.by_kind()["wrong-extension"][0].detail
    assert report.counts["train"]["001.Akita"] == 7


def test_sizes_are_checked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / AKITA / "tiny.jpg").write_bytes(jpeg(texture(70, (200, 63))))
    (root / AKITA / "wide.jpg").write_bytes(jpeg(texture(71, (1000, 64))))
    Image.new("1", (9000, 9000)).save(root / AKITA / "vast.png")
    monkeypatch.setattr(check_module, "MAX_BYTES", 100_000)
    (root / AKITA / "heavy.jpg").write_bytes(bytes(100_001))
    report = check(root)
    assert found(report)["tiny"] == [(f"{AKITA}/tiny.jpg",)]
    assert found(report)["oversized"] == [(f"{AKITA}/heavy.jpg",), (f"{AKITA}/vast.png",)]


def test_copies_within_and_across_splits_are_told_apart(root: Path) -> None:
    original = (root / AKITA / "train0.jpg").read_bytes()
    (root / AKITA / "again.jpg").write_bytes(original)
    assert found(check(root)) == {"copy": [(f"{AKITA}/again.jpg", f"{AKITA}/train0.jpg")]}
    (root / "test/001.Akita/leak.jpg").write_bytes(original)
    report = check(root)
    assert found(report) == {
        "copy-across-splits": [(f"{AKITA}/again.jpg", f"{AKITA}/train0.jpg", "test/001.Akita/leak.jpg")]
    }
    assert not report.ok and "train and test" in detail(report, "copy-across-splits")


def test_one_picture_under_two_classes_is_found(root: Path) -> None:
    (root / "train/002.Leonberger/x.jpg").write_bytes((root / AKITA / "train0.jpg").read_bytes())
    report = check(root)
    assert found(report)["two-labels"] == [(f"{AKITA}/train0.jpg", "train/002.Leonberger/x.jpg")]
    assert "001.Akita and 002.Leonberger" in detail(report, "two-labels")


@pytest.mark.parametrize("change", ["saved again", "smaller", "darker", "cropped", "turned by its EXIF tag"])
def test_a_near_duplicate_across_splits_is_found(root: Path, change: str) -> None:
    picture = Image.open(io.BytesIO(draw_jpeg(6, 3)))
    (root / AKITA / "original.jpg").write_bytes(jpeg(picture))
    exif = Image.Exif()
    changed = {
        "saved again": lambda: picture,
        "smaller": lambda: picture.resize((150, 150)),
        "darker": lambda: ImageEnhance.Brightness(picture).enhance(0.7),
        "cropped": lambda: picture.crop((3, 3, 253, 253)),
        "turned by its EXIF tag": lambda: picture.transpose(Image.Transpose.ROTATE_90),
    }[change]()
    if change.startswith("turned"):
        exif[0x0112] = 6  # to be shown turned by 90° clockwise
    changed.save(root / "valid/001.Akita/leak.jpg", quality=50, exif=exif)
    report = check(root)
    assert found(report) == {"near-copy-across-splits": [(f"{AKITA}/original.jpg", "valid/001.Akita/leak.jpg")]}
    assert not report.ok


def test_flat_pictures_and_like_compositions_are_no_duplicates(root: Path) -> None:
    """What a perceptual hash alone takes for copies: plain areas, and different things on the same background."""
    for i, colour in enumerate(("white", "black", "red")):
        Image.new("RGB", (100, 100), colour).save(root / AKITA / f"flat{i}.png")
    for breed in range(8):
        (root / "valid/001.Akita" / f"drawn{breed}.jpg").write_bytes(draw_jpeg(breed, 0))
    assert check(root).problems == ()


def test_many_equal_drawings_are_one_finding(root: Path) -> None:
    picture = Image.open(io.BytesIO(draw_jpeg(6, 3)))
    for quality in range(50, 90):
        (root / AKITA / f"q{quality}.jpg").write_bytes(jpeg(picture, quality))
    (group,) = found(check(root))["near-copy"]
    assert len(group) == 40


def test_missing_splits_and_classes_are_found(root: Path) -> None:
    (root / "test").rename(root / "testing")
    (root / "valid/003.Pug").mkdir()
    (root / AKITA / "../../stray.jpg").resolve().write_bytes(jpeg(texture(80)))
    (root / "train/stray.jpg").write_bytes(jpeg(texture(81)))
    report = check(root)
    assert "there is no test/; is testing/ meant" in detail(report, "missing-split")
    assert [p.detail for p in report.by_kind()["missing-class"]] == [
        "train/003.Pug does not exist",
        "valid/003.Pug is empty",
    ]
    assert found(report)["unlabelled"] == [("train/stray.jpg",)]


def test_class_folders_without_splits_are_checked(root: Path) -> None:
    report = check(root / "train")
    assert report.counts == {"unsplit": {"001.Akita": 6, "002.Leonberger": 6}}
    assert [p.detail for p in report.problems] == ["there is no train/", "there is no valid/", "there is no test/"]


def test_unbalanced_classes_are_found(root: Path) -> None:
    for i in range(40):
        (root / AKITA / f"more{i}.jpg").write_bytes(jpeg(texture(200 + i)))
    report = check(root)
    assert report.imbalance == 5.0
    assert detail(report, "imbalance") == "001.Akita has 5.0 times the pictures of the smallest: " + (
        "002.Leonberger (10), 001.Akita (50)"
    )


def test_a_manifest_line_without_its_picture_is_found(root: Path) -> None:
    lines = [{"source-ref": f"train/{n}/train0.jpg", "breed": n} for n in ("001.Akita", "002.Leonberger", "nowhere")]
    (root / "train.manifest").write_text("\n".join(json.dumps(line) for line in lines))
    report = check(root)
    assert "line 3" in detail(report, "manifest") and report.counts["train"]["001.Akita"] == 1


def test_a_wrong_path_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DogbreedError, match="no folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(DogbreedError, match="no pictures below"):
        check(tmp_path)


def test_the_reports_say_what_was_found(root: Path, tmp_path: Path) -> None:
    whole = jpeg(texture(99, (640, 480)))
    (root / AKITA / "Leonberger_06571.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (root / AKITA / "<b>page.jpg").write_text("<html>")
    (root / "test/001.Akita/[red]leak.jpg").write_bytes((root / AKITA / "train0.jpg").read_bytes())
    report = check(root)
    with out.capture() as captured:
        print_report(report)
    printed = captured.get()
    assert "22 pictures" in printed or "23 pictures" in printed
    assert "Broken pictures" in printed and "[red]leak.jpg" in printed

    write_json(report, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["counts"] == {"error": 3, "warning": 0, "note": 0}
    assert written["problems"]["broken"]["found"][0]["files"] == [f"{AKITA}/Leonberger_06571.jpg"]

    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3  # the half picture and both copies
    assert "&lt;b&gt;page.jpg" in page and "<b>page" not in page
    assert all(KINDS[kind].title in page for kind in report.by_kind())
    assert not re.search(r"(src|href)=.(https?:|//)", page)
