"""Runs `dogbreed serve` as a process of its own: for the demo, tests and benchmarks."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from dogbreed.errors import DogbreedError

# Without the proxy that the environment may name: the server is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Running:
    """A server in a process of its own. address: `http://host:port`."""

    address: str
    process: subprocess.Popen[bytes]
    said: IO[str]

    def log(self) -> str:
        """All that it has written so far."""
        return _read(self.said)

    def classify(self, picture: bytes) -> tuple[int, dict[str, Any]]:
        """The status and the answer, or the `error`, for a picture's bytes."""
        headers = {"Content-Type": "application/x-image"}
        request = urllib.request.Request(f"{self.address}/invocations", picture, headers)
        try:
            with _opener.open(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@contextlib.contextmanager
def running(folder: Path, *options: str, timeout_s: float = 60) -> Iterator[Running]:
    """Runs `dogbreed serve` on a free port until the block ends; its block begins when the server answers.

    Raises:
        DogbreedError: it ended, or did not answer in time.
    """
    command = [sys.executable, "-m", "dogbreed", "serve", str(folder), "--port", "0", *options]
    # Appending, because reading moves the place that the server's own writes would begin at.
    with tempfile.TemporaryFile("a+") as said:
        process = subprocess.Popen(command, stderr=said)
        try:
            deadline = perf_counter() + timeout_s
            while not (address := _answering(said)):
                if process.poll() is not None or perf_counter() > deadline:
                    raise DogbreedError("The server did not start", _read(said).strip()[-500:] or "It said nothing.")
                time.sleep(0.05)
            yield Running(address, process, said)
        finally:
            process.terminate()
            process.wait()


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _answering(said: IO[str]) -> str | None:
    """The address of a server that has said where it is, if it is ready."""
    found = re.search(r" at (http://\S+:\d+)/ ", _read(said))
    if not found:
        return None
    try:
        with _opener.open(f"{found[1]}/ping", timeout=5):
            return found[1]
    except OSError:
        return None
