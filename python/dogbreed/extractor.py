"""The frozen network, ready to run: pixels in, features out, by the fastest runtime that this machine has.

PyTorch is the reference. On a CPU the same module is converted to OpenVINO, which folds batch norm into the
convolutions, lays memory out by channels and fuses what eager PyTorch runs one by one; the features agree to rounding
(`benchmarks/RESULTS.md` has the speeds).
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dogbreed.backbones import Weights, build_backbone, find_weights, preprocessing_of
from dogbreed.config import EmbedConfig
from dogbreed.data.pictures import Pixels, Preprocessing, decoder_identity
from dogbreed.errors import DogbreedError
from dogbreed.files import atomic_dir, cache_dir, sha256_json

if TYPE_CHECKING:
    import torch
    from torch import nn

FloatArray = npt.NDArray[np.float32]
Runtime = Callable[[Pixels], FloatArray]  # (B, H, W, 3) uint8 → (B, D) float32

BATCH_SIZE = 32  # pictures per forward pass: larger ones gain nothing on a CPU and cost memory


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    @classmethod
    def create(cls, config: EmbedConfig, *, device: str = "auto") -> Extractor:
        preprocessing = preprocessing_of(config.backbone)
        weights = find_weights(config.backbone, config.weights)

        def build() -> nn.Module:
            return feature_network(build_backbone(config.backbone, weights)[0], preprocessing)

        return cls(config, preprocessing, weights, build, device)

    @property
    def identity(self) -> dict[str, Any]:
        """All that the features of given bytes depend on, but for rounding: the runtime is not part of it."""
        return {
            "backbone": self.config.backbone,
            "weights_sha256": self.weights.sha256,
            "precision": self.config.precision,
            "preprocessing": self.preprocessing.as_dict(),
            "decoder": decoder_identity(),
        }

    @property
    def id(self) -> str:
        return sha256_json(self.identity)[:16]

    @cached_property
    def runtime(self) -> Runtime:
        device = choose_device(self.device)
        if device != "cpu":
            return torch_runtime(self.build(), device, self.config.precision)
        return openvino_runtime(self._converted(), self.config.precision)

    def _converted(self) -> Any:
        """The network as an OpenVINO model; kept in the cache, since converting takes longer than all else at start."""
        import openvino

        identity = [self.identity["weights_sha256"], self.config.backbone, self.preprocessing.as_dict()]
        folder = cache_dir() / "networks" / sha256_json([openvino.__version__, *identity])[:16]
        if not (folder / "network.xml").exists():
            with atomic_dir(folder) as partial:
                model = convert(self.build(), self.preprocessing.crop_px)
                openvino.save_model(model, partial / "network.xml", compress_to_fp16=False)
        try:
            return openvino.Core().read_model(folder / "network.xml")
        except RuntimeError:
            raise DogbreedError(f"The cached network in {folder} is damaged", f"Remove it: rm -r '{folder}'") from None

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
    import openvino
    import torch

    example = torch.zeros((1, size_px, size_px, 3), dtype=torch.uint8)
    shape = openvino.PartialShape([-1, size_px, size_px, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is what the converter does, and what PyTorch warns of
        return openvino.convert_model(network, example_input=example, input=[shape])


def openvino_runtime(model: Any, precision: str) -> Runtime:
    """Runs a converted network on the CPU."""
    import openvino

    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,
            # One batch at a time over all cores: as fast as several streams, with one set of activations in memory.
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": cpu_count(),
        },
    )
    request = compiled.create_infer_request()

    def run(pixels: Pixels) -> FloatArray:
        return np.array(request.infer([pixels])[0], dtype=np.float32)

    return run


def torch_runtime(network: nn.Module, device: str, precision: str = "f32") -> Runtime:
    import torch

    if device == "cpu":
        keep_large_blocks()
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(pixels: Pixels) -> FloatArray:
        batch = torch.from_numpy(pixels).to(device, non_blocking=True)
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            features: FloatArray = network(batch).float().cpu().numpy()
        return features

    return run


def keep_large_blocks() -> None:
    """Makes glibc keep the memory of freed activations instead of giving it back to the kernel.

    By default every block of more than 32 MiB is mapped and unmapped on each use, and the page faults cost eager
    PyTorch more than half its time on a CPU. Does nothing on other C libraries.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    m_trim_threshold, m_mmap_threshold = -1, -3
    libc.mallopt(m_mmap_threshold, 1 << 30)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
