"""The HTTP server: SageMaker's container contract (`/ping`, `/invocations`), metrics, and a page for people.

A supervisor holds the socket and replaces workers that die, so that only what such a worker had in hand is lost. A
worker takes a limited number of requests at a time and refuses more at once with 429: under overload it goes on
answering at full speed. PyTorch is not imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.supervisors import Multiprocess

from dogbreed.config import ServeConfig
from dogbreed.cpu import cpu_count
from dogbreed.errors import DogbreedError
from dogbreed.inference import JSON, MAX_BODY_BYTES, BadRequest, check_accept, fetch, parse
from dogbreed.page import page
from dogbreed.protocol import BODY_TIMEOUT_S, KEEP_ALIVE_S, MAX_CONNECTIONS, MAX_HEADERS_BYTES, Protocol
from dogbreed.telemetry import METRICS_FOLDER, Metrics, expose, forget_dead_workers, log_config

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dogbreed.batching import Batcher

log = logging.getLogger("dogbreed.serve")

STOP_TIMEOUT_S = 20  # SageMaker and Docker kill after 30
START_TIMEOUT_S = 30.0
FETCHES = 8  # addresses that a worker fetches at a time
LONG_BYTES = 64 * 1024  # of JSON, which takes the event loop a millisecond
RETRY_AFTER = {"Retry-After": "1"}
OUR_FAULT = "something went wrong on our side"
_SETTINGS = "DOGBREED_SERVE"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Service:
    """What one worker holds: the model, the threads that answer, and what it has in hand."""

    def __init__(self, folder: Path, config: ServeConfig, allowed: Sequence[str]) -> None:
        self.config, self.allowed = config, frozenset(allowed)
        self.metrics = Metrics()
        self.in_hand = self.body_bytes = self.fetches = 0
        self._folder = folder
        self._batcher: asyncio.Future[Batcher] = asyncio.get_running_loop().create_future()
        self._fetchers = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse")  # a long text holds up all other threads

    @property
    def ready(self) -> bool:
        return self._batcher.done()

    def load(self) -> None:
        """Opens the model and answers one picture on each thread, so that no caller pays for the first; blocks."""
        from dogbreed.batching import Batcher
        from dogbreed.model import Model

        loop = self._batcher.get_loop()
        started = perf_counter()
        try:
            threads = self.config.threads or max(1, cpu_count() // self.config.workers)
            model = Model.load(self._folder, device="cpu")
            model = replace(model, extractor=replace(model.extractor, streams=threads))
            batcher = Batcher(
                model,
                threads=threads,
                max_batch=self.config.max_batch,
                on_batch=self.metrics.batch_pictures.observe,
            )
        except BaseException as error:
            log.critical("the model cannot be served: %s", error, exc_info=not isinstance(error, DogbreedError))
            os._exit(_STARTUP_FAILURE)  # the supervisor stops then: the next worker would fail in the same way
        self.metrics.ready.set(1)
        self.metrics.model.labels(model.version).set(1)
        log.info("ready", extra={"fields": {"model": model.version, "seconds": round(perf_counter() - started, 2)}})
        loop.call_soon_threadsafe(self._batcher.set_result, batcher)

    async def classify(self, http: Request) -> tuple[dict[str, Any], dict[str, float]]:
        """Answers one request; raises BadRequest or HTTPException."""
        check_accept(http.headers.get("accept", ""))
        loop = asyncio.get_running_loop()
        with self._admitted() as held:
            data, kind = await self._read(http, held), http.headers.get("content-type", "")
            at_once = len(data) < LONG_BYTES or not kind.lower().startswith(JSON)
            request = parse(data, kind) if at_once else await loop.run_in_executor(self._parser, parse, data, kind)
            del data
            if request.url is not None:
                request = await self._fetch(partial(fetch, request, self.allowed))
                self._hold(held, len(request.picture))
            batcher = await self._loaded()
            answer, ms = await asyncio.wrap_future(batcher.submit(request))
        for step, duration in ms.items():
            self.metrics.step_seconds.labels(step).observe(duration / 1e3)
        if answer["rejected"]:
            self.metrics.rejected.inc()
        return answer, ms

    async def close(self) -> None:
        """Answers what is in hand, and ends the threads."""
        if self.ready:
            await asyncio.to_thread(self._batcher.result().close)
        for pool in (self._fetchers, self._parser):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _loaded(self) -> Batcher:
        """Requests that come while a worker starts wait for it: they came through the socket of one that died."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._batcher), START_TIMEOUT_S)
        except (TimeoutError, asyncio.TimeoutError):
            raise HTTPException(503, "the model is still loading; try again in some seconds", RETRY_AFTER) from None

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[_Held]:
        """Counts a request as in hand, and what is held for it."""
        if self.in_hand >= self.config.queue:
            raise _busy()
        self.in_hand += 1
        self.metrics.in_flight.set(self.in_hand)
        held = _Held()
        try:
            yield held
        finally:
            self.in_hand -= 1
            self._release(held)
            self.metrics.in_flight.set(self.in_hand)

    def _hold(self, held: _Held, count: int) -> None:
        if self.body_bytes + count > self.config.body_mib * 2**20:
            self._release(held)  # at once, or the others would be refused too
            raise _busy()
        held.count += count
        self.body_bytes += count

    def _release(self, held: _Held) -> None:
        self.body_bytes -= held.count
        held.count = 0

    async def _read(self, http: Request, held: _Held) -> bytes:
        announced = http.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
            # A sender that is still busy does not see an answer on a connection that closes; far too much is cut off.
            raise _too_large({"Connection": "close"} if int(announced) > 4 * MAX_BODY_BYTES else None)

        async def read() -> bytes:
            chunks, length = [], 0
            async for chunk in http.stream():
                chunks.append(chunk)
                length += len(chunk)
                if length > MAX_BODY_BYTES:
                    raise _too_large({"Connection": "close"})
                self._hold(held, len(chunk))
            return b"".join(chunks)

        try:
            return await asyncio.wait_for(read(), BODY_TIMEOUT_S)
        except (TimeoutError, asyncio.TimeoutError):
            raise HTTPException(
                408, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} seconds", {"Connection": "close"}
            ) from None

    async def _fetch(self, work: Any) -> Any:
        if self.fetches >= FETCHES:
            raise _busy()
        self.fetches += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._fetchers, work)
        finally:
            self.fetches -= 1


