"""Peak resident memory: of this process, and of a command run afresh.

    python benchmarks/memory.py python benchmarks/original_recipe.py --data DIR --backbone resnet50

Linux hands a process's high-water mark on through fork *and* exec (``ru_maxrss`` of a small child of a 2 GB benchmark
reads 2 GB), and ``RUSAGE_CHILDREN`` is the maximum over all children so far. So a command is started by a fresh, small
Python (about 10 MB, the least that can be measured), which asks ``wait4`` about that one child.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """What one command took.

    seconds: wall clock from start to exit, the interpreter's start and imports included.
    peak_mb: peak resident memory in MiB of its largest process (a child it has waited for counts, but isn't added).
    returncode: exit status; −N where signal N ended it.
    """

    seconds: float
    peak_mb: float
    returncode: int


def own_peak_mb() -> float:
    """Peak resident memory of this process in MiB (VmHWM, which unlike ``ru_maxrss`` owes nothing to the parent)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_rss_of(command: list[str], *, env: Mapping[str, str] | None = None) -> Usage:
    """Run ``command`` to its end, its output passing through, and measure it.

    env: the whole environment, in place of this process's.
    Raises FileNotFoundError if there is no such program.
    """
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"no program {command[0]!r} to measure")
    read_fd, write_fd = os.pipe()
    launcher = [sys.executable, "-I", "-S", __file__, "--report-to", str(write_fd), *command]
    with os.fdopen(read_fd) as report:
        try:
            process = subprocess.Popen(launcher, env=env, pass_fds=[write_fd])
        finally:
            os.close(write_fd)
        answer = report.read()
    process.wait()
    if not answer:
        raise RuntimeError(f"{command[0]!r} could not be measured: its launcher exited with {process.returncode}")
    return Usage(*json.loads(answer))


def _launch(command: list[str]) -> Usage:
    """Start ``command`` from this (small) process and wait for it alone."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(seconds, usage.ru_maxrss / 1024, process.returncode)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--report-to"]:
        used = _launch(arguments[2:])
        os.write(int(arguments[1]), json.dumps(used).encode())
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    used = peak_rss_of(arguments)
    print(f"{used.seconds:.2f} s, peak {used.peak_mb:,.0f} MiB, exit status {used.returncode}", file=sys.stderr)
    return used.returncode if used.returncode >= 0 else 128 - used.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
