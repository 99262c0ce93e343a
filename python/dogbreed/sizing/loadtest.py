"""Finds the highest rate that a target sustains: open loop, rising steps, then halving the gap.

Open loop: pictures are sent when they are due (by default at random, as independent callers would), however slowly the
target answers. Latency counts from the moment a picture was due, so that a target that stalls does not hide the wait of
those behind it ("coordinated omission"), and neither does a load generator that falls behind.

A rate is sustained if the 99th percentile of the latency of its answers is within the objective, at most 0.1 % of the
requests fail (429 and 503 are failures), and 98 % of the offered rate is answered in time. What fails while the
generator itself fell behind says nothing about the target: the step does not count, and the result says so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import math
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dogbreed.errors import DogbreedError
from dogbreed.files import read_json, write_json
from dogbreed.sizing.recommend import SAFETY_FACTOR
from dogbreed.sizing.targets import OK, Target

ERROR_SHARE = 0.001
ANSWERED_SHARE = 0.98
PERCENTILE = 0.99
MOST_PICTURES, MOST_BYTES = 256, 64 * 2**20  # what is kept in memory
MAX_STEP_S = 120.0
HOPELESS_SHARE = 0.05  # of a step's requests too slow or failed: the rest of it would not change the verdict
FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """How the search is done; times in seconds, rates in requests per second.

    Required: `objective_ms`, the 99th percentile that is still good.
    Optional: where rates start and end, how long a step takes. A step lasts at least `step_s`, and as long as
    `min_requests` take (two minutes at most): of 1,000 requests ten are slower than the 99th percentile.
    """

    objective_ms: float = 500
    start_rate: float = 5
    max_rate: float = 1000
    growth: float = 1.6
    precision: float = 0.05
    step_s: float = 15
    min_requests: int = 1000
    warm_up_s: float = 5
    confirm_s: float = 60
    timeout_s: float = 10
    wait_s: float = 60
    arrivals: str = "poisson"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.arrivals not in ("poisson", "constant"):
            raise DogbreedError(f"--arrivals is {self.arrivals!r}", "Choose poisson or constant.")
        if self.start_rate > self.max_rate:
            raise DogbreedError(f"--start-rate {self.start_rate:g} is above --max-rate {self.max_rate:g}", "Swap them.")
        if self.timeout_s * 1000 <= self.objective_ms:
            raise DogbreedError("--timeout is within the objective", "Give it more seconds than the objective has.")

    def seconds(self, rate: float) -> float:
        return max(self.step_s, min(self.min_requests / rate, MAX_STEP_S))


@dataclass(frozen=True)
class Step:
    """One rate that was held. Latencies in ms, from when a request was due to its answer, of those that got one.

    offered, achieved: requests per second that were due, and that were answered within one objective of the step's end.
    throughput: answers per second during the step itself. p99_low, p99_high: 95 % interval of the p99; `p99_high` is
    None where too few requests bound it. late_ms: the 99th percentile of how late the generator sent. verdict: good,
    bad, generator (it fell behind) or stopped.
    """

    phase: str
    offered: float
    seconds: float
    sent: int
    answered: int
    errors: dict[str, int]
    achieved: float
    throughput: float
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p99_low: float | None
    p99_high: float | None
    max_ms: float | None
    late_ms: float
    verdict: str
    reason: str

    @property
    def error_share(self) -> float:
        return sum(self.errors.values()) / max(1, self.sent)


@dataclass(frozen=True)
class Result:
    """What was found. `sustained`: requests per second of all instances together, None if no rate was good.

    ended: objective (a higher rate was bad), max-rate, generator (it could not send faster) or stopped.
    """

    target: str
    settings: Settings
    instances: int
    steps: list[Step]
    sustained: float | None
    ended: str
    confirmed: bool
    started: str
    pictures: dict[str, Any] = field(default_factory=dict)

    @property
    def sustained_per_instance(self) -> float | None:
        return None if self.sustained is None else self.sustained / self.instances

    @property
    def at_sustained(self) -> Step | None:
        """The longest good step at the rate found."""
        good = [s for s in self.steps if s.verdict == "good" and s.offered == self.sustained]
        return max(good, key=lambda s: s.seconds, default=None)

    @property
    def at_target(self) -> Step | None:
        """The good step nearest to the load that auto-scaling keeps instances at."""
        good = [s for s in self.steps if s.verdict == "good"]
        target = (self.sustained or 0) * SAFETY_FACTOR
        return min(good, key=lambda s: abs(s.offered - target), default=None)

    def service(self) -> dict[str, float] | None:
        """One instance as a queue, for `simulate-scaling`: `parallel` workers of `service_s` seconds each.

        Little's law: at the capacity (the most answers per second seen) capacity × time of an undisturbed request are
        worked on at a time.
        """
        measured = [s for s in self.steps if s.p50_ms is not None and s.phase != "warm-up"]
        if not measured:
            return None
        undisturbed = min(measured, key=lambda s: s.offered).p50_ms or 0.0
        capacity = max(s.throughput for s in measured) / self.instances
        if capacity <= 0 or undisturbed <= 0:
            return None
        parallel = max(1, round(capacity * undisturbed / 1000))
        return {"parallel": parallel, "service_s": parallel / capacity, "capacity": capacity}

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **asdict(self),
            "sustained_per_instance": self.sustained_per_instance,
            "service": self.service(),
        }


def save(result: Result, path: Path) -> None:
    write_json(path, result.as_dict())


def load(path: Path) -> Result:
    """Reads what `save` wrote."""
    fix = "Write it with: dogbreed loadtest --out DIR"
    if path.is_dir():
        path = path / "loadtest.json"
    value = read_json(path, what="load test", fix=fix)
    try:
        if value["format"] != FORMAT:
            raise ValueError
        return Result(
            target=value["target"],
            settings=Settings(**value["settings"]),
            instances=value["instances"],
            steps=[Step(**step) for step in value["steps"]],
            sustained=value["sustained"],
            ended=value["ended"],
            confirmed=value["confirmed"],
            started=value["started"],
            pictures=value["pictures"],
        )
    except (KeyError, TypeError, ValueError):
        raise DogbreedError(f"{path} is not a load test of this version", fix) from None


# ---- pictures ----


def read_pictures(sources: Sequence[Path]) -> list[bytes]:
    """JPEG, PNG and WebP files, evenly chosen where there are more than fit into memory."""
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
        elif source.is_file():
            files.append(source)
        else:
            raise DogbreedError(f"There is no {source}", "Give pictures, or folders with some.")
    if not files:
        raise DogbreedError(f"There is no picture in {', '.join(map(str, sources))}", "Give JPEG, PNG or WebP files.")
    stride = max(1, len(files) / MOST_PICTURES)
    pictures, room = [], MOST_BYTES
    for k in range(min(len(files), MOST_PICTURES)):
        data = files[int(k * stride)].read_bytes()
        room -= len(data)
        if room < 0:
            break
        if data:
            pictures.append(data)
    if not pictures:
        raise DogbreedError("The pictures are empty or far too large", "Give pictures of at most some MB each.")
    return pictures


def draw_pictures(count: int = 24) -> list[bytes]:
    """Cartoon dogs of 256 to 768 pixels, 8 to 63 KB."""
    from dogbreed.data.cartoon import BREEDS, draw_jpeg

    sizes = (256, 384, 512, 640, 768)
    return [draw_jpeg(k % len(BREEDS), k, size_px=sizes[k % len(sizes)]) for k in range(count)]


def unlike(pictures: Sequence[bytes]) -> Iterator[bytes]:
    """The pictures over and over; JPEGs with a comment of random bytes, so that no cache has seen them before."""
    for picture in itertools.cycle(pictures):
        if picture.startswith(b"\xff\xd8\xff"):
            yield picture[:2] + b"\xff\xfe\x00\x22" + base64.b16encode(os.urandom(16)) + picture[2:]
        else:
            yield picture


# ---- statistics ----


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values."""
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def percentile_interval(ordered: Sequence[float], share: float, confidence: float = 0.95) -> tuple[float, float | None]:
    """A distribution-free interval of a percentile, by order statistics.

    How many of n values lie below the true percentile is binomially distributed; the interval is between the values
    of those ranks. The upper end is None where n is too small for one: for a p99 at 95 %, below 368 values.
    """
    from scipy.stats import binom

    count = len(ordered)
    tail = (1 - confidence) / 2
    low = int(binom.ppf(tail, count, share))
    high = int(binom.ppf(1 - tail, count, share)) + 1
    return ordered[max(0, low - 1)], ordered[high - 1] if high <= count else None


