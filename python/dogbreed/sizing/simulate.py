"""What a scaling policy makes of a trace of traffic: instances, latency, errors, cost.

What of AWS is modelled, and after which source:

- The metric `SageMakerVariantInvocationsPerInstance`: the invocations of a minute ÷ instances in service, also those
  invocations that are refused. CloudWatch shows it `metric_delay_s` after the minute.
- Target tracking: Application Auto Scaling makes two alarms. High: 3 of 3 minutes above the target. Low: 15 of 15
  minutes below 0.9 × the target (https://repost.aws/questions/QUf450Wsd9RROGGOIwaolN9w/sagemaker-autoscaling-delay).
  While an alarm is on, the policy acts every minute and wants ceil(capacity × metric ÷ target), between minimum and
  maximum (userguide/target-tracking-scaling-policy-overview.html under docs.aws.amazon.com/autoscaling/application).
- Cooldown after a scale-out: until it ends, what was just added counts as part of what is wanted, so only a need that
  is larger still adds more. Then the capacity that was ordered is the basis, whether it serves yet or not: while it
  does not, the metric is still that of the old instances, and the same load adds instances a second time.
- Cooldown after a scale-in: nothing more is taken away until it ends; a scale-out is not held up and ends it.
- Without invocations there is no metric and target tracking rests; the module's own alarm for that case (no request in
  three times 5 minutes) takes away one instance at a time, with the scale-in cooldown between.
- A new instance answers `start_s` after it was ordered and is paid from the order on; one that is taken away gets no
  new requests, finishes what it has, and is paid no more.
- SageMaker sends each request to an instance chosen at random, its default.

An instance is `parallel` workers that take turns, a service time with a mean and a coefficient of variation, and a
queue: who finds it full is refused (429), and so is who would wait longer than the deadline. The queue of every
instance is computed request by request, not by a formula of queueing theory. That is exact for one worker, and for more
with a constant service time, as long as none is refused; of refusals the number is right, and which ones approximate.

Left out: the time on the network; failing instances; slower service right after a start; that AWS may take instances
away more gradually than the formula says; and that SageMaker's endpoint is `Updating` while instances start. AWS does
not say whether a policy can add more meanwhile; `one_change_at_a_time` supposes that it cannot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dogbreed.sizing import prices
from dogbreed.sizing.traffic import Floats, Traffic

Ints = npt.NDArray[np.int64]

MINUTE_S = 60
HIGH_MINUTES, LOW_MINUTES, LOW_SHARE = 3, 15, 0.9
QUIET_MINUTES = 15  # three periods of 300 s, in modules/endpoint/autoscaling.tf
QUIET_PERIOD_MINUTES = 5
ERROR_SHARE = 0.001  # more in a minute is as bad as a p99 above the objective


@dataclass(frozen=True)
class Policy:
    """Target tracking: `target` in invocations per minute and instance, cooldowns in seconds."""

    target: float
    scale_in_cooldown_s: float
    scale_out_cooldown_s: float
    min_instances: int = 1
    max_instances: int = 3

    @property
    def label(self) -> str:
        both = f"{self.scale_out_cooldown_s:g}"
        if self.scale_in_cooldown_s != self.scale_out_cooldown_s:
            both = f"out {self.scale_out_cooldown_s:g}, in {self.scale_in_cooldown_s:g}"
        return f"target {self.target:g}, cooldown {both} s"


@dataclass(frozen=True)
class Instance:
    """One instance: `parallel` workers of `service_s` seconds per request with coefficient of variation `cv`.

    queue: requests that may wait; one more is refused. deadline_s: longest wait; SageMaker ends a request after 60 s.
    """

    service_s: float
    parallel: int = 1
    cv: float = 0.0
    queue: int = 64
    deadline_s: float = 60.0
    start_s: float = 240.0

    @property
    def capacity(self) -> float:
        """Requests per second at most."""
        return self.parallel / self.service_s

    @property
    def longest_wait_s(self) -> float:
        return min(self.deadline_s, self.queue * self.service_s / self.parallel)


@dataclass(frozen=True, eq=False)
class Fleet:
    """`desired`, `serving`: (seconds,) int64, instances that are paid and that answer. Actions count scaling steps."""

    desired: Ints
    serving: Ints
    scale_outs: int
    scale_ins: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one policy makes of a trace; per-minute arrays are (minutes,), NaN where nobody asked."""

    policy: Policy
    fleet: Fleet
    requests: int
    errors: int
    p50_ms: float
    p99_ms: float
    bad_minutes: float
    instance_hours: float
    usd_per_month: float
    minute_p50_ms: Floats = field(repr=False)
    minute_p99_ms: Floats = field(repr=False)
    minute_errors: Floats = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        def listed(values: Floats, digits: int) -> list[float | None]:
            return [None if math.isnan(v) else round(float(v), digits) for v in values]

        def number(value: float) -> float | None:
            return None if math.isnan(value) else round(value, 3)

        return {
            "policy": asdict(self.policy),
            "requests": self.requests,
            "errors": self.errors,
            "error_share": self.errors / max(1, self.requests),
            "p50_ms": number(self.p50_ms),
            "p99_ms": number(self.p99_ms),
            "share_of_bad_minutes": self.bad_minutes,
            "most_instances": int(self.fleet.desired.max()),
            "scale_outs": self.fleet.scale_outs,
            "scale_ins": self.fleet.scale_ins,
            "instance_hours": self.instance_hours,
            "usd_per_month": self.usd_per_month,
            "minutes": {
                "instances_paid": self.fleet.desired[::MINUTE_S].tolist(),
                "instances_serving": self.fleet.serving[::MINUTE_S].tolist(),
                "p50_ms": listed(self.minute_p50_ms, 2),
                "p99_ms": listed(self.minute_p99_ms, 2),
                "error_share": listed(self.minute_errors, 5),
            },
        }


