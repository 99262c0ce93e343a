"""What a figure was measured on: print it beside every figure.

python benchmarks/machine.py
"""

from __future__ import annotations

import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPU_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")
PACKAGES = ("torch", "torchvision", "timm", "openvino", "nncf", "onnxruntime", "pillow", "numpy")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "KMP_AFFINITY", "GOMP_CPU_AFFINITY")


def describe() -> dict[str, Any]:
    """The machine as this process sees it, now; every value fits in JSON.

    cores_affinity: cores this process may run on. cores_cgroup: its CPU quota in cores, None where there is no quota.
    memory_gb: GiB of RAM, or of the cgroup's limit where that is less.
    malloc, threads: environment variables that change the allocator or thread counts; empty means default.
    load_average: over 1, 5 and 15 minutes; more than some tenths means that the figure was shared with other work.
    """
    cpu = _cpu()
    flags = set(cpu.get("flags", "").split())
    memory_bytes = min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _cgroup_memory())
    return {
        "cpu": f"{cpu.get('model name', platform.processor())} "
        f"(family {cpu.get('cpu family', '?')}, model {cpu.get('model', '?')})",
        "cores_affinity": len(os.sched_getaffinity(0)),
        "cores_cgroup": _cgroup_cores(),
        "flags": {flag: flag in flags for flag in CPU_FLAGS},
        "memory_gb": round(memory_bytes / 2**30, 1),
        "os": _os(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "malloc": malloc_settings(),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def as_markdown(machine: dict[str, Any]) -> str:
    """``describe()``'s answer as a two-column table."""
    quota = "no quota" if machine["cores_cgroup"] is None else f"quota {machine['cores_cgroup']:g}"
    present = [flag for flag, has in machine["flags"].items() if has]
    absent = [flag for flag, has in machine["flags"].items() if not has]
    rows = {
        "CPU": machine["cpu"],
        "cores": f"{machine['cores_affinity']} ({quota})",
        "CPU flags": f"{', '.join(present) or 'none of interest'} (without {', '.join(absent) or 'nothing'})",
        "memory": f"{machine['memory_gb']} GiB",
        "system": f"{machine['os']}, {machine['libc']}, Python {machine['python']}",
        "packages": ", ".join(f"{name} {number or '–'}" for name, number in machine["packages"].items()),
        "malloc": _settings(machine["malloc"]),
        "threads": _settings(machine["threads"]),
        "load average at start": ", ".join(f"{load:.2f}" for load in machine["load_average"]),
    }
    return "\n".join(["| machine | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def malloc_settings() -> dict[str, str]:
    """Environment variables that replace or tune the allocator of this process; empty means glibc's defaults."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if value and (name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD"))
    }


def _settings(variables: dict[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in variables.items()) or "default"


def _cpu() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def _os() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, kernel {platform.release()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cgroup_cores() -> float | None:
    """CPU quota in cores (cgroup v2, then v1)."""
    limit = _first_text("/sys/fs/cgroup/cpu.max")
    if limit is None:
        quota = _first_text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        period = _first_text("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
        limit = f"{quota} {period}" if quota and period and int(quota) > 0 else "max"
    quota, *period_us = limit.split()
    return None if quota == "max" else round(int(quota) / int(period_us[0]), 2)


def _cgroup_memory() -> float:
    """Memory limit in bytes, infinite where there is none (cgroup v2, then v1)."""
    limit = _first_text("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return math.inf if limit in (None, "max") else int(limit)


def _first_text(*paths: str) -> str | None:
    return next((Path(path).read_text().strip() for path in paths if Path(path).is_file()), None)


if __name__ == "__main__":
    print(as_markdown(describe()))