@dataclass
class _Held:
    """The bytes that are in memory for one request."""

    count: int = 0


_STARTUP_FAILURE = 3  # as uvicorn's supervisor knows it


def _busy() -> HTTPException:
    return HTTPException(429, "too many requests at once; try again in a second", RETRY_AFTER)


def _too_large(headers: dict[str, str] | None) -> HTTPException:
    return HTTPException(413, f"the body is larger than {MAX_BODY_BYTES // 2**20} MiB", headers)


# ------------------------------------------------------------------------------------------------ routes


async def invocations(http: Request) -> Response:
    answer, ms = await http.app.state.service.classify(http)
    http.scope["fields"].update({f"{step}_ms": round(value, 2) for step, value in ms.items()})
    http.scope["fields"]["rejected"] = answer["rejected"]
    timing = ", ".join(f"{step};dur={value:.2f}" for step, value in ms.items())
    return _json(answer, headers={"Server-Timing": timing})


async def ping(http: Request) -> Response:
    if not http.app.state.service.ready:
        raise HTTPException(503, "the model is still loading", RETRY_AFTER)
    return _json({"status": "ok"})


async def metrics(_: Request) -> Response:
    body, kind = expose()
    return Response(body, headers={"Content-Type": kind})


async def index(http: Request) -> Response:
    body, headers = page()
    if http.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers)


def _json(value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, {"Content-Type": JSON, "X-Content-Type-Options": "nosniff", **(headers or {})})


async def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, BadRequest):
        return _json({"error": str(error)}, error.status)
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        error.detail = "there is nothing of that kind here: pictures go to POST /invocations, the page is at GET /"
    return _json({"error": error.detail}, error.status_code, dict(error.headers or {}))


class Observed:
    """Gives each request an id, a line in the log and its place in the metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status: int | None = None
        given = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"x-request-id"), "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        fields: dict[str, Any] = {"request_id": request_id, "method": scope["method"][:20], "path": scope["path"][:200]}
        scope["fields"] = fields

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        except asyncio.CancelledError:  # stopping took too long
            if status is None:
                problem = _json({"error": "the server is stopping; try again in some seconds"}, 503, RETRY_AFTER)
                await problem(scope, receive, observe)
        except ClientDisconnect:
            status = 499  # as proxies log a client that has gone
        except Exception:
            log.exception("failed", extra={"fields": fields})
            if status is None:
                await _json({"error": OUR_FAULT}, 500)(scope, receive, observe)
        seconds = perf_counter() - started
        path = scope["path"] if scope["path"] in _PATHS else "other"
        numbers: Metrics = scope["app"].state.service.metrics
        numbers.requests.labels(path, status).inc()
        numbers.seconds.labels(path).observe(seconds)
        # Answered every few seconds for as long as the server lives: not worth a line.
        level = logging.DEBUG if path in ("/ping", "/metrics") and status == 200 else logging.INFO
        log.log(level, "request", extra={"fields": {**fields, "status": status, "ms": round(seconds * 1e3, 2)}})


_ROUTES = [
    Route("/", index),
    Route("/ping", ping),
    Route("/invocations", invocations, methods=["POST"]),
    Route("/metrics", metrics),
]
_PATHS = frozenset(route.path for route in _ROUTES)


def create_app(folder: Path, config: ServeConfig | None = None, *, allowed: Sequence[str] = ()) -> Starlette:
    """The server as an ASGI application, for one model directory.

    Args:
        allowed: `host:port` pairs that pictures are fetched from though they are not public.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.service = Service(folder, config or ServeConfig(), allowed)
        threading.Thread(target=app.state.service.load, name="load", daemon=True).start()
        yield
        await app.state.service.close()

    app = Starlette(
        routes=_ROUTES,
        lifespan=lifespan,
        middleware=[Middleware(Observed)],
        exception_handlers={HTTPException: _refuse, BadRequest: _refuse},
    )
    app.router.redirect_slashes = False  # it would redirect to whatever the Host header says
    return app


