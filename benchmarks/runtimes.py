"""The network alone under each runtime: time for one picture, pictures per second, accuracy lost.

    python benchmarks/runtimes.py --data DIR [--backbones efficientnet_lite0 resnet50] [--rounds 5]

Each runtime has processes of its own, which are made ready first and then measured in turn, round after round, so that
all see the same other work; the medians are printed with the lowest and the highest. int8 is static quantisation,
calibrated on the same training pictures by either toolkit. ResNet-50 has random weights: its times count only.

ONNX Runtime is measured where it is installed (`pip install onnxruntime onnx`); the package does not need it.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dogbreed.config import EmbedConfig, HeadConfig
from dogbreed.cpu import cpu_count
from dogbreed.data.dataset import Dataset, open_dataset
from dogbreed.data.pictures import Pixels, decode_file
from dogbreed.extractor import (
    Calibration,
    Extractor,
    FloatArray,
    Runtime,
    convert,
    has_bf16,
    openvino_runtime,
    quantise,
    save_network,
)

import machine

BATCH = 8  # what the server puts into one run at most
KEPT = "eager, channels_last, malloc kept"
# In the order of the table; all are compared with the first.
RUNTIMES = (
    "eager",
    KEPT,
    "torch.compile",
    "onnxruntime f32",
    "onnxruntime int8",
    "openvino f32",
    "openvino bf16",
    "openvino int8",
)
# What is measured, and with how many cores for each call.
MEASURES = {"one": "all", "batch": "all", "callers": "one"}


# ------------------------------------------------------------------------------------------------ runtimes


def create(name: str, extractor: Extractor, threads: int, folder: Path) -> Runtime:
    """A runtime whose calls take so many cores. folder: of files that its processes share."""
    size = extractor.preprocessing.crop_px
    if name.startswith("onnxruntime"):
        return _onnxruntime(_onnx_file(name, extractor, folder), threads)
    if name.startswith("openvino"):
        precision = name.split()[1]
        path = folder / precision / "network.xml"
        if not path.exists():
            model = convert(extractor.build(), size)
            if precision == "int8":
                assert extractor.calibration is not None
                model = quantise(model, extractor.calibration)
            save_network(model, path)
        return openvino_runtime(path, "f32" if precision == "int8" else precision, cpu_count() // threads)
    return _torch(name, extractor)


def _torch(name: str, extractor: Extractor) -> Runtime:
    """PyTorch takes the number of its threads from the environment (`OMP_NUM_THREADS`)."""
    import torch

    network: Any = extractor.build()
    if name == KEPT:
        keep_large_blocks()
        network = network.to(memory_format=torch.channels_last)
    if name == "torch.compile":
        import torch._inductor.config

        torch._inductor.config.freezing = True  # folds batch norm and packs weights, as the other runtimes do
        network = torch.compile(network, dynamic=False)

    def run(pixels: Pixels) -> FloatArray:
        with torch.no_grad():
            features: FloatArray = network(torch.from_numpy(pixels)).numpy()
        return features

    return run


def keep_large_blocks() -> None:
    """Makes glibc keep the memory of freed activations instead of giving it back to the kernel.

    By default large blocks are mapped and unmapped on each use, and the page faults cost eager PyTorch a good part of
    its time on a CPU. OpenVINO allocates its activations once, so the package does without this.
    """
    libc = ctypes.CDLL("libc.so.6")
    m_trim_threshold, m_mmap_max = -1, -4
    if not (libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1)):
        raise SystemExit("this C library does not take the settings")


def _onnx_file(name: str, extractor: Extractor, folder: Path) -> Path:
    exact, int8 = folder / "network.onnx", folder / "int8.onnx"
    if not exact.exists():
        import torch

        size = extractor.preprocessing.crop_px
        example = torch.zeros((1, size, size, 3), dtype=torch.uint8)
        names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}}}
        torch.onnx.export(extractor.build(), (example,), str(exact), dynamo=False, **names)
    if name.endswith("int8") and not int8.exists():
        assert extractor.calibration is not None
        _quantise_onnx(exact, int8, extractor.calibration.pixels())
    return int8 if name.endswith("int8") else exact


def _quantise_onnx(exact: Path, int8: Path, pictures: Sequence[Pixels]) -> None:
    """QDQ: what ONNX Runtime recommends on CPUs with VNNI, weights per channel, activations as uint8."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(pictures)

        def get_next(self) -> dict[str, Pixels] | None:
            pixels = next(self._left, None)
            return None if pixels is None else {"x": pixels}

    prepared = exact.with_name("prepared.onnx")
    quant_pre_process(str(exact), str(prepared))
    quantize_static(
        str(prepared),
        str(int8),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _onnxruntime(path: Path, threads: int) -> Runtime:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(None, {"x": pixels})[0])


