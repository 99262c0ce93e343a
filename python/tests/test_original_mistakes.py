"""What was wrong in the original scripts and is right here: one test for each, named after the mistake."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photographs import BREEDS, draw, encode
from PIL import Image
from synthetic import problem

import dogbreed.embed
import dogbreed.extractor
import dogbreed.train
from dogbreed.config import EmbedConfig, HeadConfig, TrainConfig
from dogbreed.data.pictures import decode
from dogbreed.extractor import Extractor, choose_device, torch_runtime
from dogbreed.head import fit
from dogbreed.hpo import tune
from dogbreed.inference import input_fn, output_fn, predict_fn
from dogbreed.model import Model
from dogbreed.train import Trained, train


@pytest.fixture
def splits_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits whose pictures are asked for, in order."""
    seen: list[str] = []
    real = dogbreed.embed.embed

    def spy(samples: Any, *given: Any, **more: Any) -> Any:
        seen.extend({s.path.parts[-3] for s in samples})
        return real(samples, *given, **more)

    monkeypatch.setattr(dogbreed.embed, "embed", spy)
    monkeypatch.setattr(dogbreed.train, "embed", spy)
    return seen


def test_loss_floor_divided_by_the_number_of_batches() -> None:
    """`total_loss // len(loader)`: at chance it grew with the batch size, to 2045 at 512."""
    losses = [
        fit(problem(130, 130, classes=13), HeadConfig(learning_rate=1e-6, batch_size=size, epochs=1)).best
        for size in (32, 512)
    ]
    for epoch in losses:
        assert epoch.valid_loss == pytest.approx(math.log(13), abs=1)
        assert epoch.valid_loss != round(epoch.valid_loss), "floored"
    assert losses[0].valid_loss == pytest.approx(losses[1].valid_loss, rel=1e-3)


def test_accuracy_floored() -> None:
    """`running_corrects // len(loader)`: an accuracy of 0.87 was printed as 0."""
    p = problem(200, 83, noise=0.2)
    fitted = fit(p, HeadConfig(solver="ridge"))
    right = int((fitted.head.layers(p.valid_x).argmax(1) == p.valid_y).sum())
    assert 0 < right < 83 and fitted.best.valid_accuracy == pytest.approx(right / 83)


def test_one_epoch_whatever_the_setting() -> None:
    """`if epoch == 0: break`."""
    for epochs in (1, 2, 5):
        assert len(fit(problem(), HeadConfig(epochs=epochs, patience=9)).history) == epochs


def test_the_test_split_as_objective(splits_read: list[str], photos: Path, shared_cache: Path, tmp_path: Path) -> None:
    study = tune(data=photos, out=tmp_path, config=TrainConfig(epochs=2), trials=3)
    assert set(splits_read) == {"train", "valid"}
    p, _, _ = dogbreed.train.load_problem(photos, study.best)
    assert study.best_trial.value == fit(p, study.best.part(HeadConfig)).best.valid_loss


def test_the_ec2_script_training_on_the_test_split(
    splits_read: list[str], photos: Path, shared_cache: Path, tmp_path: Path
) -> None:
    """It read `test/` as its training data, validated twice and tested never."""
    made = train(data=photos, out=tmp_path / "model", config=TrainConfig(solver="ridge"))
    assert splits_read[-1] == "test" and splits_read.count("test") == 1
    assert made.model.facts["data"]["pictures"] == {"train": 48, "valid": 16}
    p, _, _ = dogbreed.train.load_problem(photos, TrainConfig())
    assert len(p.train_y) == 48 and len(p.valid_y) == 16
    for split, evaluation in made.evaluations.items():
        assert {path.parts[-3] for path in evaluation.paths} == {split}


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_no_normalisation(backbone: str) -> None:
    """The network is fed what its weights were trained on, not values from 0 to 1."""
    extractor = Extractor.create(EmbedConfig(backbone=backbone, weights="random"))
    network = extractor.build()
    seen: list[torch.Tensor] = []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[union-attr]
    size = extractor.preprocessing.crop_px
    network(torch.full((1, size, size, 3), 255, dtype=torch.uint8))
    mean, std = extractor.preprocessing.mean, extractor.preprocessing.std
    np.testing.assert_allclose(seen[0][0, :, 0, 0], (1 - np.array(mean)) / np.array(std), rtol=1e-5)
    expected = (127 / 255, 128 / 255) if backbone == "efficientnet_lite0" else (0.485, 0.229)
    assert (mean[0], std[0]) == pytest.approx(expected)


def test_batch_norm_statistics_of_the_frozen_network_drift() -> None:
    """`model.train()` on the whole network let every batch shift them."""
    network = Extractor.create(EmbedConfig(weights="random")).build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert any("running_mean" in name for name in before)
    run = torch_runtime(network, "cpu")
    pixels = np.random.default_rng(0).integers(0, 255, (4, 224, 224, 3), np.uint8)
    first = run(pixels)
    np.testing.assert_array_equal(run(pixels), first)
    np.testing.assert_allclose(run(pixels[:1]), first[:1], rtol=1e-3, atol=1e-4)  # nor does it see its neighbours
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(p.requires_grad for p in network.parameters())


def test_the_gpu_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == "cuda"
    made: list[str] = []
    monkeypatch.setattr(dogbreed.extractor, "torch_runtime", lambda network, device, *_: made.append(device))
    _ = Extractor.create(EmbedConfig(weights="random")).runtime
    assert made == ["cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == "cpu" and choose_device("cuda") == "cuda"


def test_no_seed() -> None:
    heads = [fit(problem(), HeadConfig(epochs=2, dropout=0.2, seed=seed)).head for seed in (3, 3, 4)]
    one, again, other = (torch.cat([p.detach().flatten() for p in h.parameters()]) for h in heads)
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_no_class_names_saved(trained: Trained, photos: Path) -> None:
    picture = next((photos / "test" / "002.Afghan_hound").rglob("*.jpg")).read_bytes()
    body, _ = output_fn(predict_fn(input_fn(picture, "image/jpeg"), Model.load(trained.folder)), "application/json")
    assert sum(breed in body for breed in BREEDS) == len(BREEDS)


def test_raw_logits_returned_as_if_probabilities(trained: Trained, photos: Path) -> None:
    model = Model.load(trained.folder)
    picture = next((photos / "test").rglob("*.jpg")).read_bytes()
    answer = predict_fn(input_fn(picture, "image/jpeg"), model)
    probabilities = [p["probability"] for p in answer["predictions"]]
    assert all(0 <= p <= 1 for p in probabilities) and sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "CMYK", "1", "I;16"])
def test_rgba_and_greyscale_pictures_fail(mode: str, trained: Trained) -> None:
    if mode == "I;16":
        picture = Image.fromarray((np.asarray(draw(1, 0).convert("L")).astype(np.uint16)) * 257)
    else:
        picture = draw(1, 0).convert(mode)
    data = encode(picture, "JPEG" if mode == "CMYK" else "PNG")
    model = Model.load(trained.folder)
    assert decode(data, model.preprocessing).shape == (224, 224, 3)
    answer = predict_fn(input_fn(data, "image/png"), model)
    assert len(answer["predictions"]) == len(BREEDS)
