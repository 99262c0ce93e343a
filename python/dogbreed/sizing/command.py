"""What `dogbreed loadtest` and `dogbreed simulate-scaling` do and print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from dogbreed.console import err, out
from dogbreed.errors import DogbreedError
from dogbreed.files import write_json
from dogbreed.sizing import loadtest, prices, recommend, simulate
from dogbreed.sizing.simulate import Instance, Outcome, Policy
from dogbreed.sizing.targets import Endpoint, Function, Server, Target
from dogbreed.sizing.traffic import KINDS, Traffic, generate, read_csv

# What `endpoint` in terraform/modules/endpoint/variables.tf has where nothing is set, and an instance that fits it.
DEFAULT_TARGET, DEFAULT_SCALE_IN_COOLDOWN_S, DEFAULT_SCALE_OUT_COOLDOWN_S = 300.0, 300.0, 360.0
DEFAULT_OBJECTIVE_MS = 500.0
DEFAULT_SERVICE_MS = 80.0


# ---- load test ----


def choose_target(url: str | None, endpoint: str | None, function: str | None, connections: int) -> Target:
    given = [value for value in (url, endpoint, function) if value]
    if len(given) > 1:
        raise DogbreedError("More than one target is given", "Give one: a URL, --endpoint NAME or --function NAME.")
    if endpoint:
        return Endpoint(endpoint, connections)
    if function:
        return Function(function, connections)
    return Server(url or "http://127.0.0.1:8080")


def ask_about_cost(target: Target, settings: loadtest.Settings, yes: bool) -> None:
    """Ends the command unless somebody agrees to load what costs money and may have other callers."""
    if yes or not target.remote:
        return
    import typer

    question = (
        f"Send up to {settings.max_rate:g} requests/s to {target.where} on AWS? It costs money, and others may use it."
    )
    if not sys.stdin.isatty():
        raise DogbreedError("Nobody can be asked here whether to load AWS, so nothing was sent", "Add --yes.")
    if not typer.confirm(question):
        raise DogbreedError("Nothing was sent", "Run the same command again to do it.")


def load_test(
    target: Target,
    settings: loadtest.Settings,
    *,
    pictures: Sequence[Path],
    folder: Path,
    instances: int,
    expected_rate: float | None,
    instance_type: str,
    usd_per_hour: float | None,
    start_s: float,
    yes: bool,
) -> bool:
    """Runs, prints, writes loadtest.json and loadtest.png; False if it was stopped before its end."""
    price = prices.instance_price(instance_type, usd_per_hour)
    ask_about_cost(target, settings, yes)
    data = loadtest.read_pictures(pictures) if pictures else loadtest.draw_pictures()
    folder.mkdir(parents=True, exist_ok=True)  # before minutes are spent
    mean_kb = sum(map(len, data)) / len(data) / 1000
    out.print(
        f"{target.where}: {len(data)} pictures, {mean_kb:.0f} KB on average; sustained means p99 ≤ "
        f"{settings.objective_ms:g} ms and at most {loadtest.ERROR_SHARE:.1%} failed.",
        markup=False,
    )
    out.print(
        f"{'requests/s':>10} {'answered/s':>10} {'p50 ms':>8} {'p99 ms':>8}   {'95 % interval':<15} {'failed':>7}  "
    )
    result = loadtest.run(
        target,
        data,
        settings,
        instances=instances,
        say=lambda text: err.print(text, markup=False, soft_wrap=True),
        report=lambda step: out.print(_line(step), markup=False, soft_wrap=True),
    )
    loadtest.save(result, folder / "loadtest.json")
    if any(s.p99_ms is not None for s in result.steps):
        from dogbreed.sizing.plots import plot_load_test

        plot_load_test(folder / "loadtest.png", result)
    out.print("\n" + _verdict(result), markup=False, soft_wrap=True)
    if result.sustained_per_instance:
        _print_plan(result, expected_rate, instance_type, price, start_s, is_function=isinstance(target, Function))
        if isinstance(target, Server):
            out.print(
                f"The rate is that of the machine behind {target.where}: the values fit {instance_type} only if that "
                "is as fast. Load the endpoint itself with --endpoint NAME before you rely on them.\n",
                markup=False,
                soft_wrap=True,
            )
    written = [path for path in (folder / "loadtest.json", folder / "loadtest.png") if path.exists()]
    out.print(f"Written: {', '.join(map(str, written))}", markup=False, soft_wrap=True)
    return result.ended != "stopped"


def _line(step: loadtest.Step) -> str:
    def ms(value: float | None) -> str:
        return "–" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"

    interval = "–" if step.p99_low is None else f"{ms(step.p99_low)} to {ms(step.p99_high) if step.p99_high else '?'}"
    verdict = "good" if step.verdict == "good" else step.reason
    note = " (confirmed)" if step.phase == "confirm" and step.verdict == "good" else ""
    return (
        f"{step.offered:>10.1f} {step.achieved:>10.1f} {ms(step.p50_ms):>8} {ms(step.p99_ms):>8}   {interval:<15} "
        f"{step.error_share:>7.2%}  {verdict}{note}"
    )


def _verdict(result: loadtest.Result) -> str:
    if result.sustained is None:
        return "No rate was sustained." + (" Stopped before its end." if result.ended == "stopped" else "")
    words = f"Sustained: {result.sustained:.1f} requests/s"
    if result.instances > 1:
        words += f" by {result.instances} instances, {result.sustained_per_instance:.1f} by each"
    words += " (held again, and longer)." if result.confirmed else " (not confirmed by a longer run)."
    return words + {
        "generator": " The load generator could not send faster: the target may sustain more. Try another machine.",
        "max-rate": " That is --max-rate: the target sustains more.",
        "stopped": " Stopped before its end: the target may sustain more.",
    }.get(result.ended, "")


def _print_plan(
    result: loadtest.Result,
    expected_rate: float | None,
    instance_type: str,
    price: float,
    start_s: float,
    *,
    is_function: bool,
) -> None:
    rate = result.sustained_per_instance
    usual, hardest = result.at_target, result.at_sustained
    assert rate is not None
    mean_s = (usual.mean_ms if usual and usual.mean_ms else result.settings.objective_ms) / 1000
    slow_s = (hardest.p99_ms if hardest and hardest.p99_ms else result.settings.objective_ms) / 1000
    extra = 0.0 if is_function else recommend.FETCH_S

    def plans(expected: float) -> tuple[recommend.EndpointPlan, recommend.FunctionPlan]:
        endpoint = recommend.plan_endpoint(
            rate,
            expected_rate=expected,
            objective_ms=result.settings.objective_ms,
            instance_type=instance_type,
            usd_per_hour=price,
            start_s=start_s,
        )
        return endpoint, recommend.plan_function(
            expected_rate=expected, call_s=mean_s + extra, slow_call_s=slow_s + extra
        )

    table = Table(box=None, pad_edge=False)
    for name in ("busiest\nrequests/s", "instances\nmin to max", f"{instance_type}\nUSD a month", "Lambda\nat a time",
                 "provisioned,\nreserved", "Lambda\nUSD a month"):  # fmt: skip
        table.add_column(name, justify="right")
    for expected in [expected_rate] if expected_rate else recommend.usual_rates(rate):
        e, f = plans(expected)
        table.add_row(
            f"{expected:g}", f"{e.min_instances} to {e.max_instances}", f"{e.usd_min:,.0f} to {e.usd_max:,.0f}",
            f"{f.busy:.1f}", f"{f.provisioned_concurrency}, {f.reserved_concurrency}", f"{f.usd:,.2f}",
        )  # fmt: skip
    out.print(table)
    shown = expected_rate or rate * recommend.SAFETY_FACTOR
    endpoint, function = plans(shown)
    what = "fetching included" if is_function else f"{recommend.FETCH_S:g} s of it for fetching, which was not measured"
    out.print(
        f"A call of the function is counted with {function.call_s:.2f} s ({what}), a month with half of the busiest "
        f"rate on average; list prices of {prices.COLLECTED} in us-east-1. With {endpoint.max_instances} instances and "
        f"one of them lost, {endpoint.survives_rate:.1f} requests/s are still within the objective.",
        markup=False,
    )
    if is_function:
        out.print("The rate is the function's and its endpoint's together: load the endpoint by itself to size it.")
    out.print(f"\nFor terraform/environments/<name>.tfvars ({shown:g} requests/s at the busiest time):\n", markup=False)
    out.print(recommend.hcl(endpoint, function), markup=False, soft_wrap=True)
    out.print()


# ---- simulation ----


def numbers(given: Sequence[str] | None, option: str, default: Sequence[float]) -> list[float]:
    """`30,50` and `--target 30 --target 50` alike, without repetitions."""
    if not given:
        return list(default)
    try:
        values = [float(part) for text in given for part in text.split(",") if part.strip()]
    except ValueError:
        raise DogbreedError(f"{option} is {','.join(given)!r}", "Give numbers, with commas between them.") from None
    if not values or any(not 0 <= v < 1e9 for v in values) or (option == "--target" and min(values) == 0):
        raise DogbreedError(f"{option} is {','.join(given)!r}", "Give numbers above 0.")
    return list(dict.fromkeys(values))


def read_traffic(source: str, *, base_rate: float, peak_rate: float, hours: float, spike_minutes: float) -> Traffic:
    if source in KINDS:
        return generate(source, base_rate=base_rate, peak_rate=peak_rate, hours=hours, spike_minutes=spike_minutes)
    if "." not in source and "/" not in source and not Path(source).exists():
        raise DogbreedError(f"There is no traffic {source!r}", f"Give a CSV file or one of: {', '.join(KINDS)}.")
    return read_csv(Path(source))


def simulate_scaling(
    traffic: Traffic,
    policies: Sequence[Policy],
    instance: Instance,
    *,
    objective_ms: float,
    usd_per_hour: float,
    folder: Path,
    one_change_at_a_time: bool = False,
    seed: int = 0,
) -> list[Outcome]:
    """Runs, prints, writes scaling.json and scaling.png."""
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = simulate.simulate(
        traffic,
        policies,
        instance,
        objective_ms=objective_ms,
        usd_per_hour=usd_per_hour,
        one_change_at_a_time=one_change_at_a_time,
        seed=seed,
    )
    out.print(
        f"{traffic.name}: {outcomes[0].requests:,} requests in {traffic.seconds / 3600:g} h. An instance takes "
        f"{instance.capacity:.1f} requests/s at most and {instance.start_s:g} s to start.",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("target\na minute", "cooldown\nout, in", "p99\nms", "\nfailed", "minutes\nbad", "most\nat once",
                 "added,\nremoved", "instance\nhours", "USD\na month"):  # fmt: skip
        table.add_column(name, justify="right")
    for o in outcomes:
        p = o.policy
        table.add_row(
            f"{p.target:g}", f"{p.scale_out_cooldown_s:g}, {p.scale_in_cooldown_s:g}", f"{o.p99_ms:,.0f}",
            f"{o.errors / max(1, o.requests):.2%}", f"{o.bad_minutes:.1%}", f"{o.fleet.desired.max()}",
            f"{o.fleet.scale_outs}, {o.fleet.scale_ins}", f"{o.instance_hours:.1f}", f"{o.usd_per_month:,.2f}",
        )  # fmt: skip
    out.print(table)
    out.print(
        f"Bad is a minute with a p99 above {objective_ms:g} ms or more than {simulate.ERROR_SHARE:.1%} failed.",
        markup=False,
    )
    for line in remarks(policies, instance):
        out.print(f"- {line}", markup=False)
    write_json(
        folder / "scaling.json",
        {
            "traffic": traffic.name,
            "seconds": traffic.seconds,
            "instance": vars(instance),
            "objective_ms": objective_ms,
            "usd_per_hour": usd_per_hour,
            "one_change_at_a_time": one_change_at_a_time,
            "seed": seed,
            "policies": [o.as_dict() for o in outcomes],
        },
    )
    from dogbreed.sizing.plots import MAX_COLUMNS, plot_policies

    if len({p.target for p in policies}) > MAX_COLUMNS:
        out.print(f"The picture shows the {MAX_COLUMNS} smallest targets.")
    plot_policies(folder / "scaling.png", traffic, outcomes, objective_ms=objective_ms)
    out.print(f"Written: {folder / 'scaling.json'}, {folder / 'scaling.png'}", markup=False, soft_wrap=True)
    return outcomes


def remarks(policies: Sequence[Policy], instance: Instance) -> list[str]:
    """What a person may not expect of the policies compared."""
    found = []
    for target in sorted({p.target for p in policies}):
        busy = target / 60 / instance.capacity
        if busy < 0.1:
            found.append(
                f"A target of {target:g} is {target:g} invocations a minute, one every {60 / target:.2g} s: it keeps "
                f"each instance {busy:.0%} busy. {target:g} a second would be a target of {target * 60:g}."
            )
        elif busy > 1:
            found.append(
                f"A target of {target:g} a minute is more than an instance answers ({instance.capacity * 60:.0f}); "
                "requests that are refused count too, so it is reached only when the instances are overloaded already."
            )
    enough = recommend.scale_out_cooldown_s(instance.start_s)
    short = sorted({p.scale_out_cooldown_s for p in policies if p.scale_out_cooldown_s < enough})
    if short:
        found.append(
            f"A cooldown of {_listed(short)} s after a scale-out may end before the metric knows of the new instances "
            f"({instance.start_s:g} s to start, a minute to count, a minute to arrive: {enough} s): the same load can "
            "add instances again."
        )
    under = sorted({c for p in policies for c in (p.scale_in_cooldown_s, p.scale_out_cooldown_s) if c <= 60})
    if len(under) > 1:
        found.append(f"Cooldowns of {_listed(under)} s are the same: a policy acts once a minute.")
    return found


def _listed(values: Sequence[float]) -> str:
    texts = [f"{v:g}" for v in values]
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]
