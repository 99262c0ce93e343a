"""The network alone under each runtime, in pictures per second, and how far its features are from eager PyTorch's.

    python benchmarks/runtimes.py [--backbone resnet50 --weights random] [--batch-size 32]

ONNX Runtime is measured where it is installed (`pip install onnxruntime onnx`); the package does not need it.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from dogbreed.config import EmbedConfig
from dogbreed.data.pictures import Pixels
from dogbreed.extractor import Extractor, FloatArray, Runtime, convert, openvino_runtime

SECONDS = 6.0
RUNTIMES = (
    "eager",
    "eager, malloc kept",
    "eager, malloc kept, channels_last",
    "onnxruntime",
    "openvino f32",
    "openvino bf16",
)


def create(name: str, extractor: Extractor, folder: Path) -> Runtime:
    network, size = extractor.build(), extractor.preprocessing.crop_px
    if name.startswith("openvino"):
        return openvino_runtime(convert(network, size), name.split()[1])
    if name == "onnxruntime":
        return _onnxruntime(network, size, folder)
    if "malloc" in name:
        keep_large_blocks()
    if "channels_last" in name:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def eager(pixels: Pixels) -> FloatArray:
        with torch.inference_mode():
            features: FloatArray = network(torch.from_numpy(pixels)).numpy()
        return features

    return eager


def keep_large_blocks() -> None:
    """Makes glibc keep the memory of freed activations instead of giving it back to the kernel.

    By default large blocks are mapped and unmapped on each use, and the page faults cost eager PyTorch a good part of
    its time on a CPU. OpenVINO allocates its activations once, so the package does without this.
    """
    libc = ctypes.CDLL("libc.so.6")
    m_trim_threshold, m_mmap_max = -1, -4
    if not (libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1)):
        raise SystemExit("this C library does not take the settings")


def _onnxruntime(network: torch.nn.Module, size: int, folder: Path) -> Runtime:
    import onnxruntime

    path = str(folder / "network.onnx")
    example = torch.zeros((1, size, size, 3), dtype=torch.uint8)
    torch.onnx.export(
        network, (example,), path, input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}}, dynamo=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(None, {"x": pixels})[0])


def speed(run: Callable[[], object], batch_size: int) -> float:
    """Pictures per second over `SECONDS`."""
    run()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        run()
        count += batch_size
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--only", choices=RUNTIMES, help="measure this one and print its row")
    a = parser.parse_args()
    warnings.simplefilter("ignore")
    if a.only is None:
        print(f"## Runtimes: {a.backbone}, batches of {a.batch_size}\n")
        print("| runtime | pictures/s | largest difference from eager |\n|---|---|---|", flush=True)
        for name in RUNTIMES:
            if name == "onnxruntime" and not importlib.util.find_spec(name):
                continue
            # Each in a process of its own: malloc's settings cannot be taken back.
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", name], env=os.environ, check=True)
        return
    extractor = Extractor.create(EmbedConfig(backbone=a.backbone, weights=a.weights))
    size = extractor.preprocessing.crop_px
    pixels = np.random.default_rng(0).integers(0, 255, (a.batch_size, size, size, 3), dtype=np.uint8)
    reference = create("eager", extractor, Path())(pixels)
    with TemporaryDirectory() as folder:
        runtime = create(a.only, extractor, Path(folder))
        difference = np.abs(runtime(pixels) - reference).max() / np.abs(reference).max()
        rate = speed(lambda: runtime(pixels), a.batch_size)
    print(f"| {a.only} | {rate:.1f} | {difference:.1e} of the largest feature |", flush=True)


if __name__ == "__main__":
    main()
