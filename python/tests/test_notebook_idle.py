"""The notebook stops when nobody uses it, and never while it works. Jupyter is a server on this machine here, too."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from runs import run

SCRIPT = Path(__file__).parents[2] / "terraform" / "modules" / "notebook" / "scripts" / "idle_stop.py"
IDLE_MINUTES = 60


class Jupyter:
    """Answers as Jupyter's API does. An answer of None is a 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/api/kernels": [], "/api/terminals": []}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                answer = outer.answers.get(self.path.partition("?")[0])
                self.send_response(404 if answer is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def jupyter() -> Iterator[Jupyter]:
    fake = Jupyter()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


class Notebook:
    """A start of the notebook some time ago, and what cron does every five minutes since."""

    def __init__(self, folder: Path, jupyter: str, started_minutes_ago: float) -> None:
        self.state, self.stopped, self.jupyter = folder / "last-sign-of-life", folder / "stopped", jupyter
        self.state.touch()
        started = time.time() - 60 * started_minutes_ago
        os.utime(self.state, (started, started))

    def is_stopped(self) -> bool:
        """Runs the script once, as cron does, and says whether it gave the command to stop."""
        command = [sys.executable, "-c", f"open({str(self.stopped)!r}, 'w')"]
        result = run(
            SCRIPT, "--idle-minutes", str(IDLE_MINUTES), "--state", self.state,
            "--jupyter", self.jupyter, "--", *command,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return self.stopped.exists()


def ago(minutes: float) -> str:
    """A time as Jupyter writes it."""
    return datetime.fromtimestamp(time.time() - 60 * minutes, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def kernel(state: str, minutes_ago: float) -> dict[str, Any]:
    return {
        "id": "1",
        "name": "dogbreed",
        "execution_state": state,
        "last_activity": ago(minutes_ago),
        "connections": 1,
    }


def test_stops_after_idle_time(tmp_path: Path, jupyter: Jupyter) -> None:
    jupyter.answers["/api/kernels"] = [kernel("idle", IDLE_MINUTES + 1), kernel("idle", 300)]

    assert Notebook(tmp_path, jupyter.url, started_minutes_ago=400).is_stopped()


def test_never_stops_while_a_kernel_is_busy(tmp_path: Path, jupyter: Jupyter) -> None:
    """A cell that computes for a day without a word is work."""
    jupyter.answers["/api/kernels"] = [kernel("idle", 2000), kernel("busy", 1440)]

    assert not Notebook(tmp_path, jupyter.url, started_minutes_ago=2000).is_stopped()


@pytest.mark.parametrize("what", ["kernel", "terminal"])
def test_goes_on_after_a_recent_sign_of_life(tmp_path: Path, jupyter: Jupyter, what: str) -> None:
    jupyter.answers["/api/kernels"] = [kernel("idle", IDLE_MINUTES - 5 if what == "kernel" else 500)]
    jupyter.answers["/api/terminals"] = [{"name": "1", "last_activity": ago(3 if what == "terminal" else 500)}]

    assert not Notebook(tmp_path, jupyter.url, started_minutes_ago=600).is_stopped()


def test_counts_from_the_start_when_nothing_was_opened(tmp_path: Path, jupyter: Jupyter) -> None:
    assert not Notebook(tmp_path, jupyter.url, started_minutes_ago=IDLE_MINUTES - 1).is_stopped()
    assert Notebook(tmp_path, jupyter.url, started_minutes_ago=IDLE_MINUTES + 1).is_stopped()


def test_a_kernel_that_was_shut_down_still_counts(tmp_path: Path, jupyter: Jupyter) -> None:
    notebook = Notebook(tmp_path, jupyter.url, started_minutes_ago=500)
    jupyter.answers["/api/kernels"] = [kernel("busy", 0)]
    assert not notebook.is_stopped()

    jupyter.answers["/api/kernels"] = []

    assert not notebook.is_stopped()
    assert time.time() - notebook.state.stat().st_mtime < 60


def test_a_time_in_the_future_is_now(tmp_path: Path, jupyter: Jupyter) -> None:
    """A clock that was wrong for a moment does not keep the machine running, whoever noted its time."""
    notebook = Notebook(tmp_path, jupyter.url, started_minutes_ago=-10_000)
    jupyter.answers["/api/kernels"] = [kernel("idle", -10_000)]

    assert not notebook.is_stopped()

    assert abs(time.time() - notebook.state.stat().st_mtime) < 60


def test_jupyter_without_terminals(tmp_path: Path, jupyter: Jupyter) -> None:
    jupyter.answers["/api/terminals"] = None
    jupyter.answers["/api/kernels"] = [kernel("idle", 5)]

    assert not Notebook(tmp_path, jupyter.url, started_minutes_ago=500).is_stopped()


def test_asking_is_no_activity(tmp_path: Path, jupyter: Jupyter) -> None:
    Notebook(tmp_path, jupyter.url, started_minutes_ago=1).is_stopped()

    assert jupyter.asked and all(path.endswith("?no_track_activity=1") for path in jupyter.asked)


def test_a_jupyter_that_does_not_answer_gets_the_idle_time_to_come_back(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"

    assert not Notebook(tmp_path, nobody, started_minutes_ago=IDLE_MINUTES - 1).is_stopped()
    assert Notebook(tmp_path, nobody, started_minutes_ago=IDLE_MINUTES + 1).is_stopped()


@pytest.mark.parametrize(
    "answer", [{"message": "Forbidden"}, "nonsense", [{}], [{"execution_state": "idle", "last_activity": 5}]]
)
def test_an_answer_that_is_not_jupyters_counts_as_none(tmp_path: Path, jupyter: Jupyter, answer: Any) -> None:
    jupyter.answers["/api/kernels"] = answer

    assert not Notebook(tmp_path, jupyter.url, started_minutes_ago=IDLE_MINUTES - 1).is_stopped()


def test_what_stopping_says_is_told(tmp_path: Path, jupyter: Jupyter) -> None:
    """A refused stop must show in cron's log, and be tried again."""
    state = tmp_path / "state"
    state.touch()
    os.utime(state, (0, 0))

    result = run(
        SCRIPT, "--idle-minutes", "60", "--state", state, "--jupyter", jupyter.url,
        "--", sys.executable, "-c", "import sys; sys.exit('AccessDenied')",
    )  # fmt: skip

    assert result.returncode == 1
    assert "AccessDenied" in result.stderr
