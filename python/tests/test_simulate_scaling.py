"""The simulation of scaling policies: queues as theory has them, policies as AWS describes them, and the command."""

from __future__ import annotations

import heapq
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from runs import dogbreed, one_line

from dogbreed.errors import DogbreedError
from dogbreed.sizing import command, recommend
from dogbreed.sizing.simulate import (
    Instance,
    Policy,
    Traffic,
    policies,
    queue_waits,
    scale,
    service_times,
    simulate,
)
from dogbreed.sizing.traffic import Floats, generate, read_csv

ENDLESS = 1e9


def poisson_arrivals(rate: float, count: int, seed: int = 0) -> Floats:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def by_events(arrivals: Floats, work: Floats, workers: int, queue: float) -> tuple[Floats, int]:
    """The plain way: each request takes the first free worker, or is refused where `queue` wait. Latencies, refused."""
    free = [0.0] * workers
    starts: list[float] = []  # of those who wait
    latencies, refused = [], 0
    for now, service in zip(arrivals.tolist(), work.tolist(), strict=True):
        while starts and starts[0] <= now:
            heapq.heappop(starts)
        if free[0] > now and len(starts) >= queue:
            refused += 1
            continue
        begin = max(now, heapq.heappop(free))
        if begin > now:
            heapq.heappush(starts, begin)
        heapq.heappush(free, begin + service)
        latencies.append(begin + service - now)
    return np.array(latencies), refused


# ---- queues ----


@pytest.mark.parametrize("cv, factor", [(1, 1), (0, 0.5)])
@pytest.mark.parametrize("busy", [0.5, 0.8])
def test_mean_waits_are_those_of_queueing_theory(cv: float, factor: float, busy: float) -> None:
    """Pollaczek and Khinchine: the mean wait of M/M/1 is ρ/(1 − ρ) services, of M/D/1 half of that."""
    instance = Instance(service_s=0.1, cv=cv)
    arrivals = poisson_arrivals(busy / 0.1, 400_000)
    waits, refused = queue_waits(arrivals, service_times(np.random.default_rng(1), len(arrivals), instance), ENDLESS)
    assert not refused.any()
    assert waits.mean() == pytest.approx(factor * busy / (1 - busy) * 0.1, rel=0.05)


@pytest.mark.parametrize("busy", [0.3, 0.95, 1.2])
@pytest.mark.parametrize("cv", [0, 1])
def test_one_worker_without_refusals_is_exact(busy: float, cv: float) -> None:
    arrivals = poisson_arrivals(busy / 0.1, 5000, seed=3)
    work = service_times(np.random.default_rng(4), 5000, Instance(0.1, cv=cv))
    waits, _ = queue_waits(arrivals, work, ENDLESS)
    expected, _ = by_events(arrivals, work, 1, math.inf)
    np.testing.assert_allclose(waits + work, expected, atol=1e-9)


def one_fleet(rate: float, instance: Instance, seconds: int = 1800) -> tuple[Floats, Floats, float]:
    """Latencies by the simulation and by events of one instance that nothing is added to; and both shares refused."""
    traffic = Traffic("test", np.full(seconds, rate))
    outcome = simulate(traffic, [Policy(ENDLESS, 300, 300, 1, 1)], instance, seed=5)[0]
    arrivals = traffic.arrivals(5)
    work = service_times(np.random.default_rng([5, 1]), len(arrivals), instance)
    latencies, refused = by_events(arrivals, work, instance.parallel, instance.queue)
    return (
        np.array([outcome.p50_ms, outcome.p99_ms, outcome.errors]),
        np.array([*np.quantile(latencies, [0.5, 0.99]) * 1000, refused]),
        len(arrivals),
    )


