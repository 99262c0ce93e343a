"""Embedding and its two stages alone: decoding, the network, and both overlapped.

    python benchmarks/embedding.py --data DIR --split test [--backbone NAME] [--precision f32|bf16] [--enlarge 567x529]

Each stage runs three times, in turn, and the best time counts: this machine's other work only ever slows it down.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dogbreed.config import EmbedConfig
from dogbreed.data.dataset import Sample, open_dataset
from dogbreed.data.pictures import decode_file
from dogbreed.embed import embed
from dogbreed.extractor import BATCH_SIZE, Extractor, cpu_count

ROUNDS = 3


def stages(samples: list[Sample], extractor: Extractor) -> dict[str, float]:
    """Pictures per second of each stage alone and of the pipeline."""
    size = extractor.preprocessing.crop_px
    batch = np.random.default_rng(0).integers(0, 255, (BATCH_SIZE, size, size, 3), dtype=np.uint8)
    extractor(batch)
    batches = max(1, len(samples) // BATCH_SIZE)

    def decode() -> None:
        with ThreadPoolExecutor(cpu_count()) as pool:
            for _ in pool.map(lambda s: decode_file(s.path, extractor.preprocessing), samples):
                pass

    def network() -> None:
        for _ in range(batches):
            extractor(batch)

    def pipeline() -> None:
        with tempfile.TemporaryDirectory() as cache:
            embed(samples, extractor, cache=Path(cache))

    parts: dict[str, tuple[Callable[[], None], int]] = {
        "decode": (decode, len(samples)),
        "network": (network, batches * BATCH_SIZE),
        "pipeline": (pipeline, len(samples)),
    }
    best = dict.fromkeys(parts, 0.0)
    for _ in range(ROUNDS):
        for name, (run, count) in parts.items():
            started = time.perf_counter()
            run()
            best[name] = max(best[name], count / (time.perf_counter() - started))
    return best


def enlarged(samples: list[Sample], size: tuple[int, int], folder: Path) -> list[Sample]:
    """The same pictures as larger JPEGs, as photographs from a camera would be."""
    made = []
    for i, sample in enumerate(samples):
        with Image.open(sample.path) as picture:
            larger = io.BytesIO()
            picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(larger, "JPEG", quality=90)
        path = folder / f"{i:05d}.jpg"
        path.write_bytes(larger.getvalue())
        made.append(Sample(path, sample.class_index))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--enlarge", metavar="WxH", help="upscale and re-encode the pictures first")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    config = EmbedConfig(backbone=a.backbone, weights=a.weights, precision=a.precision)
    samples = list(open_dataset(a.data).split(a.split))
    with tempfile.TemporaryDirectory() as folder:
        if a.enlarge:
            width, _, height = a.enlarge.partition("x")
            samples = enlarged(samples, (int(width), int(height)), Path(folder))
        result = stages(samples, Extractor.create(config))
    if a.json:
        print(json.dumps(result))
        return
    for name, speed in result.items():
        print(f"{name:10s} {speed:8.1f} pictures/s")
    slower = min(result["decode"], result["network"])
    print(f"the pipeline reaches {result['pipeline'] / slower:.0%} of its slower stage")


if __name__ == "__main__":
    main()