def simulate(
    traffic: Traffic,
    policies: Sequence[Policy],
    instance: Instance,
    *,
    objective_ms: float = 500,
    usd_per_hour: float = 0.115,
    metric_delay_s: float = 60,
    one_change_at_a_time: bool = False,
    seed: int = 0,
) -> list[Outcome]:
    """Plays the same requests against every policy."""
    arrivals = traffic.arrivals(seed)
    rng = np.random.default_rng([seed, 1])
    where = rng.random(len(arrivals))
    work = service_times(rng, len(arrivals), instance)
    outcomes = []
    for policy in policies:
        fleet = scale(
            arrivals,
            traffic.seconds,
            policy,
            start_s=instance.start_s,
            metric_delay_s=metric_delay_s,
            one_change_at_a_time=one_change_at_a_time,
        )
        latency = _latencies(arrivals, where, work, fleet.serving, instance)
        outcomes.append(_outcome(traffic, arrivals, latency, policy, fleet, objective_ms, usd_per_hour))
    return outcomes


def service_times(rng: np.random.Generator, count: int, instance: Instance) -> Floats:
    """(count,) seconds: constant for cv 0, exponential for cv 1, gamma distributed in general."""
    if instance.cv == 0:
        return np.full(count, instance.service_s)
    shape = 1 / instance.cv**2
    return rng.gamma(shape, instance.service_s / shape, count)


# ---- the policy ----


