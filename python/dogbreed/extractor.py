"""The frozen network, ready to run: pixels in, features out, by the fastest runtime that this machine has.

PyTorch is the reference. On a CPU the same module is converted to OpenVINO, which folds batch norm into the
convolutions, lays memory out by channels and fuses what eager PyTorch runs one by one; the features agree to rounding
(`benchmarks/RESULTS.md` has the speeds).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from dogbreed.backbones import Weights, build_backbone, find_weights, preprocessing_of
from dogbreed.config import EmbedConfig
from dogbreed.cpu import cpu_count
from dogbreed.data.dataset import Sample
from dogbreed.data.pictures import BadPicture, Pixels, Preprocessing, decode_file, decoder_identity
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_dir, cache_dir, sha256_file, sha256_json

if TYPE_CHECKING:
    import torch
    from torch import nn

FloatArray = npt.NDArray[np.float32]
Runtime = Callable[[Pixels], FloatArray]  # (B, H, W, 3) uint8 → (B, D) float32

# Raised when the same weights would give other features, so that cached ones of the old way are not used.
NETWORK_VERSION = 1
BATCH_SIZE = 32  # pictures per forward pass: larger ones gain nothing on a CPU and cost memory


@dataclass(frozen=True)
class Extractor:
    """Features of one backbone with one set of weights.

    Quick start: `Extractor.create(EmbedConfig())(pixels)`, with pixels from `pictures.decode`.
    Nothing heavy is loaded before the first call: where all features are cached, the network is never built.
    """

    config: EmbedConfig
    preprocessing: Preprocessing
    weights: Weights
    build: Callable[[], nn.Module]  # the normalised network, (B, H, W, 3) uint8 → (B, D) float32
    device: str = "auto"
    calibration: Calibration | None = None  # for int8
    network: Path | None = None  # a converted network to use instead of converting one
    streams: int = 1  # threads that may run it at the same time on a CPU, each on its share of the cores

    @classmethod
    def create(cls, config: EmbedConfig, *, device: str = "auto", samples: Sequence[Sample] = ()) -> Extractor:
        """Finds the weights.

        Args:
            samples: training pictures, of which int8 takes some to find the range of each layer's values.
        """
        preprocessing = preprocessing_of(config.backbone)
        weights = find_weights(config.backbone, config.weights)

        def build() -> nn.Module:
            return feature_network(build_backbone(config.backbone, weights)[0], preprocessing)

        calibration = Calibration.choose(samples, preprocessing) if config.precision == "int8" else None
        return cls(config, preprocessing, weights, build, device, calibration)

    @property
    def identity(self) -> dict[str, Any]:
        """All that the features of given bytes depend on, but for rounding: the runtime is not part of it."""
        return {
            "backbone": self.config.backbone,
            "weights_sha256": self.weights.sha256,
            "network": NETWORK_VERSION,
            "precision": self.config.precision,
            "preprocessing": self.preprocessing.as_dict(),
            "decoder": decoder_identity(),
            # Only in f32 do devices agree to rounding.
            **({"device": choose_device(self.device)} if self.config.precision == "bf16" else {}),
            **({"calibration": self.calibration.id} if self.calibration else {}),
        }

    @cached_property
    def runtime(self) -> Runtime:
        precision = self.config.precision
        device = "cpu" if precision == "int8" else choose_device(self.device)
        if device != "cpu":
            return torch_runtime(self.build(), device, precision)
        return openvino_runtime(self.converted(), "f32" if precision == "int8" else precision, self.streams)

    def converted(self) -> Path:
        """The network as a file of OpenVINO's (`.xml`, with a `.bin` beside it).

        Kept in the cache, since converting takes longer than everything else at start.
        """
        if self.network:
            return self.network
        openvino = _import_openvino()
        # Of bf16 the file is the same: it is the arithmetic that is chosen when it runs.
        same = {k: v for k, v in self.identity.items() if k not in ("decoder", "precision", "device")}
        folder = cache_dir() / "networks" / sha256_json([openvino.__version__, same])[:16]
        if not (folder / "network.xml").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not (folder / "network.xml").exists():
                    self._convert_into(folder)
        return folder / "network.xml"

    def _convert_into(self, folder: Path) -> None:
        with atomic_dir(folder) as partial:
            model = convert(self.build(), self.preprocessing.crop_px)
            save_network(quantise(model, self.calibration) if self.calibration else model, partial / "network.xml")

    def __call__(self, pixels: Pixels) -> FloatArray:
        """(B, crop_px, crop_px, 3) uint8 → (B, D) float32."""
        return self.runtime(pixels)


def feature_network(backbone: nn.Module, preprocessing: Preprocessing) -> nn.Module:
    """The backbone with the normalisation in front: (B, H, W, 3) uint8 → (B, D) float32."""
    import torch
    from torch import nn

    class FeatureNetwork(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1) * 255, persistent=False)
            self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1) * 255, persistent=False)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
            features: torch.Tensor = self.backbone(x)
            return features.flatten(1)

    # Evaluation mode, for good: in training mode each pass would shift the batch-norm statistics of a "frozen" network.
    return FeatureNetwork().eval().requires_grad_(False)


def choose_device(wanted: str = "auto") -> str:
    """`cuda`, `mps` or `cpu`: the first that there is, or the one asked for."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def convert(network: nn.Module, size_px: int) -> Any:
    """A PyTorch module as an OpenVINO model for batches of any size."""
    openvino = _import_openvino()
    import torch

    example = torch.zeros((1, size_px, size_px, 3), dtype=torch.uint8)
    shape = openvino.PartialShape([-1, size_px, size_px, 3])
    with warnings.catch_warnings(), _no_telemetry():
        warnings.simplefilter("ignore")  # tracing is what the converter does, and what PyTorch warns of
        return openvino.convert_model(network, example_input=example, input=[shape])


