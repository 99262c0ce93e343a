"""`dogbreed serve` against the original projects' endpoint (`original_server.py`): time, throughput, start, memory.

    python benchmarks/serving.py --data DIR [--rounds 5] [--models FOLDER] [--json OUT]
    python benchmarks/serving.py --data DIR --variants

Each server is a process of its own and gets real JPEGs over HTTP from this one. In each round every server is started
anew and measured in turn, so that all see the same other work, and compared with the baseline of that round; the
medians over the rounds are printed with the lowest and the highest. The test pictures are upscaled to the average size
of the original data set first, so that decoding costs what it costs in earnest.

`--variants` compares threads, workers and batch sizes of the server instead, with the fastest network.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import http.client
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

import machine

HERE = Path(__file__).parent
DOGBREED = [sys.executable, "-m", "dogbreed"]
PRECISIONS = ("f32", "bf16", "int8")
TICKS = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 120.0
WARM_UP = 10  # requests before anything but the start is measured
RESNET_PICTURES = 3  # of each class, for a model whose weights are random anyway


# ------------------------------------------------------------------------------------------------ processes


@dataclass(frozen=True)
class Memory:
    """MiB of a server's processes together.

    rss: as `ps` counts, with what they share counted in each; pss: with it counted once; peak: the highest RSS of each.
    """

    rss: float
    pss: float
    peak: float


def tree(pid: int) -> list[int]:
    """A process and all that it started, as far as they run."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += tree(int(child))
    return found


def memory_of(pids: Sequence[int]) -> Memory:
    rss = pss = peak = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            now = _numbers(f"/proc/{pid}/smaps_rollup")
            rss, pss = rss + now["Rss"], pss + now["Pss"]
            peak += _numbers(f"/proc/{pid}/status")["VmHWM"]
    return Memory(rss / 1024, pss / 1024, peak / 1024)


def _numbers(path: str) -> dict[str, int]:
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return {parts[0].rstrip(":"): int(parts[1]) for parts in lines if len(parts) == 3 and parts[2] == "kB"}


def cpu_s(pids: Sequence[int]) -> float:
    """Seconds of processor time that they have used."""
    used = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
    return used / TICKS


def machine_cpu_s() -> float:
    """Seconds of processor time that the whole machine has used, what others on its host took included."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def has_torch(pids: Sequence[int]) -> bool:
    return any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in pids)


@dataclass(frozen=True)
class Contender:
    """A server to measure: its name in the table, and the command, to which `--port N` is added."""

    name: str
    command: tuple[str, ...]
    model: Path | None = None


class Server:
    """A running server; leaving the context stops it.

    `seconds` is how long it took from the start of the process to its first answer, `cpu_s` the processor time of that.
    """

    def __init__(self, contender: Contender, picture: bytes) -> None:
        self.port = _free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the server)
        command = [*contender.command, "--port", str(self.port)]
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        try:
            self._wait_for_an_answer(picture)
        except BaseException:
            self._stop()
            raise
        self.seconds = time.perf_counter() - started
        self.cpu_s = cpu_s(self.pids)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/invocations"

    @property
    def pids(self) -> list[int]:
        return tree(self.process.pid)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _wait_for_an_answer(self, picture: bytes) -> None:
        limit = time.perf_counter() + START_TIMEOUT_S
        while time.perf_counter() < limit:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with {self.process.returncode}:\n{self.log()[-2000:]}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_TIMEOUT_S)
            try:
                connection.request("POST", "/invocations", picture, {"Content-Type": "image/jpeg"})
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass  # it does not listen yet
            finally:
                connection.close()
            time.sleep(0.01)
        raise SystemExit(f"no answer within {START_TIMEOUT_S:.0f} s:\n{self.log()[-2000:]}")

    def _stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


# ------------------------------------------------------------------------------------------------ load


@dataclass
class Load:
    """What clients saw: milliseconds of each answered request and of its steps, seconds of all, other statuses."""

    ms: list[float] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    refused: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        return len(self.ms) / self.seconds

    @property
    def overheads(self) -> list[float]:
        """Milliseconds of each request that were neither decoding nor the network, the client's own included."""
        return [ms - steps["decode"] - steps["network"] for ms, steps in zip(self.ms, self.steps, strict=True)]


