"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cpu_count() -> int:
    """Cores by affinity and by the container's quota; of the whole machine where neither is known."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup (v2), or "max": no quota
    return max(1, count)