# ------------------------------------------------------------------------------------------------ a runtime's process


def rate(run: Callable[[], object], seconds: float) -> float:
    """Calls per second."""
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        run()
        count += 1
    return count / (time.perf_counter() - started)


def callers_rate(run: Callable[[], object], seconds: float) -> float:
    """Calls per second of as many callers as there are cores."""
    rates: list[float] = []
    threads = [threading.Thread(target=lambda: rates.append(rate(run, seconds))) for _ in range(cpu_count())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def obey(name: str, extractor: Extractor, cores: str, folder: Path) -> None:
    """Makes a runtime ready, then measures what each line on standard input names and prints a number for it."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    runtime = create(name, extractor, cpu_count() if cores == "all" else 1, folder)
    size = extractor.preprocessing.crop_px
    pixels = np.random.default_rng(0).integers(0, 255, (BATCH, size, size, 3), dtype=np.uint8)
    runtime(pixels[:1])
    if cores == "all":
        runtime(pixels)
    print(time.perf_counter() - started, file=out)
    for line in sys.stdin:
        what, argument = line.split()
        if what == "one":
            print(rate(lambda: runtime(pixels[:1]), float(argument)), file=out)
        elif what == "batch":
            print(BATCH * rate(lambda: runtime(pixels), float(argument)), file=out)
        elif what == "callers":
            print(callers_rate(lambda: runtime(pixels[:1]), float(argument)), file=out)
        elif what == "features":
            pictures = np.load(folder / "valid.npy", mmap_mode="r")
            np.save(argument, np.concatenate([runtime(np.array(pictures[i : i + 1])) for i in range(len(pictures))]))
            print(0, file=out)


class Process:
    """A runtime in a process of its own; `seconds` is how long it took to be made ready."""

    def __init__(self, name: str, backbone: str, cores: str, data: Path, folder: Path) -> None:
        command = [sys.executable, __file__, "--data", str(data), "--backbones", backbone]
        threads = {"OMP_NUM_THREADS": str(cpu_count() if cores == "all" else 1)}
        self._name = f"{name} ({backbone}, {cores})"
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--runtime", name, "--cores", cores, "--folder", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **threads},
            )
        self._log = folder / "log"
        self.seconds = self._answer()

    def ask(self, what: str, argument: object) -> float:
        assert self._process.stdin
        self._process.stdin.write(f"{what} {argument}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} failed:\n{self._log.read_text(errors='replace')[-2000:]}")
        return float(line)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


# ------------------------------------------------------------------------------------------------ comparing


def create_extractor(backbone: str, dataset: Dataset) -> Extractor:
    weights = "random" if backbone == "resnet50" else "auto"
    extractor = Extractor.create(EmbedConfig(backbone=backbone, weights=weights))
    calibration = Calibration.choose(dataset.split("train"), extractor.preprocessing)
    return Extractor(extractor.config, extractor.preprocessing, extractor.weights, extractor.build, "cpu", calibration)


def available() -> list[str]:
    missing = {name for name in ("onnxruntime", "nncf") if not importlib.util.find_spec(name)}
    found = [name for name in RUNTIMES if name.split()[0] not in missing]
    return [
        name
        for name in found
        if not (name == "openvino bf16" and not has_bf16()) and not (name == "openvino int8" and "nncf" in missing)
    ]


def compare(backbone: str, data: Path, names: Sequence[str], rounds: int, seconds: float) -> None:
    """Measures the runtimes of one backbone and prints their table."""
    measured: dict[str, dict[str, list[float]]] = {name: {what: [] for what in MEASURES} for name in names}
    ready = {}
    processes: list[Process] = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            runtimes = {}
            for name in names:
                print(f"{backbone}: {name} is made ready", file=sys.stderr)
                for cores in ("all", "one"):
                    runtimes[name, cores] = process = Process(name, backbone, cores, data, folder)
                    processes.append(process)
                ready[name] = runtimes[name, "all"].seconds
            for number in range(1, rounds + 1):
                print(f"{backbone}: round {number}", file=sys.stderr)
                for name in names:
                    for what, cores in MEASURES.items():
                        measured[name][what].append(runtimes[name, cores].ask(what, seconds))
            right = {}
            if backbone != "resnet50":
                right = accuracies(backbone, data, {name: runtimes[name, "all"] for name in names}, folder)
        finally:
            for process in processes:
                process.close()
    print_table(backbone, measured, ready, right)


def accuracies(backbone: str, data: Path, runtimes: dict[str, Process], folder: Path) -> dict[str, float]:
    """Validation accuracy of one ridge head, fitted on f32 features, on each runtime's features."""
    import torch

    from dogbreed.embed import embed
    from dogbreed.head import Problem, fit

    dataset = open_dataset(data)
    extractor = create_extractor(backbone, dataset)
    train, valid = (embed(dataset.split(split), extractor, title=f"Embedding {split}") for split in ("train", "valid"))
    problem = Problem(train, valid, len(dataset.classes))
    head = fit(problem, HeadConfig(solver="ridge", weight_decay=1)).head
    samples = dataset.split("valid")
    np.save(folder / "valid.npy", np.stack([decode_file(s.path, extractor.preprocessing) for s in samples]))
    labels = np.array([s.class_index for s in samples])
    found = {}
    for name, process in runtimes.items():
        print(f"{backbone}: {name} embeds the validation pictures", file=sys.stderr)
        process.ask("features", folder / "features.npy")
        with torch.no_grad():
            predicted = head(torch.from_numpy(np.load(folder / "features.npy"))).argmax(1).numpy()
        found[name] = float(np.mean(predicted == labels))
    return found


def print_table(
    backbone: str, measured: dict[str, dict[str, list[float]]], ready: dict[str, float], right: dict[str, float]
) -> None:
    print(f"\n### {backbone}\n")
    print(
        "| runtime | one picture on all cores, ms | pictures/s, one on each core | × eager"
        f" | pictures/s, {BATCH} on all cores | made ready in, s | valid accuracy |\n|---|---|---|---|---|---|---|"
    )
    first = measured[next(iter(measured))]
    for name, found in measured.items():
        ratios = [mine / eager for mine, eager in zip(found["callers"], first["callers"], strict=True)]
        print(
            f"| {name} | {spread([1e3 / calls for calls in found['one']], 1)} | {spread(found['callers'], 0)}"
            f" | {spread(ratios, 1)} | {spread(found['batch'], 0)} | {ready[name]:.0f}"
            f" | {f'{right[name]:.1%}' if right else ''} |",
            flush=True,
        )


def spread(values: Sequence[float], digits: int) -> str:
    """The median, with the lowest and the highest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/, valid/ and test/")
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "resnet50"])
    parser.add_argument("--only", nargs="+", choices=RUNTIMES, default=RUNTIMES, metavar="RUNTIME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement in a round")
    # How it starts the processes of its runtimes.
    parser.add_argument("--runtime", help=argparse.SUPPRESS)
    parser.add_argument("--cores", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.runtime:
        obey(a.runtime, create_extractor(a.backbones[0], open_dataset(a.data)), a.cores, a.folder)
        return
    print(machine.as_markdown(machine.describe()), flush=True)
    for backbone in a.backbones:
        compare(backbone, a.data, [name for name in available() if name in a.only], a.rounds, a.seconds)


if __name__ == "__main__":
    main()
