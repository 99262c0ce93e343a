"""The server: one process that listens on loopback and keeps one account in memory.

A state folder belongs to one server. It holds `server.json`, which the server keeps locked for as long as it lives (so
a dead process is never taken for a live one, nor a stranger's for ours), and `server.log`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

HOST = "127.0.0.1"
PORT = 5601
HEALTH = "/_localaws"
REGION = "us-east-1"
START_S = 60.0
"""How long `up` waits for a server to be ready: it takes 3 s, and ten times as much on a busy machine."""
STOP_S = 10.0
CHECK_S = 2.0
"""How often the server looks whether its state folder is still there: without it nobody could stop it."""

log = logging.getLogger("localaws")


class LocalAwsError(Exception):
    """The server cannot be started or stopped: what is wrong, and what to do, for callers with words of their own."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}. {fix}")
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True)
class Server:
    """A running server."""

    pid: int
    port: int
    log: str

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What points the AWS CLI, the SDKs and Terraform at this server."""
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def default_state() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "localaws"


def up(port: int = PORT, state: Path | None = None, buckets: Iterable[str] = ()) -> Server:
    """Starts the server if it does not run, and waits until it answers; where that fails, nothing is left running.

    port: 0 takes a free one. buckets: made, with versioning, where they are missing.
    """
    state = state or default_state()
    state.mkdir(parents=True, exist_ok=True)
    with (state / "up.lock").open("w") as file:  # of two at once, the second finds what the first has started
        fcntl.flock(file, fcntl.LOCK_EX)
        server = status(state)
        if server is None:
            return _start(port, state, buckets)
    if port not in (0, server.port):
        raise LocalAwsError(
            f"a server with the state folder {state} already listens on port {server.port}", "Stop that one first."
        )
    make_buckets(server, buckets)
    return server


def down(state: Path | None = None) -> Server | None:
    """Ends the server of this state folder, and with it the account; returns what was ended."""
    state = state or default_state()
    server = status(state)
    if server is not None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)
            if _wait_for(lambda: _look(state)[1] != server, STOP_S):
                break
    return server


def status(state: Path | None = None) -> Server | None:
    """The server of this state folder, if it runs; one that is starting is waited for."""
    state = state or default_state()
    end = time.monotonic() + START_S
    while True:
        alive, server = _look(state)
        if server is not None or not alive:
            return server
        if time.monotonic() > end:
            raise LocalAwsError(f"the server with the state folder {state} is still starting", "Try again in a while.")
        time.sleep(0.05)


def _look(state: Path) -> tuple[bool, Server | None]:
    """Whether a server is alive, and what it says of itself: nothing yet while it is starting."""
    try:
        with (state / "server.json").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # held by a live server
                with contextlib.suppress(ValueError, TypeError):
                    return True, Server(**json.loads(file.read()))
                return True, None
    except FileNotFoundError:
        pass
    return False, None


def serve(state: Path, listener: socket.socket, buckets: Iterable[str] = ()) -> None:
    """Serves in this process until SIGTERM or SIGINT."""
    _forget_the_callers_account()
    # without the managed policies of AWS, attaching one fails; moto reads this when IAM is imported
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    started = time.perf_counter()
    server = Server(pid=os.getpid(), port=listener.getsockname()[1], log=str(state / "server.log"))
    path = state / "server.json"
    with path.open("a") as file:
        if not _wait_for(lambda: _lock(file), timeout_s=1):  # `status` holds it for a moment when it looks
            raise LocalAwsError(f"a server with the state folder {state} already runs", "Stop that one first.")
        file.truncate(0)  # first of all: the process that a killed server named here may be a stranger by now

        from localaws import install
        from localaws.wsgi import make_server

        install()
        httpd = make_server(listener, HEALTH, {"pid": server.pid})
        for number in (signal.SIGTERM, signal.SIGINT):
            # shutdown waits for serve_forever to return, so it can't be called by the thread that runs it
            signal.signal(number, lambda *_: threading.Thread(target=httpd.shutdown).start())
        file.write(json.dumps(asdict(server)))
        file.flush()
        own = os.fstat(file.fileno())
        failures: list[Exception] = []

        def prepare() -> None:
            try:
                make_buckets(server, buckets)
            except Exception as e:
                failures.append(e)
                httpd.shutdown()
            else:
                log.info("ready at %s after %.1f s", server.url, time.perf_counter() - started)

        def watch() -> None:
            while _is_at(path, own):
                time.sleep(CHECK_S)
            log.error("%s was removed: the server ends", path)
            httpd.shutdown()

        threading.Thread(target=prepare).start()  # it needs the server's answers
        threading.Thread(target=watch, daemon=True).start()
        with listener, httpd:  # closed before the lock goes: whoever gets the lock can have the port too
            httpd.serve_forever()
    if failures:
        raise failures[0]


def make_buckets(server: Server, names: Iterable[str]) -> None:
    """Makes the buckets that are missing, with versioning: Terraform needs that of its state before it runs."""
    names = {*names}
    if not names:
        return

    from botocore.exceptions import BotoCoreError, ClientError

    region = server.environment["AWS_REGION"]
    place = {} if region == REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    what = "list the buckets"
    try:
        s3 = _s3_client(server)
        for name in names - {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
            what = f"make the bucket {name}"
            s3.create_bucket(Bucket=name, **place)
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    except (BotoCoreError, ClientError) as e:
        reason = " ".join(str(e).split()).rstrip(".")
        raise LocalAwsError(f"cannot {what} ({reason})", "Correct the name or the region.") from None


def _s3_client(server: Server) -> Any:
    """A client that takes no profile, file or proxy from the caller's environment."""
    from botocore.config import Config
    from botocore.session import Session

    nothing, no_file = (None, None, None, None), (None, None, os.devnull, None)
    environment = server.environment
    return Session(
        session_vars={"profile": nothing, "config_file": no_file, "credentials_file": no_file}
    ).create_client(
        "s3",
        region_name=environment["AWS_REGION"],
        endpoint_url=server.url,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}),
    )