async def load(url: str, pictures: Sequence[bytes], clients: int, *, requests: int = 0, seconds: float = 0.0) -> Load:
    """Clients that each send the next picture when the last is answered: so many requests in all, or for so long."""
    seen = Load()
    sent = 0
    started = time.perf_counter()

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal sent
        while sent < requests if requests else time.perf_counter() < started + seconds:
            picture = pictures[sent % len(pictures)]
            sent += 1
            began = time.perf_counter()
            async with session.post(url, data=picture, headers={"Content-Type": "image/jpeg"}) as answer:
                await answer.read()
            ms = (time.perf_counter() - began) * 1e3
            if answer.status == 200:
                seen.ms.append(ms)
                seen.steps.append(_steps(answer.headers["Server-Timing"]))
            else:
                seen.refused[answer.status] += 1

    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    seen.seconds = time.perf_counter() - started
    return seen


def _steps(timing: str) -> dict[str, float]:
    """`queue;dur=0.12, decode;dur=…` as milliseconds by name."""
    parts = (part.split(";dur=") for part in timing.split(", "))
    return {name: float(value) for name, value in parts}


# ------------------------------------------------------------------------------------------------ measuring


@dataclass
class Measured:
    """One server in one round.

    start_s: from the start of the process to its first answer; start_cpu_s: the processor time of that.
    cpu_ms: processor time of the server for a request under load. others: cores that other work kept busy.
    bare_rate, bare_cpu_ms: pictures/s and processor time of decoding and network without a server.
    """

    start_s: float
    start_cpu_s: float
    single: Load
    loads: dict[int, Load]  # by number of clients
    memory: Memory
    cpu_ms: float
    torch: bool
    others: float
    bare_rate: float = 0.0
    bare_cpu_ms: float = 0.0


def measure(
    server: Server, pictures: Sequence[bytes], singles: int, clients: Sequence[int], seconds: float
) -> Measured:
    """Measures a running server."""
    asyncio.run(load(server.url, pictures, clients[0], requests=WARM_UP))
    wall, own, all_ = time.perf_counter(), cpu_s(server.pids) + time.process_time(), machine_cpu_s()
    single = asyncio.run(load(server.url, pictures, 1, requests=singles))
    before = cpu_s(server.pids)
    loads = {count: asyncio.run(load(server.url, pictures, count, seconds=seconds)) for count in clients}
    pids = server.pids
    used = cpu_s(pids)
    others = machine_cpu_s() - all_ - (used + time.process_time() - own)
    if refused := sum((seen.refused for seen in (single, *loads.values())), Counter()):
        raise SystemExit(f"the server answered {dict(refused)}:\n{server.log()[-2000:]}")
    return Measured(
        start_s=server.seconds,
        start_cpu_s=server.cpu_s,
        single=single,
        loads=loads,
        memory=memory_of(pids),
        cpu_ms=(used - before) / sum(len(seen.ms) for seen in loads.values()) * 1e3,
        torch=has_torch(pids),
        others=max(0.0, others / (time.perf_counter() - wall)),
    )