def scale(
    arrivals: Floats,
    seconds: int,
    policy: Policy,
    *,
    start_s: float = 240,
    metric_delay_s: float = 60,
    one_change_at_a_time: bool = False,
) -> Fleet:
    """How many instances there are in each second; it depends on when requests come, not on how they fare."""
    minutes = math.ceil(seconds / MINUTE_S)
    invocations = np.bincount((arrivals // MINUTE_S).astype(np.int64), minlength=minutes)
    delay = math.ceil(metric_delay_s / MINUTE_S)
    first = math.ceil(invocations[0] / policy.target)  # as if it had been so before
    capacity = min(policy.max_instances, max(policy.min_instances, first))
    desired = np.full(minutes * MINUTE_S, capacity, np.int64)
    serving = desired.copy()
    out_until = in_until = starting_until = 0.0
    scale_outs = scale_ins = 0
    metric = np.full(minutes, np.nan)
    for minute in range(minutes):
        now = (minute + 1) * MINUTE_S  # the minute has ended; CloudWatch knows those that ended `delay` ago
        in_service = serving[minute * MINUTE_S : now].mean()
        if invocations[minute]:
            metric[minute] = invocations[minute] / in_service
        last = minute - delay
        if last < 0 or now >= len(desired):
            continue
        # During a cooldown what was just added does not count, but for what of it already serves.
        counted = serving[last * MINUTE_S : (last + 1) * MINUTE_S].mean()
        basis = capacity if now >= out_until else counted
        if one_change_at_a_time and now < starting_until:
            continue
        more, wanted = _wanted(metric[: last + 1], policy, basis)
        if more and wanted > capacity:
            scale_outs += 1
            out_until, in_until = now + policy.scale_out_cooldown_s, 0.0
            starting_until = now + start_s
            ready = min(len(desired), math.ceil(now + start_s))
            serving[ready:] = np.maximum(serving[ready:], wanted)
            desired[now:] = wanted
            capacity = wanted
            continue
        if not more and _quiet(invocations[: last + 1], minute):
            wanted = capacity - 1
        if not more and policy.min_instances <= wanted < capacity and now >= in_until:
            scale_ins += 1
            in_until = now + policy.scale_in_cooldown_s
            desired[now:] = wanted
            serving[now:] = np.minimum(serving[now:], wanted)
            capacity = wanted
    return Fleet(desired[:seconds], serving[:seconds], scale_outs, scale_ins)


def _wanted(metric: Floats, policy: Policy, basis: float) -> tuple[bool, int]:
    """Whether the high alarm is on, and how many instances target tracking asks for (without an alarm, too many)."""
    now = metric[-1]
    high = metric[-HIGH_MINUTES:]
    low = metric[-LOW_MINUTES:]
    # A minute without data is NaN, and no comparison with NaN is true: the alarm stays off.
    is_high = len(high) == HIGH_MINUTES and bool((high > policy.target).all())
    is_low = len(low) == LOW_MINUTES and bool((low < LOW_SHARE * policy.target).all())
    if not is_high and not is_low:
        return False, policy.max_instances + 1
    wanted = math.ceil(basis * now / policy.target - 1e-9)
    return is_high, min(policy.max_instances, max(policy.min_instances, wanted))


def _quiet(invocations: Ints, minute: int) -> bool:
    recent = invocations[-QUIET_MINUTES:]
    return len(recent) == QUIET_MINUTES and not recent.any() and minute % QUIET_PERIOD_MINUTES == 0


# ---- the queues ----


def _latencies(arrivals: Floats, where: Floats, work: Floats, serving: Ints, instance: Instance) -> Floats:
    """(N,) seconds from arrival to answer; infinite for those who were refused."""
    active = serving[arrivals.astype(np.int64)]
    chosen = (where * active).astype(np.int64)
    latency = np.empty(len(arrivals))
    order = np.argsort(chosen, kind="stable")  # by instance, in each by time
    for mine in np.split(order, np.searchsorted(chosen[order], np.arange(1, serving.max()))):
        for lane in range(instance.parallel):
            turn = mine[lane :: instance.parallel]
            wait, refused = queue_waits(arrivals[turn], work[turn], instance.longest_wait_s)
            latency[turn] = np.where(refused, np.inf, wait + work[turn])
    return latency


def queue_waits(arrivals: Floats, work: Floats, longest_wait_s: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """First come, first served at one worker.

    The work that waits at an arrival follows from that at the one before: v' = max(min(v + work, most) − gap, 0). Such
    steps are of the form v' = min(max(v + a, low), high), and one after the other they are of that form again. So
    blocks of requests are composed side by side, then entered in turn: √N steps of NumPy instead of N of Python.

    Args:
        arrivals: (N,) seconds, ascending. work: (N,) seconds of service.
        longest_wait_s: who would wait longer is refused.

    Returns:
        (N,) waits in seconds, and (N,) whether refused.
    """
    count = len(arrivals)
    if count == 0:
        return np.zeros(0), np.zeros(0, np.bool_)
    most = longest_wait_s + float(work.mean())  # work in the queue just after the last who was let in
    gaps = np.diff(arrivals, append=arrivals[-1])
    size = max(1, math.isqrt(count))
    blocks = -(-count // size)
    padded = np.zeros((2, blocks * size))
    padded[0, :count], padded[1, :count] = work, gaps
    steps = padded.reshape(2, blocks, size)

    shift, low, high = np.zeros(blocks), np.full(blocks, -np.inf), np.full(blocks, np.inf)
    for k in range(size):  # what each block as a whole does to the work it finds
        for change, floor, ceiling in ((steps[0, :, k], -np.inf, most), (-steps[1, :, k], 0.0, np.inf)):
            shift = shift + change
            low = np.clip(low + change, floor, ceiling)
            high = np.clip(high + change, floor, ceiling)
    entering = np.zeros(blocks)
    for b in range(1, blocks):
        entering[b] = min(max(entering[b - 1] + shift[b - 1], low[b - 1]), high[b - 1])

    found = np.empty((size, blocks))
    over = np.empty((size, blocks))
    v = entering
    for k in range(size):
        found[k] = v
        v = v + steps[0, :, k]
        over[k] = np.maximum(v - most, 0)
        v = np.maximum(v - over[k] - steps[1, :, k], 0)
    waits = found.T.reshape(-1)[:count]
    # Work that did not fit adds up to whole requests: each time it does, this one is refused.
    spilled = np.cumsum(over.T.reshape(-1)[:count] / np.maximum(work, 1e-12))
    refused = np.diff(np.floor(spilled + 1e-9), prepend=0.0) > 0
    return waits, refused


# ---- what came of it ----


def _outcome(
    traffic: Traffic,
    arrivals: Floats,
    latency: Floats,
    policy: Policy,
    fleet: Fleet,
    objective_ms: float,
    usd_per_hour: float,
) -> Outcome:
    minutes = math.ceil(traffic.seconds / MINUTE_S)
    minute = (arrivals // MINUTE_S).astype(np.int64)
    answered = np.isfinite(latency)
    counts = np.bincount(minute, minlength=minutes)
    with np.errstate(invalid="ignore"):
        errors = np.bincount(minute[~answered], minlength=minutes) / np.where(counts, counts, np.nan)
    ms = latency[answered] * 1000
    p50, p99 = _percentiles(ms, minute[answered], minutes, (0.5, 0.99))
    bad = (p99 > objective_ms) | (errors > ERROR_SHARE)
    hours = float(fleet.desired.sum()) / 3600
    return Outcome(
        policy=policy,
        fleet=fleet,
        requests=len(arrivals),
        errors=int((~answered).sum()),
        p50_ms=float(np.quantile(ms, 0.5)) if len(ms) else math.nan,
        p99_ms=float(np.quantile(ms, 0.99)) if len(ms) else math.nan,
        bad_minutes=float(bad.sum() / max(1, (counts > 0).sum())),
        instance_hours=hours,
        usd_per_month=prices.monthly(hours / (traffic.seconds / 3600), usd_per_hour),
        minute_p50_ms=p50,
        minute_p99_ms=p99,
        minute_errors=errors,
    )


def _percentiles(values: Floats, group: Ints, groups: int, shares: Sequence[float]) -> list[Floats]:
    """Per group the nearest-rank percentiles; NaN for an empty one. `group` is ascending."""
    edges = np.searchsorted(group, np.arange(groups + 1))
    counts = np.diff(edges)
    in_order = np.concatenate([np.sort(values[a:b]) for a, b in itertools.pairwise(edges)])
    found = []
    for share in shares:
        rank = edges[:-1] + np.maximum(np.ceil(share * counts).astype(np.int64) - 1, 0)
        found.append(
            np.where(counts > 0, in_order[np.minimum(rank, len(values) - 1)] if len(values) else np.nan, np.nan)
        )
    return found


def policies(
    targets: Sequence[float],
    scale_in: Sequence[float],
    scale_out: Sequence[float] | None,
    *,
    min_instances: int,
    max_instances: int,
) -> list[Policy]:
    """Every target with every cooldown; without `scale_out` both cooldowns are the same."""
    base = Policy(1, 1, 1, min_instances, max_instances)
    pairs = [(s, s) for s in scale_in] if scale_out is None else [(i, o) for o in scale_out for i in scale_in]
    return [replace(base, target=t, scale_in_cooldown_s=i, scale_out_cooldown_s=o) for t in targets for i, o in pairs]
