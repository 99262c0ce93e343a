"""Predictions: any picture gets an answer or a reason, and what is none of the classes is said to be none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photographs import BREEDS, CLASSES, draw, encode
from PIL import Image

from dogbreed.cli import main
from dogbreed.data.cartoon import draw_jpeg
from dogbreed.data.dataset import open_dataset
from dogbreed.errors import DogbreedError
from dogbreed.predict import Prediction, expand, predict
from dogbreed.train import Trained


@pytest.fixture
def run(
    trained: Trained, shared_cache: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `dogbreed predict --model <trained>`: exit status, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["predict", *map(str, arguments), "--model", str(trained.folder)])
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def picture(photos: Path) -> Path:
    return sorted((photos / "test" / CLASSES[2]).iterdir())[0]


def answers(trained: Trained, *sources: Path) -> list[Prediction]:
    return list(predict(trained.model, [str(s) for s in sources]))


def test_json_has_the_agreed_shape(run: Callable[..., Any], picture: Path) -> None:
    status, out, err = run(picture, "--json")
    assert status == 0 and err == ""
    (answer,) = json.loads(out)
    assert answer["file"] == str(picture)
    assert all(set(p) == {"breed", "class_index", "probability"} for p in answer["predictions"])
    best = answer["predictions"][0]
    assert best["breed"] == BREEDS[2] and best["class_index"] == 2 and 0.25 < best["probability"] <= 1


def test_probabilities_are_sorted_and_sum_to_one(run: Callable[..., Any], photos: Path) -> None:
    """The original answered with raw logits."""
    _, out, _ = run(photos / "test", "--json", "--top-k", 99)
    for answer in json.loads(out):
        probabilities = [p["probability"] for p in answer["predictions"]]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5) and probabilities == sorted(probabilities)[::-1]
        assert {p["class_index"] for p in answer["predictions"]} == {0, 1, 2, 3}
        assert all(p["breed"] == BREEDS[p["class_index"]] for p in answer["predictions"])


def test_a_folder_is_answered_picture_by_picture(run: Callable[..., Any], photos: Path) -> None:
    status, out, _ = run(photos / "test", "--json", "-k", 1)
    found = json.loads(out)
    assert status == 0 and len(found) == 16 and [a["file"] for a in found] == sorted(a["file"] for a in found)
    right = [BREEDS[CLASSES.index(Path(a["file"]).parent.name)] == a["predictions"][0]["breed"] for a in found]
    assert sum(right) >= 12 and all(len(a["predictions"]) == 1 for a in found)


def test_a_table_names_breed_and_probability(run: Callable[..., Any], picture: Path) -> None:
    status, out, _ = run(picture, "-k", 2)
    assert status == 0 and picture.name in out and BREEDS[2] in out and "%" in out


def test_an_address_is_fetched(run: Callable[..., Any], picture: Path, serve_bytes: Callable[[bytes], str]) -> None:
    host = serve_bytes(picture.read_bytes())
    status, out, _ = run(f"http://{host}/dog", picture, "--json", "--allow", host)
    by_url, by_file = json.loads(out)
    assert status == 0 and by_url["file"] == f"http://{host}/dog" and by_url["predictions"] == by_file["predictions"]


def test_an_address_inside_is_not_fetched(
    run: Callable[..., Any], picture: Path, serve_bytes: Callable[[bytes], str]
) -> None:
    status, out, _ = run(f"http://{serve_bytes(picture.read_bytes())}/dog", "--json")
    (answer,) = json.loads(out)
    assert (
        status == 1 and answer["predictions"] == [] and answer["error"] == "the address is not on the public internet"
    )


def test_a_bad_picture_has_its_reason_and_does_not_stop_the_others(
    run: Callable[..., Any], picture: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(picture.read_bytes()[:2000])
    status, out, err = run(bad, picture, tmp_path / "bad.jpg", "--json")
    first, second, third = json.loads(out)
    assert status == 1 and "Traceback" not in err
    assert "truncated" in first["error"] and first["predictions"] == [] and third == first
    assert second["predictions"][0]["breed"] == BREEDS[2] and "error" not in second
    status, out, _ = run(bad, picture)
    assert status == 1 and "truncated" in out and BREEDS[2] in out


@pytest.mark.parametrize("name", ["gone.jpg", "empty"])
def test_a_path_without_pictures_is_one_clear_line(run: Callable[..., Any], tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    status, out, err = run(tmp_path / name)
    assert status == 1 and out == "" and len(err.splitlines()) == 1
    assert err.startswith("error: There ") and name in err


def test_a_missing_model_is_one_clear_line(capsys: pytest.CaptureFixture[str], picture: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["predict", str(picture), "--model", str(tmp_path / "nothing")])
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "There is no model at" in err and "dogbreed train" in err


def test_sources_keep_their_order(photos: Path, picture: Path) -> None:
    folder = photos / "valid" / CLASSES[0]
    found = expand(["https://example.com/x.jpg", str(folder), str(picture)])
    assert found[0] == "https://example.com/x.jpg" and found[-1] == str(picture) and len(found) == 6
    with pytest.raises(DogbreedError, match="There is no file"):
        expand(["ftp://example.com/x.jpg"])


def test_pictures_of_every_kind_are_answered_in_one_batch(trained: Trained, picture: Path, tmp_path: Path) -> None:
    """RGBA and greyscale pictures made the original fail."""
    image = Image.open(picture)
    for mode, kind in [("RGBA", "png"), ("L", "png"), ("P", "gif"), ("CMYK", "jpeg"), ("LA", "webp"), ("I;16", "png")]:
        converted = image.convert("L").convert("I").point(lambda v: v * 257) if mode == "I;16" else image.convert(mode)
        (tmp_path / f"{mode.replace(';', '')}.{kind}").write_bytes(encode(converted.convert(mode), kind.upper()))
    found = answers(trained, *sorted(tmp_path.iterdir()))
    assert [p.error for p in found] == [None] * 6
    assert all(p.answer and p.answer.probabilities.sum() == pytest.approx(1, abs=1e-5) for p in found)
    assert {BREEDS[int(p.answer.probabilities.argmax())] for p in found if p.answer} == {BREEDS[2]}


def test_more_pictures_than_a_batch_are_answered_alike(trained: Trained, photos: Path) -> None:
    paths = [s.path for s in open_dataset(photos).split("train")]
    together, alone = answers(trained, *paths), answers(trained, paths[40])
    assert len(together) == 48 and [p.source for p in together] == [str(p) for p in paths]
    assert together[40].answer and alone[0].answer
    assert np.allclose(together[40].answer.probabilities, alone[0].answer.probabilities, atol=1e-4)


# ------------------------------------------------------------------------------------------------ is it one of ours?


def other_things() -> list[bytes]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    blocks = np.kron(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), np.ones((50, 50, 1), np.uint8))
    gradient = np.broadcast_to(np.linspace(0, 255, 300).astype(np.uint8)[:, None], (300, 300))
    pixels = [noise, blocks, gradient, np.full((300, 300, 3), 128, np.uint8)]
    return [encode(Image.fromarray(p), "PNG") for p in pixels] + [draw_jpeg(breed, 1) for breed in (0, 3)]


def test_other_things_are_rejected_and_pictures_of_the_classes_are_not(
    run: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    for i, data in enumerate(other_things()):
        (tmp_path / f"{i}.png").write_bytes(data)
    _, out, _ = run(tmp_path, "--json")
    assert all(a["rejected"] for a in json.loads(out))
    _, out, _ = run(photos / "valid", "--json")
    assert sum(not a["rejected"] for a in json.loads(out)) >= 0.9 * 16
    _, out, _ = run(tmp_path / "0.png", "-k", 1)
    assert "probably none" in " ".join(out.split())


def test_a_rejection_score_grows_as_a_picture_loses_its_subject(trained: Trained, tmp_path: Path) -> None:
    picture = np.asarray(draw(2, 4), dtype=np.float32)
    noise = np.random.default_rng(0).integers(0, 256, picture.shape)
    for share in (0.0, 0.4, 0.9):
        mixed = Image.fromarray(((1 - share) * picture + share * noise).astype(np.uint8))
        (tmp_path / f"{share}.png").write_bytes(encode(mixed, "PNG"))
    scores = [p.answer.rejection_score for p in answers(trained, *sorted(tmp_path.iterdir())) if p.answer]
    assert len(scores) == 3 and scores == sorted(scores)
