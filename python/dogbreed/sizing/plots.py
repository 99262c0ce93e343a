"""The two pictures: latency against rate, and what policies make of a trace."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dogbreed.files import write_bytes
from dogbreed.sizing.loadtest import Result
from dogbreed.sizing.simulate import MINUTE_S, Outcome
from dogbreed.sizing.traffic import Traffic

_INK, _MUTED, _LINE, _ACCENT, _WARM = "#1c1c1c", "#6b6b6b", "#dddddd", "#0072b2", "#d55e00"
_LINES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart also by the colour-blind
MAX_COLUMNS = 4


def _write(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "font.size": 10,
        "text.color": _INK,
        "text.parse_math": False,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _MUTED,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "grid.color": _LINE,
        "grid.linewidth": 0.6,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "figure.facecolor": "white",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=150, metadata={"Software": None})
    write_bytes(path, written.getvalue())


def plot_load_test(path: Path, result: Result) -> None:
    """Median and 99th percentile against the offered rate, with the objective and the rate that was found."""
    held = {
        s.offered: s for s in sorted(result.steps, key=lambda s: s.seconds) if s.verdict != "stopped"
    }  # the longest
    steps = sorted((s for s in held.values() if s.p99_ms is not None), key=lambda s: s.offered)
    rates = [s.offered for s in steps]
    p99 = [s.p99_ms or 0.0 for s in steps]
    objective = result.settings.objective_ms

    def draw(figure: Any) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        figure.suptitle(f"Latency against rate: {result.target}", x=0.01, ha="left", size=11, weight="bold")
        top.plot(rates, [s.p50_ms for s in steps], color=_MUTED, marker="o", markersize=3.5, label="median")
        top.plot(rates, p99, color=_ACCENT, linewidth=1.2)
        for s, value in zip(steps, p99, strict=True):
            good = s.verdict == "good"
            low = value if s.p99_low is None else s.p99_low
            high = s.max_ms or value if s.p99_high is None else s.p99_high
            top.errorbar(
                s.offered, value, [[value - low], [high - value]], color=_ACCENT if good else _WARM,
                marker="o", markersize=6, markerfacecolor=_ACCENT if good else "white", elinewidth=1, capsize=2,
            )  # fmt: skip
        for label, face, edge in (("p99, sustained", _ACCENT, _ACCENT), ("p99, not sustained", "white", _WARM)):
            top.plot(
                [], [], "o", markerfacecolor=face, markeredgecolor=edge, markersize=6, label=f"{label} (95 % interval)"
            )
        top.axhline(objective, color=_WARM, linewidth=1, linestyle="--")
        top.annotate(
            f"objective {objective:g} ms", (0, objective), (4, 4), xycoords=("axes fraction", "data"),
            textcoords="offset points", color=_WARM, size=9,
        )  # fmt: skip
        if result.sustained is not None:
            for axes in (top, bottom):
                axes.axvline(result.sustained, color=_ACCENT, linewidth=1, linestyle=":")
            top.annotate(
                f" {result.sustained:.3g} requests/s ", (result.sustained, 1), (0, -2),
                xycoords=("data", "axes fraction"), textcoords="offset points", color=_ACCENT, weight="bold", va="top",
                ha="right" if rates and result.sustained > max(rates) * 0.6 else "left",
            )  # fmt: skip
        top.set_yscale("log")
        _plain_ticks(top.yaxis)
        top.set(ylabel="latency, ms")
        top.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, fontsize=9)
        shares = [100 * s.error_share for s in steps]
        bottom.plot(rates, shares, color=_WARM, marker="o", markersize=3.5)
        bottom.set(
            xlabel="offered rate, requests/s",
            ylabel="failed, %",
            ylim=(-0.04 * max(1, *shares, 0), max(1, *shares, 0) * 1.1),
        )
        bottom.set_xlim(left=0)

    _write(path, (7.6, 5.2), draw)


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plot_policies(path: Path, traffic: Traffic, outcomes: Sequence[Outcome], *, objective_ms: float) -> None:
    """Small multiples: a column for each target, a line for each pair of cooldowns; and what it costs below."""
    targets = sorted({o.policy.target for o in outcomes})
    columns = [[o for o in outcomes if o.policy.target == t] for t in targets[:MAX_COLUMNS]]
    minutes = np.arange(len(outcomes[0].minute_p99_ms)) / 60
    busiest = max(int(o.fleet.desired.max()) for o in outcomes)
    rates = np.add.reduceat(traffic.rates, np.arange(0, traffic.seconds, MINUTE_S))
    rates = rates / np.diff(np.append(np.arange(0, traffic.seconds, MINUTE_S), traffic.seconds))
    highest = max(
        (float(np.nanmax(o.minute_p99_ms)) for o in outcomes if not np.isnan(o.minute_p99_ms).all()), default=1
    )
    lowest = min(
        (float(np.nanmin(o.minute_p99_ms)) for o in outcomes if not np.isnan(o.minute_p99_ms).all()), default=1
    )
    worst = max(float(np.nanmax(o.minute_errors, initial=0)) for o in outcomes)

    def draw(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        grid = figure.subplots(
            5, len(columns), sharex="row", sharey="row", squeeze=False, height_ratios=[1, 1.5, 1.5, 1, 1.2]
        )
        for number, column in enumerate(columns):
            load, fleet, slow, failed, cost = grid[:, number]
            load.fill_between(minutes, rates, color=_MUTED, alpha=0.35, linewidth=0)
            load.set_title(f"target {column[0].policy.target:g} per minute", loc="left", weight="bold")
            groups = _alike(column)
            for colour, group in zip(_colours(len(groups)), groups, strict=True):
                o = group[0]
                fleet.step(minutes, o.fleet.desired[::MINUTE_S], where="post", color=colour, linewidth=1.3)
                slow.plot(minutes, _running_max(o.minute_p99_ms), color=colour, linewidth=1.1)
                failed.plot(minutes, 100 * _running_max(np.nan_to_num(o.minute_errors)), color=colour, linewidth=1.1)
            paid = [g[0].usd_per_month for g in groups]
            cost.barh(range(len(groups)), paid, height=0.35, color=_colours(len(groups)))
            for place, group in enumerate(groups):
                o = group[0]
                names = ", ".join(_cooldowns(x) for x in group)
                cost.annotate(
                    f"cooldown {names} s: {o.usd_per_month:.0f} USD, {o.bad_minutes:.1%} bad",
                    (0, place - 0.2), (0, 2), textcoords="offset points", va="bottom", size=8.5,
                )  # fmt: skip
            cost.set(yticks=[], ylim=(max(map(len, map(_alike, columns))) - 0.6, -0.75))
            cost.grid(visible=False)
            slow.axhline(objective_ms, color=_INK, linewidth=0.9, linestyle="--")
            slow.set_yscale("log")
            _plain_ticks(slow.yaxis)
            cost.set_xlabel("USD a month", size=9)
            failed.set_xlabel("hours", size=9)
            for axes in (load, fleet, slow, failed):
                axes.set_xlim(0, minutes[-1] + 1 / 60)
                axes.xaxis.set_major_locator(
                    MaxNLocator(6, steps=[1, 2, 4, 6, 10] if minutes[-1] > 8 else [1, 2, 5, 10])
                )
                if axes is not failed:
                    axes.tick_params(labelbottom=False)
        load, fleet, slow, failed, cost = grid[:, 0]
        load.set(ylabel="requests/s", ylim=(0, None))
        fleet.set(ylabel="instances", ylim=(0, busiest * 1.08 + 0.2))
        fleet.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        slow.set(ylabel="p99, ms", ylim=(lowest * 0.8, max(highest, objective_ms) * 1.5))
        failed.set(ylabel="failed, %", ylim=(-0.04 * max(1, 100 * worst), max(1.0, 100 * worst) * 1.1))
        cost.set_xlim(0, max(o.usd_per_month for o in outcomes) * 1.05)
        figure.suptitle(f"Scaling policies under {traffic.name}", x=0.01, ha="left", weight="bold")

    _write(path, (1.2 + 3.3 * len(columns), 8.6), draw)


def _alike(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Policies whose fleets were the same at all times belong together: one line would hide the other."""
    groups: list[list[Outcome]] = []
    for outcome in outcomes:
        for group in groups:
            if np.array_equal(group[0].fleet.desired, outcome.fleet.desired):
                group.append(outcome)
                break
        else:
            groups.append([outcome])
    return groups


def _cooldowns(outcome: Outcome) -> str:
    policy = outcome.policy
    if policy.scale_in_cooldown_s == policy.scale_out_cooldown_s:
        return f"{policy.scale_out_cooldown_s:g}"
    return f"{policy.scale_out_cooldown_s:g}/{policy.scale_in_cooldown_s:g}"


def _colours(count: int) -> list[str]:
    return [_LINES[k % len(_LINES)] for k in range(count)]


def _running_max(values: Any, points: int = 480) -> Any:
    """The worst of neighbouring minutes, where a trace has more of them than a column has pixels: no spike is lost."""
    width = max(1, math.ceil(len(values) / points))
    if width == 1:
        return values
    padded = np.append(values, np.full(-len(values) % width, np.nan)).reshape(-1, width)
    filled = np.where(np.isnan(padded), -np.inf, padded).max(axis=1)
    return np.repeat(np.where(np.isinf(filled), np.nan, filled), width)[: len(values)]