# ------------------------------------------------------------------------------------------------ processes


class _Supervisor(Multiprocess):
    """uvicorn's, which by itself waits for ever for a worker that does not end."""

    def init_processes(self) -> None:
        super().init_processes()
        self._hear_of_deaths()

    def keep_subprocess_alive(self) -> None:
        before = list(self.processes)
        super().keep_subprocess_alive()
        for process in before:
            if process not in self.processes:
                fields = {"worker": process.pid, "exit_code": process.exitcode}
                log.error("a worker died and was replaced", extra={"fields": fields})
        self._hear_of_deaths()

    def handle_hup(self) -> None:
        """The terminal was closed, which ends every command of ours; uvicorn's own would start its workers anew."""
        self.handle_term()

    def _hear_of_deaths(self) -> None:
        """With the parent's copy of the worker's end closed, a ping of one that has just died fails at once."""
        for process in self.processes:
            process.child_conn.close()

    def join_all(self) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S + 2
        for process in self.processes:
            process.process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.process.kill()  # it is stopped, or far away in a decoder
        super().join_all()


def _end_with_supervisor() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(os.environ[METRICS_FOLDER], ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)


def worker() -> Starlette:
    """Makes the application inside a worker process, from what `serve` left in its environment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # the usual 1024 are for connections alone
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * MAX_CONNECTIONS)), hard))
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    given = json.loads(os.environ[_SETTINGS])
    forget_dead_workers()
    return create_app(Path(given["model"]), ServeConfig.from_dict(given["config"]), allowed=given["allowed"])


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    config: ServeConfig | None = None,
    allowed: Sequence[str] = (),
) -> None:
    """Serves a model directory until SIGTERM or SIGINT.

    Raises:
        DogbreedError: no model, a port that is taken.
    """
    from dogbreed.console import err
    from dogbreed.model import read_config

    read_config(folder)
    config = config or ServeConfig()
    listening = _listen(host, port)
    # In memory where it can be: the numbers are mapped files, and on a full disk writing to one kills the worker.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    try:
        numbers = tempfile.mkdtemp(prefix="dogbreed-metrics-", dir=memory)
    except OSError as error:
        raise DogbreedError(
            f"No folder can be made for the metrics ({error.strerror})", "Set TMPDIR to a folder that can be written."
        ) from None
    os.environ[METRICS_FOLDER] = numbers
    given = {"model": str(folder), "config": config.as_dict(), "allowed": list(allowed)}
    os.environ[_SETTINGS] = json.dumps(given)
    settings = uvicorn.Config(
        f"{__name__}:{worker.__name__}",
        factory=True,
        workers=config.workers,
        http=Protocol,
        ws="none",
        log_config=log_config(),
        access_log=False,
        server_header=False,
        timeout_worker_healthcheck=10,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
        h11_max_incomplete_event_size=MAX_HEADERS_BYTES,
    )
    shown = f"[{host}]" if ":" in host else host
    err.print(
        f"Serving {folder} at http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C stops)", soft_wrap=True, markup=False
    )
    supervisor = _Supervisor(settings, sockets=[listening])
    try:
        supervisor.run()
    finally:
        listening.close()
        shutil.rmtree(numbers, ignore_errors=True)
    if any(process.exitcode == _STARTUP_FAILURE for process in supervisor.processes):
        raise DogbreedError(f"The model {folder} could not be served", "The lines above say why.")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise DogbreedError(
            f"Port {port} of {host} cannot be listened on ({error.strerror or error})",
            "Give another --port or --host.",
        ) from None
    listening.set_inheritable(True)
    # Connections inherit it. Without it an answer's body waits 40 ms for the client to confirm the headers; asyncio
    # sets it by itself only on sockets that say they are TCP, which those of a supervisor do not.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
