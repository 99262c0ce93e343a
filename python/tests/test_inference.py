"""The hooks of the serving container: every request is answered or refused with the right status, and nothing runs."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photographs import BREEDS, CLASSES
from PIL import Image

import dogbreed
from dogbreed.config import TrainConfig
from dogbreed.errors import DogbreedError
from dogbreed.inference import BadRequest, fetch, input_fn, model_fn, output_fn, parse, predict_fn
from dogbreed.model import Model
from dogbreed.train import Trained, train


@pytest.fixture
def jpeg(photos: Path) -> bytes:
    return sorted((photos / "test" / CLASSES[1]).iterdir())[0].read_bytes()


@pytest.fixture(scope="module")
def model(trained: Trained) -> Model:
    return trained.model


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """A model directory that may be damaged."""
    return shutil.copytree(trained.folder, tmp_path / "model")


def ask(model: Model, body: bytes | str | dict[str, Any], content_type: str = "application/json") -> dict[str, Any]:
    body = json.dumps(body) if isinstance(body, dict) else body
    text, kind = output_fn(predict_fn(input_fn(body, content_type), model), "application/json")
    assert kind == "application/json"
    answer: dict[str, Any] = json.loads(text)
    return answer


# ------------------------------------------------------------------------------------------------ requests


def test_a_picture_is_answered_with_breeds_best_first(trained: Trained, shared_cache: Path, jpeg: bytes) -> None:
    answer = ask(model_fn(str(trained.folder)), jpeg, "image/jpeg")
    best = answer["predictions"][0]
    assert set(best) == {"breed", "class_index", "probability"}
    assert (best["breed"], best["class_index"]) == (BREEDS[1], 1)
    probabilities = [p["probability"] for p in answer["predictions"]]
    assert probabilities == sorted(probabilities)[::-1] and sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert answer["rejected"] is False and re.fullmatch(r"efficientnet_lite0@[0-9a-f]{12}", answer["model"])
    assert "details" not in answer


def test_every_way_of_sending_a_picture_gives_the_same_answer(
    model: Model, jpeg: bytes, serve_bytes: Callable[[bytes], str]
) -> None:
    host = serve_bytes(jpeg)
    image = base64.b64encode(jpeg).decode()
    wanted = ask(model, jpeg, "image/jpeg")
    assert ask(model, bytearray(jpeg), "IMAGE/JPEG; charset=binary") == wanted  # type: ignore[arg-type]
    assert ask(model, jpeg, "image/png") == wanted  # the content counts
    assert ask(model, {"image": image}) == wanted
    assert ask(model, json.dumps({"image": image}).encode(), "application/json; charset=utf-8") == wanted
    linked = parse(json.dumps({"url": f"http://{host}/dog.jpg"}).encode(), "application/json")
    assert predict_fn(fetch(linked, frozenset([host])), model) == wanted


def test_details_show_what_was_seen_and_what_it_is_like(model: Model, jpeg: bytes) -> None:
    details = ask(model, {"image": base64.b64encode(jpeg).decode(), "details": True})["details"]
    seen, similar = details["picture"], details["similar"]
    for uri, side in ((seen, 224), (similar["picture"], 160)):
        head, _, data = uri.partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (side, side)
    assert (similar["breed"], similar["class_index"]) == (BREEDS[1], 1) and 0.5 < similar["similarity"] <= 1
    assert set(details["ms"]) == {"queue", "decode", "network"} and details["ms"]["network"] > 0


def test_without_a_gallery_there_is_nothing_similar(
    photos: Path, shared_cache: Path, tmp_path: Path, jpeg: bytes
) -> None:
    """Where training pictures may not leave: the model carries none, and answers all the same."""
    made = train(data=photos, out=tmp_path / "model", config=TrainConfig(solver="ridge", gallery=0))
    model = Model.load(made.folder, device="cpu")
    assert model.gallery.jpegs == () and (made.folder / "gallery.npz").stat().st_size < 2000
    details = ask(model, {"image": base64.b64encode(jpeg).decode(), "details": True})["details"]
    assert details["similar"] is None and details["picture"].startswith("data:image/jpeg;base64,")


def test_a_training_picture_in_the_gallery_is_most_similar_to_itself(trained: Trained, shared_cache: Path) -> None:
    model = Model.load(trained.folder, device="cpu")
    assert len(model.gallery.jpegs) == 3 * len(CLASSES)
    assert np.bincount(model.gallery.labels).tolist() == [3] * len(CLASSES)
    for place, direction in enumerate(model.gallery.directions):
        found = model.gallery.most_similar(direction * 7)
        assert found is not None and found[0] == place and found[1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (99, 4), ("all", 4)])
def test_as_many_breeds_are_named_as_asked_for(model: Model, jpeg: bytes, top_k: int | str, count: int) -> None:
    answer = ask(model, {"image": base64.b64encode(jpeg).decode(), "top_k": top_k})
    assert len(answer["predictions"]) == count


IMAGE = base64.b64encode(b"not a picture").decode()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b"dog", "text/plain", 415, "'text/plain' is not supported"),
        (b"dog", "", 415, "is not supported"),
        (b"{", "application/json", 400, "not valid JSON"),
        (b"\xff\xfe", "application/json", 400, "not valid JSON"),
        (b"[" * 100_000, "application/json", 400, "not valid JSON"),
        (b"[]", "application/json", 400, 'either "url" or "image"'),
        ({}, "application/json", 400, 'either "url" or "image"'),
        ({"url": "http://a.example/", "image": IMAGE}, "application/json", 400, 'either "url" or "image"'),
        ({"url": 5}, "application/json", 400, "are texts"),
        ({"image": None}, "application/json", 400, "are texts"),
        ({"image": "no base64!"}, "application/json", 400, "not valid base64"),
        ({"image": "köter"}, "application/json", 400, "not valid base64"),
        ({"image": IMAGE, "top_k": 0}, "application/json", 400, "top_k"),
        ({"image": IMAGE, "top_k": 2.5}, "application/json", 400, "top_k"),
        ({"image": IMAGE, "top_k": True}, "application/json", 400, "top_k"),
        ({"image": IMAGE, "top_k": "many"}, "application/json", 400, "top_k"),
        ({"image": IMAGE, "details": "yes"}, "application/json", 400, "details"),
        ({"image": IMAGE}, "application/json", 422, "not a picture in a known format"),
        ({"image": ""}, "application/json", 422, "the file is empty"),
        (b"", "image/jpeg", 422, "the file is empty"),
        ({"url": "file:///etc/passwd"}, "application/json", 422, "only http:// and https://"),
        ({"url": "http://169.254.169.254/latest/meta-data/"}, "application/json", 422, "not on the public internet"),
    ],
)
def test_a_bad_request_is_refused_with_status_and_reason(
    model: Model, body: Any, content_type: str, status: int, reason: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        ask(model, body, content_type)
    assert caught.value.status == status and reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("accept", ["application/json", "*/*", "application/*", "", "text/html, */*;q=0.8"])
def test_json_is_given_to_whoever_takes_it(accept: str) -> None:
    assert output_fn({"predictions": []}, accept) == ('{"predictions": []}', "application/json")


def test_another_kind_of_answer_is_refused() -> None:
    with pytest.raises(BadRequest, match="application/json") as caught:
        output_fn({}, "text/csv")
    assert caught.value.status == 406


# ------------------------------------------------------------------------------------------------ model directories


def refusal(folder: Path) -> str:
    with pytest.raises(DogbreedError) as caught:
        model_fn(str(folder))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [lambda v, p: torch.save(v, p), lambda v, p: p.write_bytes(pickle.dumps(v))])
def test_a_model_that_would_run_code_is_refused_and_runs_nothing(folder: Path, tmp_path: Path, write: Any) -> None:
    write({"backbone.conv_stem.weight": Malicious(tmp_path / "owned")}, folder / "model.pt")
    assert "is damaged" in refusal(folder)
    assert not (tmp_path / "owned").exists()


def test_a_model_of_another_version_says_so(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 99}))
    message = refusal(folder)
    assert "has format 99, this version reads 2" in message and "Train it again" in message


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"format": 2}'),
        ("classifier.npz", None),
        ("classifier.npz", b"PK half an archive"),
        ("gallery.npz", b""),
        ("network.bin", b"other weights"),
        ("classes.json", None),
        ("classes.json", b'{"0": "Akita"}'),
        ("classes.json", b"[]"),
        ("model.pt", None),
        ("model.pt", b"half a model"),
    ],
)
def test_a_damaged_model_is_one_clear_line(folder: Path, file: str, content: bytes | None) -> None:
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    assert re.search(r"There is no|is not valid JSON|has format|is damaged", refusal(folder))


@pytest.mark.parametrize("lost", ["head.", "rejection.", "backbone.conv_stem"])
def test_a_model_that_lost_a_layer_is_one_clear_line(
    folder: Path, lost: str, jpeg: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOGBREED_CACHE", str(tmp_path / "cache"))
    state = torch.load(folder / "model.pt", weights_only=True)
    kept = {k: v for k, v in state.items() if not k.startswith(lost)}
    assert len(kept) < len(state)
    torch.save(kept, folder / "model.pt")
    with pytest.raises(DogbreedError, match=r"is damaged .*Train it again") as caught:
        ask(model_fn(str(folder)), jpeg, "image/jpeg")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ the code in it

# Run where only the model's own copy of the package can be found, without what serving does not need.
ALONE = """
import json, sys
code, source, model, picture = sys.argv[1:]
sys.path = [code, *(p for p in sys.path if p and p != source)]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
for unneeded in ("boto3", "imagehash", "jinja2", "matplotlib", "optuna", "scipy", "sklearn", "timm", "torch", "typer"):
    sys.modules[unneeded] = None
import inference
with open(picture, "rb") as file:
    request = inference.input_fn(file.read(), "image/jpeg")
answer, _ = inference.output_fn(inference.predict_fn(request, inference.model_fn(model)), "application/json")
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "dogbreed"]
print(json.dumps([json.loads(answer), files]))
"""


def test_the_code_in_a_model_directory_works_alone(
    trained: Trained, tmp_path: Path, photos: Path, jpeg: bytes, shared_cache: Path
) -> None:
    (tmp_path / "dog.jpg").write_bytes(jpeg)
    code, source = trained.folder / "code", Path(dogbreed.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", ALONE, code, source, trained.folder, tmp_path / "dog.jpg"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer, files = json.loads(done.stdout.splitlines()[-1])
    assert files and all(Path(file).is_relative_to(code) for file in files)
    wanted = ask(trained.model, jpeg, "image/jpeg")
    assert [p["breed"] for p in answer["predictions"]] == [p["breed"] for p in wanted["predictions"]]
    assert answer["predictions"][0]["probability"] == pytest.approx(wanted["predictions"][0]["probability"], abs=1e-3)
