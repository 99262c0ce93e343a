"""What a person sees while something runs: progress on standard error, results on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Advance(Protocol):
    def __call__(self, count: int, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int, *, unit: str = "") -> Iterator[Advance]:
    """Shows how far a long work is: a bar on a terminal, otherwise a line every ten seconds (logs, CI, SageMaker)."""
    if not err.is_terminal:
        done, shown = 0, time.monotonic()

        def advance_in_lines(count: int, note: str = "") -> None:
            nonlocal done, shown
            done += count
            if time.monotonic() - shown >= 10:
                shown = time.monotonic()
                print(f"{title}: {done}/{total} {unit} {note}".rstrip(), file=sys.stderr, flush=True)

        yield advance_in_lines
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=total, note=unit)

        def advance(count: int, note: str = "") -> None:
            bar.update(task, advance=count, note=f"{unit} {note}".strip())

        yield advance
