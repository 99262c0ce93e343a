"""Load for half an hour on `dogbreed serve`: does its memory stay flat, does it ever answer 500?

    python benchmarks/soak.py --model MODEL --data DIR [--minutes 30] [--rate 20] [--plot soak.png]

Requests of all kinds arrive at random at a steady rate, whatever the server does with those before: pictures of
several sizes and formats, broken ones, JSON, addresses that it must not fetch; and once a minute far more at once than
it takes in hand. Prints what was answered in each minute, and the memory of all its processes; exits with 1 if that
grew by more than `--bound` after it settled, if an answer had a status that its request should not get, or if a
process died.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import aiohttp
from serving import DOGBREED, Contender, Memory, Server, cpu_s, memory_of, quantile

import machine

SAMPLE_EVERY_S = 5.0
BURST = 200  # requests at once, three times the queue
BURST_EVERY_S = 60.0
TIMEOUT_S = 60.0
JPEG, JSON = "image/jpeg", "application/json"


# ------------------------------------------------------------------------------------------------ requests


@dataclass(frozen=True)
class Kind:
    """One kind of request: how often it comes, its content type, the statuses it may get, and bodies to choose from."""

    name: str
    share: float
    content_type: str
    statuses: frozenset[int]
    bodies: tuple[bytes, ...]


def create_kinds(files: Sequence[Path]) -> list[Kind]:
    """The mix, made of these pictures. A full queue may answer any of them 429."""
    pictures = [path.read_bytes() for path in files]
    photographs = tuple(_as(p, "JPEG", (567, 529)) for p in pictures)
    small = tuple(pictures)
    kinds = [
        ("photograph, 567x529", 0.50, JPEG, {200}, photographs),
        ("small photograph", 0.10, JPEG, {200}, small),
        ("large photograph, 1600x1200", 0.06, JPEG, {200}, tuple(_as(p, "JPEG", (1600, 1200)) for p in pictures[:8])),
        ("from a camera, 4000x3000", 0.01, JPEG, {200}, tuple(_as(p, "JPEG", (4000, 3000)) for p in pictures[:3])),
        ("PNG, also with transparency", 0.04, "image/png", {200}, tuple(
            _as(p, "PNG", (567, 529), mode) for p in pictures[:4] for mode in ("RGB", "RGBA", "L", "P"))),
        ("WebP", 0.03, "image/webp", {200}, tuple(_as(p, "WEBP", (567, 529)) for p in pictures[:8])),
        ("JSON with a picture", 0.06, JSON, {200}, tuple(_in_json(p, top_k=3) for p in photographs)),
        ("JSON, all classes, details", 0.06, JSON, {200}, tuple(
            _in_json(p, top_k="all", details=True) for p in photographs)),
        ("address that is not public", 0.04, JSON, {422}, tuple(json.dumps({"url": u}).encode() for u in ADDRESSES)),
        ("cut off", 0.03, JPEG, {422}, tuple(p[: len(p) // 2] for p in photographs)),
        ("not a picture", 0.03, JPEG, {422}, (
            b"", b"GIF89a", b"\xff\xd8\xff" + bytes(1000), random.Random(0).randbytes(5000))),
        ("too many pixels", 0.01, "image/png", {422}, (_bomb(),)),
        ("wrong JSON", 0.02, JSON, {400}, (b"{", b"[]", b'{"image": 1}', b'{"image": "%"}', b"[" * 100_000)),
        ("wrong type", 0.01, "text/plain", {415}, (b"a dog",)),
    ]  # fmt: skip
    return [Kind(name, share, kind, frozenset(good), bodies) for name, share, kind, good, bodies in kinds]


ADDRESSES = (
    "http://127.0.0.1:8080/ping",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://[::ffff:10.0.0.1]/a.jpg",
    "http://10.0.0.1/a.jpg",
    "file:///etc/passwd",
)


def _as(picture: bytes, file_format: str, size: tuple[int, int], mode: str = "RGB") -> bytes:
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as small:
        small.convert("RGB").resize(size, Image.Resampling.BICUBIC).convert(mode).save(out, file_format)
    return out.getvalue()


def _in_json(picture: bytes, **options: object) -> bytes:
    return json.dumps({"image": base64.b64encode(picture).decode(), **options}).encode()


def _bomb() -> bytes:
    """A small file of 400 million pixels."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    return out.getvalue()


