"""The frozen network: the fast runtime gives the reference's features, and nothing about it ever changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from photographs import draw
from runs import run

from dogbreed import extractor as extractor_module
from dogbreed.backbones import preprocessing_of
from dogbreed.config import EmbedConfig
from dogbreed.errors import DogbreedError
from dogbreed.extractor import (
    BATCH_SIZE,
    Extractor,
    choose_device,
    feature_network,
    torch_runtime,
)

FloatArray = npt.NDArray[np.float32]
CONFIGS = {
    "lite0": EmbedConfig(),
    "resnet18": EmbedConfig(backbone="resnet18", weights="random"),
}


def pictures(count: int, size: int = 224) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(draw(i % 4, i, size=(size, size))) for i in range(count)])


@pytest.fixture(scope="module", params=CONFIGS)
def extractor(request: pytest.FixtureRequest) -> Extractor:
    return Extractor.create(CONFIGS[request.param])


def apart(a: FloatArray, b: FloatArray) -> float:
    """The largest difference, as a share of the largest feature."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def test_the_fast_runtime_gives_the_features_of_pytorch(extractor: Extractor) -> None:
    pixels = pictures(5)
    wanted = torch_runtime(extractor.build(), "cpu")(pixels)
    features = extractor(pixels)
    assert features.dtype == np.float32 and features.shape == wanted.shape
    assert apart(features, wanted) < 1e-3


def test_nothing_is_reported_to_the_makers_of_the_runtime(tmp_path: Path) -> None:
    """Their telemetry writes the identity it reports under into the home folder before it reports anything."""
    code = "from test_extractor import CONFIGS, Extractor, pictures; Extractor.create(CONFIGS['resnet18'])(pictures(1))"
    environment = {"HOME": str(tmp_path), "DOGBREED_CACHE": str(tmp_path / "cache"), "CI": ""}
    done = run("-c", code, cwd=Path(__file__).parent, **environment)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache").glob("networks/*/network.xml"))
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_the_other_pictures_of_a_batch_do_not_matter(extractor: Extractor) -> None:
    pixels = pictures(BATCH_SIZE)
    together = extractor(pixels)
    assert apart(extractor(pixels[3:4]), together[3:4]) < 1e-4
    assert apart(extractor(pixels[::-1])[::-1], together) < 1e-4


def test_features_given_out_are_not_overwritten_by_the_next_batch(extractor: Extractor) -> None:
    features = extractor(pictures(2))
    kept = features.copy()
    extractor(np.zeros_like(pictures(2)))
    assert np.array_equal(features, kept)


def test_the_frozen_network_does_not_drift(extractor: Extractor) -> None:
    """In train mode each pass shifts the batch-norm statistics, so the same picture gives other features later on."""
    network = extractor.build()
    assert not any(m.training for m in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    assert any("running_mean" in k for k in before)
    run = torch_runtime(network, "cpu")
    first = run(pictures(2))
    for i in range(3):
        run(255 - pictures(4 + i))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert np.array_equal(run(pictures(2)), first)


def test_pixels_are_normalised_for_the_backbone(extractor: Extractor) -> None:
    pixels, p = pictures(2), extractor.preprocessing
    network = extractor.build()
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(p.mean).view(3, 1, 1)) / torch.tensor(p.std).view(3, 1, 1)
    with torch.inference_mode():
        wanted = network.backbone(x).flatten(1).numpy()
    assert apart(extractor(pixels), wanted) < 1e-3

    without = dataclasses.replace(p, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    plain = torch_runtime(feature_network(network.backbone, without), "cpu")(pixels)
    assert apart(plain, wanted) > 0.05  # so this test would see it if the normalisation were lost


def test_bf16_stays_close_to_the_reference() -> None:
    pixels = pictures(4)
    extractor = Extractor.create(dataclasses.replace(CONFIGS["resnet18"], precision="bf16"), device="cpu")
    wanted = torch_runtime(extractor.build(), "cpu")(pixels)
    for features in (extractor(pixels), torch_runtime(extractor.build(), "cpu", "bf16")(pixels)):
        assert features.dtype == np.float32
        assert 0 < apart(features, wanted) < 0.05


def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == "cuda" and choose_device("cpu") == "cpu"

    monkeypatch.setattr(extractor_module, "torch_runtime", lambda network, device, precision: (device, precision))
    assert Extractor.create(EmbedConfig(backbone="resnet18", weights="random")).runtime == ("cuda", "f32")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same_features(extractor: Extractor) -> None:
    pixels = pictures(4)
    on_gpu = dataclasses.replace(extractor, device="cuda")(pixels)
    assert apart(on_gpu, torch_runtime(extractor.build(), "cpu")(pixels)) < 5e-3


def small_network() -> torch.nn.Module:
    layers = torch.nn.Conv2d(3, 8, 16, stride=16), torch.nn.Flatten(), torch.nn.Linear(8 * 14 * 14, 512)
    return feature_network(torch.nn.Sequential(*layers), preprocessing_of("resnet18"))


def test_a_network_is_converted_once_and_then_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOGBREED_CACHE", str(tmp_path))
    pixels = pictures(2)
    first = dataclasses.replace(Extractor.create(CONFIGS["resnet18"]), build=small_network)
    features = first(pixels)
    again = dataclasses.replace(first, build=lambda: pytest.fail("built again"))
    assert np.array_equal(again(pixels), features)

    for network in tmp_path.glob("networks/*/network.xml"):
        network.write_text("<net")
    with pytest.raises(DogbreedError, match=r"network .* is damaged.*rm -r"):
        dataclasses.replace(first)(pixels)


def test_a_disk_too_small_for_the_network_is_one_clear_line(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOGBREED_CACHE", str(small_disk))
    extractor = dataclasses.replace(Extractor.create(CONFIGS["resnet18"]), build=small_network)
    with pytest.raises(DogbreedError, match=r"could not be written to the disk of .*DOGBREED_CACHE"):
        extractor(pictures(1))
    assert not [path for path in small_disk.glob("networks/*") if path.is_dir()]


def test_nothing_heavy_is_built_before_the_first_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOGBREED_CACHE", str(tmp_path))

    def build() -> torch.nn.Module:
        raise AssertionError("built")

    extractor = dataclasses.replace(Extractor.create(CONFIGS["resnet18"]), build=build)
    assert extractor.identity["backbone"] == "resnet18"
    with pytest.raises(AssertionError, match="built"):
        extractor(pictures(1))
