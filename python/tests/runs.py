"""The command line as a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "dogbreed"


def start(*command: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Starts Python with these arguments; PyTorch on one thread, as in the tests themselves: sums come out the same."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As at a terminal: a shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    process = start(*command, cwd=cwd, **environment)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def dogbreed(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "dogbreed", *arguments, cwd=cwd, **environment)


def one_line(err: str) -> str:
    """The only line on standard error that is no progress; it begins with `error: ` and holds no traceback."""
    lines = [line for line in err.splitlines() if line and ": " in line and not line.split(": ")[1][:1].isdigit()]
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    assert "Traceback" not in err
    return lines[0].removeprefix("error: ")