def save_network(model: Any, path: Path) -> None:
    """Writes a converted network to `path` (`.xml`) and the `.bin` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _import_openvino().save_model(model, path, compress_to_fp16=False)
    except RuntimeError:  # all that it says of a full disk is "iostream error"
        raise DogbreedError(
            f"The network could not be written to the disk of {path.parent.parent}",
            "Free some space, or set DOGBREED_CACHE to a folder on a larger disk.",
        ) from None


def has_bf16() -> bool:
    """Whether this CPU computes in bf16; others would only imitate it."""
    return "BF16" in _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_name() -> str:
    return str(_import_openvino().Core().get_property("CPU", "FULL_DEVICE_NAME"))


@dataclass(frozen=True)
class Calibration:
    """The pictures from which int8 learns the range of each layer's values; `id` is a hash of them."""

    samples: tuple[Sample, ...]
    preprocessing: Preprocessing
    id: str

    @classmethod
    def choose(cls, samples: Sequence[Sample], preprocessing: Preprocessing, count: int = 256) -> Calibration:
        """Takes `count` pictures from all over the data set."""
        if not samples:
            raise DogbreedError("int8 needs pictures to calibrate on", "Give a data set, or another --precision.")
        chosen = tuple(samples[:: max(1, len(samples) // count)][:count])
        return cls(chosen, preprocessing, sha256_json([sha256_file(s.path) for s in chosen]))

    def pixels(self) -> list[Pixels]:
        """Batches of one picture, (1, H, W, 3) uint8, without the broken ones."""
        found = []
        for sample in self.samples:
            with contextlib.suppress(BadPicture):
                found.append(decode_file(sample.path, self.preprocessing)[None])
        return found


def quantise(model: Any, calibration: Calibration) -> Any:
    """Weights and activations as 8-bit integers; the ranges come from the calibration pictures."""
    with contextlib.redirect_stdout(sys.stderr), _no_telemetry():
        try:
            import nncf
        except ImportError:
            raise DogbreedError("int8 needs the package nncf", "Run: pip install 'dogbreed[int8]'") from None
        return nncf.quantize(model, nncf.Dataset(calibration.pixels()), preset=nncf.QuantizationPreset.MIXED)


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """Keeps OpenVINO's tools from reporting their use to their makers, which they do unless they run in CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def _import_openvino() -> Any:
    """The package `openvino`, whose import alone would report itself."""
    with _no_telemetry():
        import openvino
    return openvino


def openvino_runtime(model: Any, precision: str, streams: int = 1) -> Runtime:
    """Runs a converted network, or a file of one, on the CPU.

    Args:
        streams: batches that may run at the same time, each from a thread of its own. With one, a batch takes all
            cores: as fast for large batches, with one set of activations in memory.
    """
    openvino = _import_openvino()

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": cpu_count(),
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # a pinned stream waits while other work has its core
    }
    try:
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError:
        if not isinstance(model, Path):
            raise
        raise DogbreedError(f"The network {model} is damaged", f"Remove its folder: rm -r '{model.parent}'") from None
    # OpenVINO makes its link to NumPy on first use, and two threads that both come first wait for each other for ever.
    _ = openvino.Tensor(np.zeros(1, np.uint8)).data
    local = threading.local()

    def run(pixels: Pixels) -> FloatArray:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return np.array(local.request.infer([pixels])[0], dtype=np.float32)

    return run


def torch_runtime(network: nn.Module, device: str, precision: str = "f32") -> Runtime:
    import torch

    # By default convolutions round to 10 bits of mantissa; features of one key must agree whatever the device.
    torch.backends.cudnn.allow_tf32 = False
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(pixels: Pixels) -> FloatArray:
        batch = torch.from_numpy(pixels).to(device, non_blocking=True)
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            features: FloatArray = network(batch).float().cpu().numpy()
        return features

    return run
