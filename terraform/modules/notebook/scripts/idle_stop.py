"""Stops this notebook once nobody has used it for a while. Cron runs it every five minutes.

It asks the Jupyter server on this machine, so it needs no internet. A sign of life is a busy kernel, the last message
of an idle one, or the last input or output of a terminal. An open browser tab is none: it is often left open overnight.

    idle_stop.py --idle-minutes 60 --state FILE [--jupyter URL] -- COMMAND THAT STOPS THE MACHINE

The time of the last sign of life is the modification time of the state file. So a kernel that has just been shut down
counts for a while, and when Jupyter has died for good the machine stops too.
"""

import argparse
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path


def ask(jupyter, path):
    """The JSON that Jupyter answers with. Its certificate is its own, and the connection stays on this machine."""
    context = ssl._create_unverified_context() if jupyter.startswith("https:") else None
    # Without the parameter the question itself would count as activity.
    with urllib.request.urlopen(jupyter + path + "?no_track_activity=1", timeout=20, context=context) as response:
        return json.load(response)


def terminals(jupyter):
    try:
        return ask(jupyter, "/api/terminals")
    except urllib.error.HTTPError as e:
        if e.code == 404:  # switched off
            return []
        raise


def last_sign_of_life(jupyter, now):
    """Seconds since 1970, 0 if there never was one.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: Jupyter does not answer, or not as it should.
    """
    kernels = ask(jupyter, "/api/kernels")
    if any(kernel["execution_state"] == "busy" for kernel in kernels):
        return now
    times = [thing["last_activity"] for thing in kernels + terminals(jupyter) if thing.get("last_activity")]
    # Python 3.10 does not read the "Z" at the end.
    return max([datetime.fromisoformat(t.replace("Z", "+00:00")).timestamp() for t in times], default=0)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle-minutes", type=float, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--jupyter", default="https://localhost:8443")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)

    now = time.time()
    try:
        seen = last_sign_of_life(options.jupyter, now)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        print("Jupyter does not answer:", e, file=sys.stderr)
        seen = 0
    known = options.state.stat().st_mtime if options.state.exists() else now
    last = min(max(seen, known), now)  # a clock that was wrong must not keep the machine running
    options.state.touch()
    os.utime(options.state, (last, last))

    idle_minutes = (now - last) / 60
    print(f"{time.strftime('%Y-%m-%d %H:%M')}: idle for {idle_minutes:.0f} minutes", flush=True)
    if idle_minutes < options.idle_minutes:
        return 0
    print("Stopping.", flush=True)
    return subprocess.call(options.command)


if __name__ == "__main__":
    sys.exit(main())
