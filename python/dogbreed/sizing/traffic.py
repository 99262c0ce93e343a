"""How many requests come: a rate for every second of a trace, read from a file or made up."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dogbreed.errors import DogbreedError

Floats = npt.NDArray[np.float64]

KINDS = ("daily", "spike", "step", "constant")
MAX_SECONDS = 8 * 24 * 3600
MAX_REQUESTS = 20_000_000  # what fits into a gigabyte of memory
_COLUMNS = "time_s,requests_per_s (a rate from then on) or timestamp,requests (a count from then on)"


@dataclass(frozen=True, eq=False)
class Traffic:
    """`rates`: (seconds,) float64, requests per second during each second. `name` is for people."""

    name: str
    rates: Floats

    def __post_init__(self) -> None:
        if len(self.rates) > MAX_SECONDS:
            raise DogbreedError(
                f"The trace {self.name} lasts {len(self.rates) / 86400:.1f} days", "Cut it to at most 8 days."
            )
        if not self.rates.any():
            raise DogbreedError(f"There is no request in the trace {self.name}", "Give one with traffic in it.")
        if self.rates.sum() > MAX_REQUESTS:
            raise DogbreedError(
                f"The trace {self.name} has {self.rates.sum() / 1e6:.0f} million requests",
                f"Shorten it, or scale its rates down, to at most {MAX_REQUESTS // 10**6} million.",
            )

    @property
    def seconds(self) -> int:
        return len(self.rates)

    def arrivals(self, seed: int = 0) -> Floats:
        """(N,) float64: when each request comes, in seconds, ascending. Poisson, the same for the same seed."""
        rng = np.random.default_rng(seed)
        counts = rng.poisson(self.rates)
        starts = np.repeat(np.arange(len(counts), dtype=np.float64), counts)
        return np.sort(starts + rng.random(len(starts)))


def generate(kind: str, *, base_rate: float, peak_rate: float, hours: float, spike_minutes: float = 20) -> Traffic:
    """Traffic that was made up; rates in requests per second.

    daily: a wave from `base_rate` at 4 o'clock to `peak_rate` at 16 o'clock.
    spike: `base_rate`, and `peak_rate` for `spike_minutes` from the middle on, reached within a minute.
    step: `base_rate`, and `peak_rate` during the middle half.
    constant: `peak_rate`.
    """
    if kind not in KINDS:
        raise DogbreedError(
            f"There is no traffic {kind!r}, neither a file nor a kind",
            f"Give a CSV file or one of: {', '.join(KINDS)}.",
        )
    if base_rate > peak_rate:
        raise DogbreedError(f"--base-rate {base_rate:g} is above --peak-rate {peak_rate:g}", "Swap them.")
    seconds = np.arange(max(60, round(hours * 3600)), dtype=np.float64)
    rise = peak_rate - base_rate
    middle = len(seconds) / 2
    shares: dict[str, Floats] = {
        "daily": (1 - np.cos(2 * math.pi * (seconds / 3600 - 4) / 24)) / 2,
        "spike": np.clip(np.minimum(seconds - middle, middle + spike_minutes * 60 - seconds) / 60, 0, 1),
        "step": ((seconds >= middle / 2) & (seconds < middle * 1.5)).astype(np.float64),
        "constant": np.ones_like(seconds),
    }
    share = shares[kind]
    words = "" if kind == "constant" else f"{base_rate:g} to "
    return Traffic(f"{kind}, {words}{peak_rate:g} requests/s", base_rate + rise * share)


def read_csv(path: Path) -> Traffic:
    """Reads `time_s,requests_per_s` (rates) or `timestamp,requests` (counts); a row holds until the next one.

    Timestamps are ISO 8601 or seconds since 1970. The last row holds for as long as the one before it.

    Raises:
        DogbreedError: naming the line that cannot be used.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        raise DogbreedError(f"There is no file {path}", f"Give a CSV file or one of: {', '.join(KINDS)}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DogbreedError(f"{path} is no CSV file ({error})", f"Give one with columns {_COLUMNS}.") from None
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if {"time_s", "requests_per_s"} <= set(header):
        when, what, counts = header.index("time_s"), header.index("requests_per_s"), False
    elif {"timestamp", "requests"} <= set(header):
        when, what, counts = header.index("timestamp"), header.index("requests"), True
    else:
        raise DogbreedError(f"{path} has no such columns", f"Its first line has to name {_COLUMNS}.")
    times: list[float] = []
    values: list[float] = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            time, value = _seconds(row[when].strip()), float(row[what])
        except (IndexError, ValueError):
            raise DogbreedError(
                f"Line {number} of {path} is not two numbers: {','.join(row)[:60]!r}", f"Write {_COLUMNS}."
            ) from None
        if not math.isfinite(time) or not math.isfinite(value) or value < 0:
            raise DogbreedError(f"Line {number} of {path} has no usable number", "Rates and counts are 0 or more.")
        if times and time <= times[-1]:
            raise DogbreedError(f"Line {number} of {path} is not later than the line before", "Sort the file by time.")
        times.append(time)
        values.append(value)
    if len(times) < 2:
        raise DogbreedError(f"{path} has fewer than two rows", "A trace needs at least two points in time.")
    edges = np.array([*times, 2 * times[-1] - times[-2]]) - times[0]
    if edges[-1] > MAX_SECONDS:
        raise DogbreedError(f"{path} covers {edges[-1] / 86400:.1f} days", "Cut it to at most 8 days.")
    rates = np.array(values) / np.diff(edges) if counts else np.array(values)
    # Requests up to the end of each second, so that rows shorter or longer than a second keep their sum.
    total = np.concatenate([[0.0], np.cumsum(rates * np.diff(edges))])
    seconds = np.arange(math.ceil(edges[-1] - 1e-9) + 1)
    return Traffic(path.name, np.diff(np.interp(seconds, edges, total)))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