# ------------------------------------------------------------------------------------------------ load


@dataclass
class Minute:
    """What was answered in one minute: statuses, milliseconds of the steady requests answered 200."""

    statuses: Counter[int] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)


@dataclass
class Sample:
    """The server at one time: seconds since the load began, its memory, the processor time that it has used."""

    at_s: float
    memory: Memory
    cpu_s: float


class Soak:
    """The load, and what came of it. wrong: answers that a request should not get, by kind and status."""

    def __init__(self, server: Server, kinds: Sequence[Kind], rate: float, minutes: int) -> None:
        self.server, self.kinds, self.rate, self.end_s = server, kinds, rate, minutes * 60
        self.minutes = [Minute() for _ in range(minutes)]
        self.samples: list[Sample] = []
        self.wrong: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[str] = Counter()
        self.pids = set(server.pids)
        self._rng = random.Random(0)
        self._started = 0.0

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        self._started = time.perf_counter()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(self._steady(session), self._bursts(session), self._watch())

    @property
    def _now(self) -> float:
        return time.perf_counter() - self._started

    async def _steady(self, session: aiohttp.ClientSession) -> None:
        """Requests at random times: the gaps are exponential, so that some come together."""
        tasks: set[asyncio.Task[None]] = set()
        at = 0.0
        while (at := at + self._rng.expovariate(self.rate)) < self.end_s:
            await asyncio.sleep(at - self._now)
            kind = self._rng.choices(self.kinds, [k.share for k in self.kinds])[0]
            task = asyncio.create_task(self._send(session, kind, timed=True))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _bursts(self, session: aiohttp.ClientSession) -> None:
        at = BURST_EVERY_S / 2
        while at < self.end_s:
            await asyncio.sleep(at - self._now)
            await asyncio.gather(*(self._send(session, self.kinds[0], timed=False) for _ in range(BURST)))
            at += BURST_EVERY_S

    async def _watch(self) -> None:
        at = 0.0
        while at <= self.end_s:
            await asyncio.sleep(at - self._now)
            pids = self.server.pids
            self.samples.append(Sample(self._now, memory_of(pids), cpu_s(pids)))
            at += SAMPLE_EVERY_S

    async def _send(self, session: aiohttp.ClientSession, kind: Kind, *, timed: bool) -> None:
        minute = self.minutes[min(int(self._now / 60), len(self.minutes) - 1)]
        self.counts[kind.name] += 1
        began = time.perf_counter()
        try:
            body, headers = self._rng.choice(kind.bodies), {"Content-Type": kind.content_type}
            async with session.post(self.server.url, data=body, headers=headers) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, TimeoutError, asyncio.TimeoutError) as error:
            self.wrong[kind.name, type(error).__name__] += 1
            return
        minute.statuses[answer.status] += 1
        if answer.status == 200 and timed:
            minute.ms.append((time.perf_counter() - began) * 1e3)
        expected = "predictions" if answer.status == 200 else "error"
        if answer.status not in kind.statuses | {429} or expected not in json.loads(text):
            self.wrong[kind.name, str(answer.status)] += 1


# ------------------------------------------------------------------------------------------------ results


def slope(samples: Sequence[Sample]) -> tuple[float, float]:
    """MiB per hour by least squares through the means of each minute, and half the width of its 95 % interval.

    Samples some seconds apart are not independent of each other; means of a minute nearly are.
    """
    from scipy import stats

    minutes: dict[int, list[float]] = {}
    for sample in samples:
        minutes.setdefault(int(sample.at_s / 60), []).append(sample.memory.rss)
    fit = stats.linregress([m / 60 for m in minutes], [fmean(values) for values in minutes.values()])
    return float(fit.slope), float(fit.stderr * stats.t.ppf(0.975, len(minutes) - 2))


