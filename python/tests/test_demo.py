"""The demo from end to end."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import synthetic  # noqa: F401  (one thread)
from photographs import BREEDS

import dogbreed.data.fetch
import dogbreed.data.sample
from dogbreed.data.dataset import open_dataset
from dogbreed.data.fetch import ORIGINAL_URL
from dogbreed.demo import get_data, run_demo


@pytest.mark.slow
def test_the_demo_runs_from_pictures_to_report_and_again(
    photos: Path, shared_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run_demo(str(photos), tmp_path, trials=5)
    shown = capsys.readouterr().out
    assert "4 breeds in" in shown and "48 train, 16 valid, 16 test" in shown
    assert "top-5 accuracy" in shown and "test_00.jpg" in shown and str(made.report) in shown
    assert "arithmetic" in shown and "chosen" in shown
    asked = re.search(r"POST (http://\S+)/invocations, (\S+): (.+), \d+\.\d%, in \d+ ms", shown)
    assert asked and asked[3] in BREEDS, "it ends with the server answering"
    with pytest.raises(OSError):  # it is not a person's terminal: nothing is left running
        urllib.request.urlopen(f"{asked[1]}/ping", timeout=5)
    assert made.report.read_text().startswith("<!DOCTYPE html>")
    first = json.loads((made.model / "metrics.json").read_text())
    again = run_demo(str(photos), tmp_path, trials=5)
    assert again == made
    assert json.loads((made.model / "metrics.json").read_text()) == first


def test_without_a_way_to_the_photographs_dogs_are_drawn_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, float]] = []

    def reachable(url: str, timeout_s: float) -> bool:
        asked.append((url, timeout_s))
        return False

    monkeypatch.setattr(dogbreed.data.fetch, "reachable", reachable)
    drawn = dogbreed.data.sample.draw_sample
    monkeypatch.setattr(dogbreed.data.sample, "draw_sample", lambda out: drawn(out, classes=2, per_class=4))
    data = get_data(None, tmp_path)
    assert asked == [(ORIGINAL_URL, 5)]
    assert "cartoon dogs are drawn instead" in " ".join(capsys.readouterr().out.split())
    assert len(open_dataset(data).classes) == 2
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*.jpg")}
    assert get_data(None, tmp_path) == data, "what an earlier demo drew is used"
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*.jpg")} == before


def test_what_is_drawn_is_enough_to_learn_from() -> None:
    """The issue's promise: at least 8 classes of 60."""
    defaults = dogbreed.data.sample.draw_sample.__kwdefaults__
    assert defaults["classes"] >= 8 and defaults["per_class"] >= 60


def test_with_a_way_to_them_the_photographs_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(dogbreed.data.fetch, "reachable", lambda url, timeout_s: True)
    monkeypatch.setattr(dogbreed.data.fetch, "fetch", lambda source, out: fetched.append(source) or out)
    assert get_data(None, tmp_path).is_relative_to(tmp_path) and fetched == [ORIGINAL_URL]


def test_an_archive_is_unpacked_and_a_folder_used_as_it_is(photos: Path, tmp_path: Path) -> None:
    import shutil

    archive = shutil.make_archive(str(tmp_path / "some.dogs"), "zip", photos.parent, photos.name)
    assert len(open_dataset(get_data(archive, tmp_path)).classes) == 4
    assert get_data(str(photos), tmp_path) == photos
