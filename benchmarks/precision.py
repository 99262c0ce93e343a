"""What the arithmetic of the frozen network costs and keeps: f32, bf16 and int8.

    python benchmarks/precision.py --data DIR [--backbone NAME]

For each precision: pictures per second of the network alone, and the accuracy of the same ridge head on its features.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from dogbreed.config import EmbedConfig, HeadConfig
from dogbreed.data.dataset import open_dataset
from dogbreed.embed import embed
from dogbreed.extractor import BATCH_SIZE, Extractor
from dogbreed.head import Problem, fit

SECONDS = 6.0


def network_speed(extractor: Extractor) -> float:
    """Pictures per second of the network alone; the best of three rounds."""
    size = extractor.preprocessing.crop_px
    batch = np.random.default_rng(0).integers(0, 255, (BATCH_SIZE, size, size, 3), dtype=np.uint8)
    extractor(batch)
    best = 0.0
    for _ in range(3):
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS / 3:
            extractor(batch)
            count += BATCH_SIZE
        best = max(best, count / (time.perf_counter() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    a = parser.parse_args()
    dataset = open_dataset(a.data)
    print(f"## Precision: {a.backbone}\n")
    print("| precision | pictures/s, network alone | valid accuracy | valid loss |\n|---|---|---|---|", flush=True)
    for precision in ("f32", "bf16", "int8"):
        config = EmbedConfig(backbone=a.backbone, precision=precision)
        extractor = Extractor.create(config, samples=dataset.split("train"))
        speed = network_speed(extractor)
        train, valid = (embed(dataset.split(s), extractor, title=f"{precision}, {s}") for s in ("train", "valid"))
        best = fit(Problem(train, valid, len(dataset.classes)), HeadConfig(solver="ridge", weight_decay=1)).best
        print(f"| {precision} | {speed:.0f} | {best.valid_accuracy:.1%} | {best.valid_loss:.3f} |", flush=True)


if __name__ == "__main__":
    main()