# ---- one step ----


class _Stopped(Exception):
    """Ctrl-C."""


class _Bench:
    """Sends at a given rate and measures; one for the whole test."""

    def __init__(self, target: Target, pictures: Sequence[bytes], settings: Settings, stop: asyncio.Event) -> None:
        import numpy as np

        self.target, self.settings, self.stop = target, settings, stop
        self.pictures = unlike(pictures)
        self.rng = np.random.default_rng(settings.seed)

    def due(self, rate: float, seconds: float) -> list[float]:
        """When requests are due, in seconds: as many as the rate asks, evenly or at random (Poisson given how many)."""
        count = max(1, round(rate * seconds))
        if self.settings.arrivals == "constant":
            return [k / rate for k in range(count)]
        return sorted(self.rng.uniform(0, seconds, count).tolist())

    async def hold(self, rate: float, seconds: float, phase: str, advance: Callable[[int, str], None]) -> Step:
        """Offers `rate` for `seconds`, waits for the last answers, and judges."""
        clock = time.perf_counter
        dues = self.due(rate, seconds)
        objective_s = self.settings.objective_ms / 1000
        latencies: list[float] = []
        late: list[float] = []
        errors: Counter[str] = Counter()
        finished: list[float] = []
        slow = sent = 0
        cut_short = False
        waiting: set[asyncio.Task[None]] = set()
        begin = clock() + 0.02

        async def one(due: float) -> None:
            nonlocal slow
            outcome = await self.target.send(next(self.pictures))
            now = clock()
            if outcome != OK:
                errors[outcome] += 1
                return
            latencies.append(now - due)
            finished.append(now)
            slow += now - due > objective_s

        hopeless = max(50, HOPELESS_SHARE * len(dues))
        for k, offset in enumerate(dues):
            due = begin + offset
            await self._until(due)
            if self.stop.is_set():
                break
            if slow + sum(errors.values()) > hopeless:
                cut_short = True
                break
            late.append(clock() - due)
            sent += 1
            if len(waiting) >= self.target.workers:
                errors["no free connection"] += 1
            else:
                task = asyncio.ensure_future(one(due))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            if k % 64 == 63:
                advance(64, f"{len(waiting)} open")
        elapsed = seconds if not cut_short and not self.stop.is_set() else max(1e-9, clock() - begin)
        await self._drain(waiting)
        within = sum(moment <= begin + elapsed for moment in finished)
        in_time = within if cut_short else sum(moment <= begin + elapsed + objective_s for moment in finished)
        unanswered = sent - len(latencies) - sum(errors.values())
        if unanswered and not self.stop.is_set():
            errors["timeout"] += unanswered
        elif unanswered:
            sent -= unanswered
        return self._step(phase, rate, elapsed, sent, latencies, late, errors, in_time, within, cut_short)

    async def _until(self, due: float) -> None:
        while not self.stop.is_set():
            left = due - time.perf_counter()
            if left <= 0:
                await asyncio.sleep(0)  # answers are read also while sending is behind
                return
            await asyncio.sleep(min(left, 0.25))

    async def _drain(self, waiting: set[asyncio.Task[None]]) -> None:
        if waiting and not self.stop.is_set():
            stopping = asyncio.ensure_future(self.stop.wait())
            everything = asyncio.ensure_future(asyncio.wait(waiting, timeout=self.settings.timeout_s + 1))
            await asyncio.wait({everything, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        rest = list(waiting)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _step(
        self,
        phase: str,
        rate: float,
        seconds: float,
        sent: int,
        latencies: list[float],
        late: list[float],
        errors: Counter[str],
        in_time: int,
        within: int,
        cut_short: bool,
    ) -> Step:
        ordered = sorted(1000 * value for value in latencies)
        low, high = percentile_interval(ordered, PERCENTILE) if ordered else (None, None)
        at = {share: percentile(ordered, share) if ordered else None for share in (0.5, 0.9, PERCENTILE)}
        late_ms = 1000 * percentile(sorted(late), PERCENTILE) if late else 0.0
        step = Step(
            phase=phase, offered=rate, seconds=round(seconds, 3), sent=sent, answered=len(ordered),
            errors=dict(errors.most_common()), achieved=in_time / seconds, throughput=within / seconds,
            mean_ms=statistics.fmean(ordered) if ordered else None,
            p50_ms=at[0.5], p90_ms=at[0.9], p99_ms=at[PERCENTILE], p99_low=low, p99_high=high,
            max_ms=ordered[-1] if ordered else None, late_ms=late_ms, verdict="good", reason="",
        )  # fmt: skip
        verdict, reason = judge_step(step, self.settings, stopped=self.stop.is_set())
        return Step(**{**asdict(step), "verdict": verdict, "reason": reason + (", cut short" if cut_short else "")})


def judge_step(step: Step, settings: Settings, *, stopped: bool = False) -> tuple[str, str]:
    """The verdict on a step, and why it is not good.

    A step that is good although the generator was late is good: the lateness is in its latencies already.
    """
    if stopped:
        return "stopped", "stopped"
    reasons = []
    if step.error_share > ERROR_SHARE:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in step.errors.items())
        reasons.append(f"{step.error_share:.1%} failed ({kinds})")
    if step.p99_ms is None or step.p99_ms > settings.objective_ms:
        reasons.append("no answer" if step.p99_ms is None else f"p99 {step.p99_ms:.0f} ms")
    if not reasons and step.achieved < ANSWERED_SHARE * step.offered:
        reasons.append(f"only {step.achieved:.1f}/s answered")
    if not reasons:
        return "good", ""
    if step.late_ms > max(5.0, 0.1 * settings.objective_ms) or "no free connection" in step.errors:
        return "generator", f"the load generator could not keep up ({step.late_ms:.0f} ms late)"
    return "bad", "; ".join(reasons)


# ---- the search ----


def run(
    target: Target,
    pictures: Sequence[bytes],
    settings: Settings,
    *,
    instances: int = 1,
    say: Callable[[str], None] = lambda _: None,
    report: Callable[[Step], None] = lambda _: None,
) -> Result:
    """Searches the highest sustained rate. Ctrl-C (or SIGTERM) ends it early with what was measured.

    Args:
        instances: how many answer behind the target; the rate per instance is the sustained one divided by them.
        say, report: told what happens, and of each step as it ends.

    Raises:
        DogbreedError: the target cannot be used at all.
    """
    return asyncio.run(_run(target, pictures, settings, instances, say, report))


async def _run(
    target: Target,
    pictures: Sequence[bytes],
    settings: Settings,
    instances: int,
    say: Callable[[str], None],
    report: Callable[[Step], None],
) -> Result:
    stop = asyncio.Event()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    search = _Search(_Bench(target, pictures, settings, stop), settings, report)
    with _stop_on_signals(stop):
        await target.open(settings.timeout_s)
        try:
            ready = asyncio.ensure_future(target.get_ready(pictures[0], settings.wait_s, say))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not ready.done():
                ready.cancel()
                raise KeyboardInterrupt
            await ready
            with contextlib.suppress(_Stopped):
                await search.go()
        finally:
            await target.close()
    sizes = [len(p) for p in pictures]
    return Result(
        target=target.where,
        settings=settings,
        instances=instances,
        steps=search.steps,
        sustained=search.sustained,
        ended=search.ended,
        confirmed=search.confirmed,
        started=started,
        pictures={"count": len(sizes), "mean_bytes": round(statistics.fmean(sizes)), "max_bytes": max(sizes)},
    )


@contextlib.contextmanager
def _stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
            former = signal.getsignal(number)
            loop.add_signal_handler(number, stop.set)
            handled.append((number, former))
    try:
        yield
    finally:
        for number, former in handled:
            loop.remove_signal_handler(number)
            signal.signal(number, former)


class _Search:
    """Steps so far and what follows from them."""

    def __init__(self, bench: _Bench, settings: Settings, report: Callable[[Step], None]) -> None:
        self.bench, self.settings, self.report = bench, settings, report
        self.steps: list[Step] = []
        self.sustained: float | None = None
        self.ended = "stopped"
        self.confirmed = False

    async def go(self) -> None:
        settings = self.settings
        if settings.warm_up_s:
            await self._hold(settings.start_rate, settings.warm_up_s, "warm-up")
        good, bad = await self._rise()
        if good is None:
            good, bad = await self._fall(bad)
        while good is not None and bad is not None and bad / good - 1 > settings.precision:
            middle = round(math.sqrt(good * bad), 4)
            if middle in (good, bad):
                break
            step = await self._hold(middle, settings.seconds(middle), "halve")
            if step.verdict == "good":
                good = self.sustained = middle
            else:
                bad = middle
                self._bounded_by(step)
        await self._confirm()

    async def _rise(self) -> tuple[float | None, float | None]:
        """(highest good rate, lowest bad rate) of geometrically rising steps."""
        rate, good = self.settings.start_rate, None
        while True:
            step = await self._hold(rate, self.settings.seconds(rate), "rise")
            if step.verdict != "good":
                self._bounded_by(step)
                return good, rate
            good = self.sustained = rate
            if rate >= self.settings.max_rate:
                self.ended = "max-rate"
                return good, None
            rate = min(round(rate * self.settings.growth, 2), self.settings.max_rate)

    async def _fall(self, bad: float | None) -> tuple[float | None, float | None]:
        """The same downwards, where even the first rate was too much; gives up at a hundredth of it."""
        rate = self.settings.start_rate
        while rate > self.settings.start_rate / 100:
            rate = round(rate / 2, 3)
            step = await self._hold(rate, self.settings.seconds(rate), "fall")
            if step.verdict == "good":
                self.sustained = rate
                return rate, bad
            bad = rate
        return None, bad

    async def _confirm(self) -> None:
        """Holds the found rate once more and longer; one that fails is lowered by 5 %, four times at most.

        After that the highest rate counts that was held well, and below all that failed.
        """
        if not self.settings.confirm_s or self.sustained is None:
            return
        rate = self.sustained
        for _ in range(5):
            self.sustained = rate
            step = await self._hold(rate, max(self.settings.confirm_s, self.settings.seconds(rate)), "confirm")
            if step.verdict == "good":
                self.confirmed = True
                return
            self._bounded_by(step)
            rate = round(rate * 0.95, 3)
        failed = min(step.offered for step in self.steps if step.verdict != "good")
        held = [step.offered for step in self.steps if step.verdict == "good" and step.offered < failed]
        self.sustained = max(held, default=None)

    def _bounded_by(self, step: Step) -> None:
        self.ended = "generator" if step.verdict == "generator" else "objective"

    async def _hold(self, rate: float, seconds: float, phase: str) -> Step:
        from dogbreed.console import progress

        for _ in range(2):  # once more where the generator was at fault: something else may have wanted the processor
            with progress(f"{rate:g}/s", round(rate * seconds), unit="requests") as advance:
                step = await self.bench.hold(rate, seconds, phase, advance)
            if step.verdict != "generator" or phase == "warm-up":
                break
        if phase != "warm-up":
            self.steps.append(step)
            self.report(step)
        if step.verdict == "stopped":
            self.ended = "stopped"
            raise _Stopped
        if step.verdict != "good":  # a queue that was filled is empty by then
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.bench.stop.wait(), 1.0)
        return step