def _forget_the_callers_account() -> None:
    """A profile or a file that is missing would end the AWS clients in this process."""
    for name in [n for n in os.environ if n.startswith("AWS_") and n not in ("AWS_REGION", "AWS_DEFAULT_REGION")]:
        del os.environ[name]
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)


def bind(port: int) -> socket.socket:
    """A socket that listens on loopback, or a clear error."""
    if not 0 <= port <= 65535:
        raise LocalAwsError(f"there is no port {port}", "Choose one up to 65535; 0 takes a free one.")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as e:
        listener.close()
        raise LocalAwsError(f"cannot listen on port {port} ({e.strerror})", "Choose another port.") from None
    return listener


def _start(port: int, state: Path, buckets: Iterable[str]) -> Server:
    listener = bind(port)
    log_path = state / "server.log"
    command = [sys.executable, "-m", "localaws", "serve", "--fd", str(listener.fileno()), "--state", str(state)]
    with log_path.open("w") as log_file, listener:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # the terminal's Ctrl-C ends `up`, which then ends it
        )
    try:
        ready = _wait_for(lambda: process.poll() is not None or _answers(state, process.pid), START_S)
        server = _look(state)[1]
        if not ready or server is None or server.pid != process.pid:
            *_, reason = ["no word from it", *log_path.read_text().splitlines()]
            raise LocalAwsError(f"the server did not start ({reason.rstrip('.')})", f"See {log_path}.")
        make_buckets(server, buckets)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return server


def _answers(state: Path, pid: int) -> bool:
    server = _look(state)[1]
    if server is None or server.pid != pid:
        return False
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy says
    try:
        with direct.open(server.url + HEALTH, timeout=5) as answer:
            return bool(json.load(answer)["pid"] == pid)
    except OSError:
        return False


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _is_at(path: Path, own: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), own)
    except (FileNotFoundError, NotADirectoryError):
        return False