def print_results(soak: Soak, settle_s: float, bound: float) -> list[str]:
    """Prints the tables; what is wrong, in a line each."""
    print("\n| minute | answers | of them 200 / 429 / other | p50 / p99 of the steady requests, ms | memory, MiB RSS |")
    print("|---|---|---|---|---|")
    for number, minute in enumerate(soak.minutes):
        rss = [s.memory.rss for s in soak.samples if int(s.at_s / 60) == number]
        ok, full = minute.statuses[200], minute.statuses[429]
        print(
            f"| {number + 1} | {minute.statuses.total()} | {ok} / {full} / {minute.statuses.total() - ok - full}"
            f" | {quantile(minute.ms, 0.5):.0f} / {quantile(minute.ms, 0.99):.0f} | {fmean(rss):.0f} |"
        )
    settled = [s for s in soak.samples if s.at_s >= settle_s]
    third = max(1, len(settled) // 3)
    first, last = settled[:third], settled[-third:]
    growth = fmean(s.memory.rss for s in last) - fmean(s.memory.rss for s in first)
    print(f"\n| memory after {settle_s / 60:g} minutes, MiB | first third | last third |\n|---|---|---|")
    for name, value in MEMORY.items():
        print(f"| {name} | {fmean(map(value, first)):.1f} | {fmean(map(value, last)):.1f} |")
    for name, part in (("from then on", settled), ("without the first third of that", settled[third:])):
        if part[-1].at_s - part[0].at_s > 5 * 60:
            per_hour, half = slope(part)
            print(f"\nSlope of RSS {name}: {per_hour:+.1f} ± {half:.1f} MiB/hour.")
    total = sum((minute.statuses for minute in soak.minutes), Counter())
    print(f"\nAnswers: {', '.join(f'{n:,} × {status}' for status, n in sorted(total.items()))}.")
    print(f"Requests: {', '.join(f'{n:,} × {name}' for name, n in soak.counts.most_common())}.")
    used, wall = soak.samples[-1].cpu_s - soak.samples[0].cpu_s, soak.samples[-1].at_s - soak.samples[0].at_s
    print(
        f"The server kept {used / wall:.2f} cores busy on average; its peak was {soak.samples[-1].memory.peak:.0f} MiB."
    )

    wrong = [f"{n} × {kind}: {what}" for (kind, what), n in soak.wrong.items()]
    if any(status >= 500 for status in total):
        wrong.append("an answer had a status of 500 or more")
    if growth > bound:
        wrong.append(f"memory grew by {growth:.1f} MiB from the first third to the last, more than {bound:g}")
    if set(soak.server.pids) != soak.pids:
        wrong.append("a process of the server died and was replaced")
    print(f"\nGrowth from the first third to the last: {growth:+.1f} MiB (at most {bound:g} is flat).")
    print("\n".join(wrong) if wrong else "Nothing was wrong: memory flat, no answer that should not be.")
    return wrong


MEMORY: dict[str, Callable[[Sample], float]] = {
    "RSS": lambda sample: sample.memory.rss,
    "PSS": lambda sample: sample.memory.pss,
}


def plot(soak: Soak, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(9, 6), layout="constrained")
    for name, value in MEMORY.items():
        top.plot([s.at_s / 60 for s in soak.samples], [value(s) for s in soak.samples], label=name)
    top.set(ylabel="memory of all processes, MiB", ylim=(0, None), title="dogbreed serve under steady load")
    top.legend()
    minutes = [number + 0.5 for number in range(len(soak.minutes))]
    for share in (0.5, 0.99):
        bottom.plot(minutes, [quantile(m.ms, share) for m in soak.minutes], marker=".", label=f"p{share * 100:.0f}")
    bottom.set(xlabel="minutes", ylabel="time of an answer, ms", yscale="log")
    bottom.yaxis.set_major_formatter("{x:g}")
    bottom.yaxis.set_minor_formatter("{x:g}")
    bottom.legend()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model directory")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with a test/ of pictures")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second, without the bursts")
    parser.add_argument("--settle", type=float, default=3.0, help="minutes after which memory should not grow")
    parser.add_argument("--bound", type=float, default=20.0, help="MiB that memory may grow by")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw memory and times over the run")
    a = parser.parse_args()
    files = sorted((a.data / "test").rglob("*.jpg"))
    if not files:
        parser.error(f"{a.data}/test has no pictures (*.jpg)")
    if a.minutes <= a.settle + 1:
        parser.error("--minutes must be at least one more than --settle")
    kinds = create_kinds(files[:: max(1, len(files) // 32)][:32])
    print(machine.as_markdown(machine.describe()), flush=True)
    with Server(Contender("dogbreed serve", (*DOGBREED, "serve", str(a.model))), kinds[0].bodies[0]) as server:
        soak = Soak(server, kinds, a.rate, a.minutes)
        asyncio.run(soak.run())
        wrong = print_results(soak, a.settle * 60, a.bound)
    if a.plot:
        plot(soak, a.plot)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