@pytest.mark.parametrize("busy", [0.4, 0.8, 0.97])
@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_workers_that_take_turns_are_exact_with_a_constant_service(parallel: int, busy: float) -> None:
    instance = Instance(0.1, parallel=parallel, queue=10**6)
    ours, events, _ = one_fleet(busy * instance.capacity, instance)
    np.testing.assert_allclose(ours, events, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parallel, queue", [(1, 16), (1, 64), (2, 64), (4, 32)])
@pytest.mark.parametrize("busy", [1.1, 1.5, 3])
def test_an_overloaded_instance_refuses_as_many_as_one_of_events(parallel: int, queue: int, busy: float) -> None:
    instance = Instance(0.1, parallel=parallel, queue=queue)
    ours, events, count = one_fleet(busy * instance.capacity, instance)
    assert ours[2] / count == pytest.approx(events[2] / count, abs=0.01)
    np.testing.assert_allclose(ours[:2], events[:2], rtol=0.12)


def test_a_deadline_bounds_the_wait() -> None:
    instance = Instance(0.1, queue=10**6, deadline_s=2)
    ours, _, count = one_fleet(20, instance)
    assert 2000 <= ours[1] <= 2250 and ours[2] / count == pytest.approx(0.5, abs=0.02)


def test_requests_spread_over_all_instances() -> None:
    """Twice the rate on two instances with random routing is the same queue as one of each."""
    one = simulate(Traffic("a", np.full(3600, 8.0)), [Policy(ENDLESS, 300, 300, 1, 1)], Instance(0.1))[0]
    two = simulate(Traffic("b", np.full(3600, 16.0)), [Policy(ENDLESS, 300, 300, 2, 2)], Instance(0.1))[0]
    assert two.p99_ms == pytest.approx(one.p99_ms, rel=0.15)
    assert two.instance_hours == 2 * one.instance_hours == 2


# ---- policies ----


def fleet_of(rates: Floats, policy: Policy, **settings: float) -> tuple[list[int], list[int]]:
    """Instances paid and serving by minute, for arrivals without chance."""
    times = np.concatenate([[s + k / max(1, round(r)) for k in range(round(r))] for s, r in enumerate(rates)])
    fleet = scale(times, len(rates), policy, **settings)  # type: ignore[arg-type]
    return fleet.desired[::60].tolist(), fleet.serving[::60].tolist()


def steps(*pieces: tuple[int, float]) -> Floats:
    """Rates of (minutes, requests per second)."""
    return np.concatenate([np.full(minutes * 60, float(rate)) for minutes, rate in pieces])


def test_instances_are_added_after_three_minutes_and_serve_after_their_start() -> None:
    paid, serving = fleet_of(steps((10, 2), (20, 8)), Policy(240, 300, 360, 1, 10), start_s=240)
    # 8/s are 480 a minute against 240: two. The three minutes 10, 11, 12 are known after the 13th.
    assert paid[:14] == [1] * 14 and paid[14] == 2
    assert serving[17] == 1 and serving[18] == 2
    assert max(paid) == 2


def test_a_cooldown_shorter_than_the_start_adds_for_the_same_load_again() -> None:
    load = steps((10, 2), (30, 8))
    assert max(fleet_of(load, Policy(240, 300, 360, 1, 10), start_s=240)[0]) == 2
    assert max(fleet_of(load, Policy(240, 300, 45, 1, 10), start_s=240)[0]) == 10
    once = scale(np.arange(0, 2400, 1 / 8), 2400, Policy(240, 300, 45, 1, 10), start_s=240, one_change_at_a_time=True)
    assert once.desired.max() <= 4


def test_the_recommended_cooldown_is_the_shortest_that_does_not() -> None:
    load = steps((10, 2), (30, 8))
    for start_s in (120, 240, 300):
        enough = recommend.scale_out_cooldown_s(start_s)
        assert max(fleet_of(load, Policy(240, 300, enough, 1, 10), start_s=start_s)[0]) == 2
        assert max(fleet_of(load, Policy(240, 300, enough - 60, 1, 10), start_s=start_s)[0]) > 2


def test_a_larger_need_does_not_wait_for_the_cooldown() -> None:
    paid, _ = fleet_of(steps((10, 2), (5, 8), (20, 24)), Policy(240, 300, 3600, 1, 10), start_s=240)
    assert paid[14] == 2
    assert paid[17] == 6  # 24/s are 1,440 a minute; what was added counts as part of the six


def test_instances_go_after_fifteen_quiet_minutes_and_one_cooldown_apart() -> None:
    load = steps((10, 16), (60, 7))
    paid, serving = fleet_of(load, Policy(240, 600, 300, 1, 10))
    assert paid[0] == 4
    first = paid.index(2)
    assert first == 26  # minutes 10 to 24 are known after the 26th
    assert serving[first] == 2  # at once
    assert min(paid) == 2  # 7/s are 210 a minute and instance, within 10 % of the target
    short, _ = fleet_of(load, Policy(240, 10, 300, 1, 10))
    assert min(short) == 1  # the metric of four instances is applied to the two that are left


def test_a_little_below_the_target_nothing_happens() -> None:
    paid, _ = fleet_of(steps((90, 15)), Policy(240, 10, 10, 4, 10))  # 225 a minute, above 216
    assert set(paid) == {4}


def test_without_requests_the_module_s_own_alarm_takes_instances_away() -> None:
    load = steps((10, 16), (120, 0))
    paid, _ = fleet_of(load, Policy(240, 300, 300, 1, 10))
    assert paid[24] == 4 and paid[-1] == 1
    taken = [a - b for a, b in itertools.pairwise(paid) if a != b]
    assert taken == [1, 1, 1]


def test_limits_hold() -> None:
    paid, _ = fleet_of(steps((5, 1), (30, 40), (40, 1)), Policy(60, 10, 10, 2, 5))
    assert min(paid) == 2 and max(paid) == 5


def test_the_same_cooldowns_below_a_minute_do_the_same() -> None:
    traffic = generate("daily", base_rate=0.5, peak_rate=12, hours=24)
    ten, forty_five = simulate(
        traffic, policies([100], [10, 45], None, min_instances=1, max_instances=8), Instance(0.08)
    )
    np.testing.assert_array_equal(ten.fleet.desired, forty_five.fleet.desired)


def test_cost_is_that_of_the_instances_paid() -> None:
    outcome = simulate(
        Traffic("c", np.full(7200, 1.0)), [Policy(ENDLESS, 300, 300, 3, 3)], Instance(0.1), usd_per_hour=0.2
    )[0]
    assert outcome.instance_hours == 6
    assert outcome.usd_per_month == pytest.approx(3 * 0.2 * 730)


def test_bad_minutes_are_those_of_the_overload() -> None:
    load = steps((20, 2), (10, 20), (20, 2))
    outcome = simulate(
        Traffic("d", load), [Policy(ENDLESS, 300, 300, 1, 1)], Instance(0.1, queue=32), objective_ms=500
    )[0]
    bad = np.flatnonzero((outcome.minute_p99_ms > 500) | (outcome.minute_errors > 0.001))
    assert bad.tolist() in (list(range(20, 30)), list(range(20, 31)))
    assert outcome.bad_minutes == len(bad) / 50
    assert outcome.errors / outcome.requests == pytest.approx(0.5 * 12_000 / 16_800, abs=0.02)


def test_minutes_are_summed_up_correctly() -> None:
    traffic = Traffic("e", np.concatenate([np.full(60, 3.0), np.zeros(60), np.full(60, 5.0)]))
    outcome = simulate(traffic, [Policy(ENDLESS, 300, 300, 1, 1)], Instance(0.05))[0]
    assert np.isnan(outcome.minute_p99_ms[1]) and outcome.minute_p50_ms[0] == pytest.approx(50)
    written = json.loads(json.dumps(outcome.as_dict(), allow_nan=False))
    assert written["minutes"]["p99_ms"][1] is None and written["requests"] == outcome.requests


# ---- traffic ----


def test_traffic_that_is_made_up() -> None:
    daily = generate("daily", base_rate=1, peak_rate=9, hours=24)
    assert daily.rates.argmin() == 4 * 3600 and daily.rates.argmax() == 16 * 3600
    assert (daily.rates.min(), daily.rates.max()) == (1, 9)
    spike = generate("spike", base_rate=1, peak_rate=9, hours=2, spike_minutes=20)
    assert (spike.rates == 9).sum() == pytest.approx(18 * 60, abs=2) and spike.rates[3590] == 1 == spike.rates[4900]
    assert (generate("step", base_rate=1, peak_rate=9, hours=2).rates == 9).mean() == 0.5
    assert set(generate("constant", base_rate=1, peak_rate=9, hours=1).rates) == {9}


def test_arrivals_are_poisson_and_repeatable() -> None:
    traffic = generate("constant", base_rate=0, peak_rate=50, hours=1)
    arrivals = traffic.arrivals(7)
    assert np.array_equal(arrivals, traffic.arrivals(7)) and (np.diff(arrivals) >= 0).all()
    gaps = np.diff(arrivals)
    assert len(arrivals) == pytest.approx(180_000, rel=0.01) and gaps.std() == pytest.approx(gaps.mean(), rel=0.02)


def test_a_file_of_rates_and_a_file_of_counts(tmp_path: Path) -> None:
    rates = tmp_path / "rates.csv"
    rates.write_text("time_s,requests_per_s\n0,2\n60,4\n120,1\n")
    assert read_csv(rates).rates.tolist() == [2.0] * 60 + [4.0] * 60 + [1.0] * 60
    counts = tmp_path / "counts.csv"
    counts.write_text("region,timestamp,requests\nx,2026-11-01T10:00:00Z,120\nx,2026-11-01T10:01:00Z,30\n\n")
    assert read_csv(counts).rates.tolist() == pytest.approx([2.0] * 60 + [0.5] * 60)
    fine = tmp_path / "fine.csv"
    fine.write_text("timestamp,requests\n100.0,3\n100.5,1\n101.0,2\n101.5,2\n")
    assert read_csv(fine).rates.tolist() == pytest.approx([4, 4])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no such columns"),
        ("time,rate\n0,1\n", "no such columns"),
        ("time_s,requests_per_s\n0,1\n", "fewer than two rows"),
        ("time_s,requests_per_s\n0,1\nx,2\n", "Line 3 .* not two numbers: 'x,2'"),
        ("time_s,requests_per_s\n0,1\n60\n", "Line 3"),
        ("time_s,requests_per_s\n0,1\n0,2\n", "Line 3 .* not later"),
        ("time_s,requests_per_s\n0,-1\n60,2\n", "Line 2 .* no usable number"),
        ("time_s,requests_per_s\n0,nan\n60,2\n", "Line 2 .* no usable number"),
        ("time_s,requests_per_s\n0,0\n60,0\n", "no request in the trace"),
        ("time_s,requests_per_s\n0,1\n9999999,1\n", "days"),
        ("time_s,requests_per_s\n0,1e9\n60,1\n", "million requests"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(DogbreedError, match=message):
        read_csv(path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DogbreedError, match="no CSV file"):
        read_csv(path)


# ---- the command ----


def test_the_original_projects_values_are_compared(tmp_path: Path) -> None:
    done = dogbreed(
        "simulate-scaling", "--target", "30,50", "--target", "100", "--cooldown", "10,30,45,300", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (
        "30 invocations a minute, one every 2 s" in done.stdout
        and "30 a second would be a target of 1800" in done.stdout
    )
    assert "Cooldowns of 10, 30 and 45 s are the same" in done.stdout
    assert "240 s to start" in done.stdout
    found = json.loads((tmp_path / "runs/scaling/scaling.json").read_text())
    assert len(found["policies"]) == 12
    cost = {(p["policy"]["target"], p["policy"]["scale_in_cooldown_s"]): p["usd_per_month"] for p in found["policies"]}
    assert cost[30, 300] > cost[50, 300] > cost[100, 300]
    assert (tmp_path / "runs/scaling/scaling.png").read_bytes().startswith(b"\x89PNG")


def test_cooldowns_of_both_directions_are_combined(tmp_path: Path) -> None:
    done = dogbreed(
        "simulate-scaling", "--traffic", "spike", "--hours", "2", "--scale-out-cooldown", "60,360",
        "--scale-in-cooldown", "300", "--out", tmp_path, "--price", "0.5", "--max-instances", "9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "scaling.json").read_text())
    pairs = [(p["policy"]["scale_out_cooldown_s"], p["policy"]["scale_in_cooldown_s"]) for p in found["policies"]]
    assert pairs == [(60, 300), (360, 300)] and found["usd_per_hour"] == 0.5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--traffic", "nothing.csv"), "There is no file nothing.csv. Give a CSV file or one of: daily"),
        (("--traffic", "weekly"), "There is no traffic 'weekly'. Give a CSV file or one of: daily"),
        (("--target", "thirty"), "--target is 'thirty'. Give numbers"),
        (("--target", "0"), "--target is '0'. Give numbers above 0"),
        (("--base-rate", "20"), "--base-rate 20 is above --peak-rate 10. Swap them."),
        (("--min-instances", "4"), "--min-instances 4 is above --max-instances 3. Swap them."),
        (("--instance-type", "ml.x.large"), "There is no price of ml.x.large here. Give it as --price"),
        (("--measured", "nowhere"), "There is no load test at nowhere. Write it with: dogbreed loadtest"),
    ],
)
def test_mistakes_are_answered_with_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = dogbreed("simulate-scaling", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and one_line(done.stderr).startswith(message)


def test_remarks_come_only_where_they_belong() -> None:
    sound = policies([300], [360], None, min_instances=1, max_instances=3)
    assert command.remarks(sound, Instance(0.08)) == []
    too_high = policies([1800], [360], None, min_instances=1, max_instances=3)
    assert "more than an instance answers (750)" in command.remarks(too_high, Instance(0.08))[0]


def test_a_month_long_comparison_of_many_requests_is_fast_enough(tmp_path: Path) -> None:
    """A day with 1.7 million requests and 12 policies: 5 s here, and never minutes."""
    traffic = generate("daily", base_rate=1, peak_rate=40, hours=24)
    found = simulate(
        traffic, policies([30, 50, 100], [10, 30, 45, 300], None, min_instances=1, max_instances=4), Instance(0.05)
    )
    assert [o.requests for o in found] == [found[0].requests] * 12 and found[0].requests > 1_700_000


def test_the_defaults_are_those_of_the_endpoint_s_module() -> None:
    text = (Path(__file__).parents[2] / "terraform" / "modules" / "endpoint" / "variables.tf").read_text()

    def default(name: str) -> float:
        found = re.search(rf'variable "{name}" {{.*?\n  default +=  ?(\S+)', text, re.DOTALL)
        assert found
        return float(found[1])

    assert default("invocations_per_instance") == command.DEFAULT_TARGET
    assert default("scale_in_cooldown_s") == command.DEFAULT_SCALE_IN_COOLDOWN_S
    assert default("scale_out_cooldown_s") == command.DEFAULT_SCALE_OUT_COOLDOWN_S


def test_during_a_cooldown_what_has_come_into_service_counts() -> None:
    """A load that goes on growing is followed as the new instances serve, however long the cooldown."""
    minutes = 90
    rate = np.where(np.arange(minutes) < 30, 4.0, np.where(np.arange(minutes) < 45, 20.0, 45.0))  # requests a second
    arrivals = np.concatenate([m * 60 + np.arange(int(r * 60)) / r for m, r in enumerate(rate)])
    fleet = scale(arrivals, minutes * 60, Policy(300, 300, 3600, 1, 20), start_s=240)
    assert fleet.desired[-1] >= 9, "45 requests a second are 2,700 a minute: nine times the target"
