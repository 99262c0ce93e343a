"""Deletes what the CPU runtime never loads from the installed OpenVINO: about 78 MB of 165."""

import importlib.util
from pathlib import Path

UNUSED = (
    "libopenvino_intel_gpu_plugin.so",
    "cache.json",  # of kernels for GPUs
    "libopenvino_intel_npu_plugin.so",
    *(f"libopenvino_{name}_frontend.so.*" for name in ("gguf", "jax", "onnx", "paddle", "pytorch", "tensorflow*")),
)

spec = importlib.util.find_spec("openvino")
libraries = Path(spec.origin).parent / "libs"
for pattern in UNUSED:
    for path in libraries.glob(pattern):
        path.unlink()