def bare(model: Path, folder: Path, seconds: float) -> tuple[float, float]:
    """Decoding and the network on all cores with no server around them: pictures/s, processor ms for each.

    In a process of its own, as PyTorch-free as the server's.
    """
    command = [sys.executable, __file__, "--step", "bare", "--data", str(folder), "--models", str(model)]
    done = subprocess.run([*command, "--seconds", str(seconds)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    rate, cpu_ms = map(float, done.stdout.split())
    return rate, cpu_ms


def run_bare(model_dir: Path, folder: Path, seconds: float) -> tuple[float, float]:
    """What `bare` runs: a thread for each core, each with a picture at a time."""
    from dogbreed.cpu import cpu_count
    from dogbreed.inference import Request, pixels_of
    from dogbreed.model import Model

    model = Model.load(model_dir, device="cpu")
    model = dataclasses.replace(model, extractor=dataclasses.replace(model.extractor, streams=cpu_count()))
    requests = [Request(path.read_bytes()) for path in sorted(folder.iterdir())]
    counts = [0] * cpu_count()
    model.extractor(pixels_of(requests[0], model)[None])  # makes the runtime that the threads share

    def work(number: int, end_s: float) -> None:
        while time.perf_counter() < end_s:
            request = requests[(number + counts[number]) % len(requests)]
            model.extractor(pixels_of(request, model)[None])
            counts[number] += 1

    def run(for_s: float) -> tuple[float, float]:
        counts[:] = [0] * len(counts)
        started, used = time.perf_counter(), time.process_time()
        threads = [threading.Thread(target=work, args=(n, started + for_s)) for n in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken, used = time.perf_counter() - started, time.process_time() - used
        return sum(counts) / taken, used / sum(counts) * 1e3

    run(0.5)
    return run(seconds)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others does not exceed; not a number where there are none."""
    return math.nan if not values else sorted(values)[min(len(values) - 1, int(share * len(values)))]


# ------------------------------------------------------------------------------------------------ pictures, models


def make_pictures(data: Path, size: str, count: int, folder: Path) -> list[bytes]:
    """JPEGs from all over the test split, upscaled to `size` (`WxH`, or `original` for the files as they are)."""
    from PIL import Image

    files = sorted((data / "test").rglob("*.jpg"))
    if not files:
        raise SystemExit(f"{data}/test has no pictures (*.jpg)")
    made: list[bytes] = []
    for path in files[:: max(1, len(files) // count)][:count]:
        picture = path.read_bytes()
        if size != "original":
            width, _, height = size.partition("x")
            larger = io.BytesIO()
            with Image.open(path) as small:
                scaled = small.convert("RGB").resize((int(width), int(height)), Image.Resampling.BICUBIC)
            scaled.save(larger, "JPEG", quality=90)
            picture = larger.getvalue()
        (folder / f"{len(made):04d}.jpg").write_bytes(picture)
        made.append(picture)
    return made


def make_models(data: Path, folder: Path) -> None:
    """Trains each backbone and writes `<backbone>-<precision>` for all that this machine runs faster than f32."""
    few = folder / "few"
    for backbone, weights, source in (("efficientnet_lite0", "auto", data), ("resnet50", "random", few)):
        if (folder / f"{backbone}.json").exists():
            continue
        if source == few:
            _few_pictures(data, few)
        model = folder / f"{backbone}-f32"
        command = [*DOGBREED, "train", str(source), "--backbone", backbone, "--weights", weights, "--solver", "ridge"]
        _run([*command, "--weight-decay", "1", "--out", str(model)])
        _run([sys.executable, __file__, "--step", "optimise", "--data", str(source), "--models", str(model)])


def run_optimise(model: Path, data: Path) -> None:
    """Copies of a model that compute in bf16 and int8, and what `dogbreed optimise` would choose."""
    import shutil

    from dogbreed.files import write_json
    from dogbreed.optimise import MAX_DROP, choose, optimise

    backbone, _, _ = model.name.partition("-")
    candidates = []
    for precision in PRECISIONS[1:]:
        other = model.with_name(f"{backbone}-{precision}")
        shutil.copytree(model, other, dirs_exist_ok=True)
        choice = optimise(other, data, max_drop=1.0, precisions=[precision])
        candidates += [c for c in choice.candidates if c not in candidates and c.precision not in PRECISIONS[:1]]
        if choice.chosen.precision != precision:
            shutil.rmtree(other)
            print(f"{precision} is not faster than f32 here: left out", file=sys.stderr)
    exact = choice.candidates[0]
    chosen = choose([exact, *candidates], MAX_DROP)
    measured = [dataclasses.asdict(c) for c in (exact, *candidates)]
    write_json(model.with_name(f"{backbone}.json"), {"chosen": chosen.precision, "measured": measured})


def _few_pictures(data: Path, folder: Path) -> None:
    for split, count in (("train", RESNET_PICTURES), ("valid", 1), ("test", 1)):
        for breed in sorted(path for path in (data / split).iterdir() if path.is_dir()):
            target = folder / split / breed.name
            target.mkdir(parents=True, exist_ok=True)
            for picture in sorted(breed.glob("*.jpg"))[:count]:
                with contextlib.suppress(FileExistsError):
                    (target / picture.name).symlink_to(picture.resolve())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed")


# ------------------------------------------------------------------------------------------------ tables


BASELINE = Contender("original recipe, ResNet-50", (sys.executable, str(HERE / "original_server.py")))


def contenders(models: Path, only: Sequence[str]) -> list[Contender]:
    found = [BASELINE]
    for backbone, title in (("resnet50", "ResNet-50"), ("efficientnet_lite0", "EfficientNet-Lite0")):
        chosen = json.loads((models / f"{backbone}.json").read_text())["chosen"]
        for precision in PRECISIONS:
            model = models / f"{backbone}-{precision}"
            if model.is_dir() and (not only or model.name in only):
                note = " (chosen)" if precision == chosen and backbone != "resnet50" else ""
                found.append(Contender(f"{title} {precision}{note}", (*DOGBREED, "serve", str(model)), model))
    return found


# Workers, threads of each, pictures in a batch.
VARIANTS = ((1, 2, 1), (1, 2, 4), (1, 2, 8), (1, 1, 1), (1, 1, 8), (2, 1, 1), (2, 1, 8))


def variants(models: Path) -> list[Contender]:
    chosen = json.loads((models / "efficientnet_lite0.json").read_text())["chosen"]
    model = models / f"efficientnet_lite0-{chosen}"
    found = []
    for workers, threads, batch in VARIANTS:
        options = ("--workers", str(workers), "--threads", str(threads), "--max-batch", str(batch))
        name = f"{workers} × {threads} threads, batches to {batch}"
        found.append(Contender(name, (*DOGBREED, "serve", str(model), *options), model))
    return found


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, with the lowest and the highest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def print_comparison(rounds: list[dict[str, Measured]], clients: int) -> None:
    base = [found[BASELINE.name] for found in rounds]
    print(
        f"\n| server | one request: p50 / p95 / p99, ms | p50 × baseline | {clients} clients: requests/s | × baseline"
        f" | p50 / p99 at {clients}, ms |\n|---|---|---|---|---|---|"
    )
    for name in rounds[0]:
        mine = [found[name] for found in rounds]
        single = [ms for m in mine for ms in m.single.ms]
        busy = [ms for m in mine for ms in m.loads[clients].ms]
        p50s = [median(m.single.ms) / median(b.single.ms) for m, b in zip(mine, base, strict=True)]
        rates = [m.loads[clients].rate / b.loads[clients].rate for m, b in zip(mine, base, strict=True)]
        print(
            f"| {name} | {median(single):.1f} / {quantile(single, 0.95):.1f} / {quantile(single, 0.99):.1f}"
            f" | {spread(p50s)} | {spread([m.loads[clients].rate for m in mine], 0)} | {spread(rates)}"
            f" | {median(busy):.0f} / {quantile(busy, 0.99):.0f} |"
        )
    print(
        "\n| server | overhead p50, ms | first answer after, s | processor s of that | memory, MiB (PSS / RSS / peak)"
        " | processor ms per request (decoding and network alone) | of the rate that these allow | PyTorch |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name in rounds[0]:
        mine = [found[name] for found in rounds]
        overhead = [median(m.single.overheads) for m in mine]
        shares = [m.loads[clients].rate / m.bare_rate for m in mine if m.bare_rate]
        alone = f" ({median(m.bare_cpu_ms for m in mine):.1f})" if shares else ""
        memory = [max(getattr(m.memory, kind) for m in mine) for kind in ("pss", "rss", "peak")]
        print(
            f"| {name} | {spread(overhead)} | {spread([m.start_s for m in mine], 1)}"
            f" | {median(m.start_cpu_s for m in mine):.1f}"
            f" | {' / '.join(f'{mb:.0f}' for mb in memory)} | {median(m.cpu_ms for m in mine):.1f}{alone}"
            f" | {f'{median(shares):.0%}' if shares else ''} | {'loaded' if mine[0].torch else 'not loaded'} |"
        )


def print_variants(rounds: list[dict[str, Measured]], clients: Sequence[int]) -> None:
    columns = [f"{count} clients: requests/s | p50 / p99, ms" for count in clients]
    print(f"\n| server | one request p50, ms | {' | '.join(columns)} | processor ms per request | memory, MiB PSS |")
    print("|---" * (4 + 2 * len(clients)) + "|")
    for name in rounds[0]:
        mine = [found[name] for found in rounds]
        cells = [f"{median(ms for m in mine for ms in m.single.ms):.1f}"]
        for count in clients:
            busy = [ms for m in mine for ms in m.loads[count].ms]
            cells.append(spread([m.loads[count].rate for m in mine], 0))
            cells.append(f"{median(busy):.0f} / {quantile(busy, 0.99):.0f}")
        cells += [spread([m.cpu_ms for m in mine], 1), f"{max(m.memory.pss for m in mine):.0f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def run(a: argparse.Namespace, models: Path, scratch: Path) -> None:
    before = machine.describe()
    make_models(a.data, models)
    pictures = make_pictures(a.data, a.size, a.pictures, scratch)
    servers = variants(models) if a.variants else contenders(models, a.only)
    clients = (8, 32) if a.variants else (8,)
    rounds: list[dict[str, Measured]] = []
    with contextlib.ExitStack() as running:
        # To start each anew in each round matters to starts only, and lets fewer rounds fit into the time.
        kept = {s.name: running.enter_context(Server(s, pictures[0])) for s in servers} if a.variants else {}
        for number in range(1, a.rounds + 1):
            found = {}
            for contender in servers:
                with contextlib.ExitStack() as started:
                    server = kept.get(contender.name) or started.enter_context(Server(contender, pictures[0]))
                    measured = measure(server, pictures, a.singles, clients, a.seconds)
                if contender.model and not a.variants:
                    measured.bare_rate, measured.bare_cpu_ms = bare(contender.model, scratch, a.seconds)
                found[contender.name] = measured
                rates = ", ".join(f"{seen.rate:.0f}/s" for seen in measured.loads.values())
                others = f"others {measured.others:.1f} cores"
                print(f"round {number}: {contender.name}: {rates}, {others}", file=sys.stderr)
            rounds.append(found)
    print(machine.as_markdown(before))
    average = sum(map(len, pictures)) / len(pictures) / 1024
    busy = [measured.others for found in rounds for measured in found.values()]
    print(
        f"\n{a.rounds} rounds; {len(pictures)} JPEGs of {a.size}, {average:.0f} KiB on average. Other work kept"
        f" {spread(busy, 1)} cores busy meanwhile."
    )
    if a.variants:
        print_variants(rounds, clients)
    else:
        print_comparison(rounds, clients[0])
    if a.json:
        record = [{name: dataclasses.asdict(m) for name, m in found.items()} for found in rounds]
        a.json.write_text(json.dumps({"machine": before, "rounds": record}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/, valid/ and test/")
    parser.add_argument(
        "--size", default="567x529", help="of the pictures sent; `original` sends the files as they are"
    )
    parser.add_argument("--pictures", type=int, default=64, help="how many different ones are sent in turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=50, help="requests one by one in each round")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load in each round")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="where models are kept for the next run")
    parser.add_argument("--only", nargs="+", default=[], metavar="MODEL", help="such as efficientnet_lite0-int8")
    parser.add_argument("--variants", action="store_true", help="compare settings of the server")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all that was measured there")
    parser.add_argument("--step", choices=("bare", "optimise"), help=argparse.SUPPRESS)  # runs in a process of its own
    a = parser.parse_args()
    if a.step == "bare":
        print(*run_bare(a.models, a.data, a.seconds))
    elif a.step == "optimise":
        run_optimise(a.models, a.data)
    else:
        with tempfile.TemporaryDirectory() as scratch, _kept(a.models) as models:
            run(a, models, Path(scratch))


@contextlib.contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    """The folder, or one that is gone afterwards."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="dogbreed-models-") as temporary:
            yield Path(temporary)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


if __name__ == "__main__":
    main()
