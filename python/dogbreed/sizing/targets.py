"""What is put under load: a server by its URL, a SageMaker endpoint or a Lambda function by its name.

Each target sends one picture and says how that ended: `OK`, or a short word for the kind of failure. What a person has
to mend before any load makes sense (nobody answers, no credentials, a wrong name) is found by `get_ready`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from dogbreed.errors import DogbreedError

OK = "ok"
KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PN": "image/png", b"RIF": "image/webp"}
_PROBE_TIMEOUT_S = 30.0
_START_FIRST = "Start it with: dogbreed serve"


class Target(Protocol):
    """`where` names it for people; `remote` says that load costs money; `workers` how many requests fit at a time."""

    where: str
    workers: int

    @property
    def remote(self) -> bool: ...

    async def open(self, timeout_s: float) -> None: ...

    async def get_ready(self, picture: bytes, limit_s: float, say: Callable[[str], None]) -> None: ...

    async def send(self, picture: bytes) -> str: ...

    async def close(self) -> None: ...


def content_type(picture: bytes) -> str:
    return KINDS.get(picture[:3], "application/octet-stream")


def judge(body: bytes) -> str:
    """Whether a 200 is an answer at all."""
    try:
        predictions = json.loads(body)["predictions"]
    except (ValueError, KeyError, TypeError):
        return "not an answer"
    return OK if isinstance(predictions, list) and predictions else "not an answer"


class Server:
    """A server that speaks `POST /invocations`, through aiohttp: about 0.1 ms of processor time for each request."""

    workers = 4096

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DogbreedError(f"{url} is no address of a server", "Give one such as http://127.0.0.1:8080.")
        path = "/invocations" if parts.path in ("", "/") else parts.path
        self.url = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        self.ping = urlunsplit((parts.scheme, parts.netloc, "/ping", "", ""))
        self.where = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        self.remote = parts.hostname.endswith((".amazonaws.com", ".on.aws", ".amazonaws.com.cn"))
        self._session: Any = None

    async def open(self, timeout_s: float) -> None:
        import aiohttp

        self._errors: tuple[type[Exception], ...] = (aiohttp.ClientError, OSError)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.workers),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            headers={"Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def get_ready(self, picture: bytes, limit_s: float, say: Callable[[str], None]) -> None:
        ends = time.monotonic() + limit_s
        said = False
        while True:
            status, body = await self._ask("GET", self.ping)
            if status != 503:
                break
            if time.monotonic() >= ends:
                raise DogbreedError(
                    f"{self.where} is not ready after {limit_s:g} s ({_reason(body) or 'GET /ping: 503'})",
                    "Look at its log, or wait longer with --wait.",
                )
            if not said:
                say(f"{self.where} is starting; waiting for it, {limit_s:g} s at most.")
                said = True
            await asyncio.sleep(0.25)
        status, body = await self._ask("POST", self.url, picture)
        if status == 200 and judge(body) == OK:
            return
        if status == 403:
            raise DogbreedError(
                f"{self.where} refuses unsigned requests (403)", "Give the function's name instead: --function NAME."
            )
        problem = (
            f"answered {status}{': ' + _reason(body) if _reason(body) else ''}"
            if status != 200
            else "gave no predictions"
        )
        raise DogbreedError(f"{self.url} {problem}", "Give the address of a server that `dogbreed serve` started.")

    async def _ask(self, method: str, url: str, picture: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Content-Type": content_type(picture)} if picture else None
        try:
            async with self._session.request(method, url, data=picture, headers=headers) as answer:
                return answer.status, await answer.read()
        except asyncio.TimeoutError:
            raise DogbreedError(f"{self.where} gives no answer", "Look at its log.") from None
        except self._errors as error:
            raise DogbreedError(f"Nothing answers at {self.where} ({_cause(error)})", f"{_START_FIRST}.") from None

    async def send(self, picture: bytes) -> str:
        try:
            async with self._session.post(
                self.url, data=picture, headers={"Content-Type": content_type(picture)}
            ) as answer:
                body = await answer.read()
                return judge(body) if answer.status == 200 else str(answer.status)
        except asyncio.TimeoutError:
            return "timeout"
        except self._errors:
            return "connection"

    async def close(self) -> None:
        if self._session:
            await self._session.close()


class _Aws(ABC):
    """Calls botocore, which waits for each answer, in so many threads; no repeats, so that every refusal is seen."""

    service = ""

    def __init__(self, where: str, workers: int = 64) -> None:
        self.where, self.workers = where, workers
        self._client: Any = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def remote(self) -> bool:
        name = f"AWS_ENDPOINT_URL_{self.service.upper().replace('-', '_')}"
        address = os.environ.get(name) or os.environ.get("AWS_ENDPOINT_URL") or ""
        return urlsplit(address).hostname not in ("127.0.0.1", "localhost", "::1")

    async def open(self, timeout_s: float) -> None:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError, NoRegionError, ReadTimeoutError
        from botocore.session import get_session

        self._client_error, self._any_error, self._timeout = ClientError, BotoCoreError, ReadTimeoutError
        settings = Config(
            connect_timeout=5,
            read_timeout=timeout_s,
            max_pool_connections=self.workers,
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        try:
            self._client = get_session().create_client(self.service, config=settings)
        except (NoRegionError, ValueError):  # an empty region makes an address that is none
            raise DogbreedError("No AWS region is set", "Set AWS_DEFAULT_REGION, such as us-east-1.") from None
        except BotoCoreError as error:
            raise DogbreedError(f"AWS cannot be called: {error}", "Mend your AWS settings.") from None
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="load")

    async def get_ready(self, picture: bytes, limit_s: float, say: Callable[[str], None]) -> None:
        ends = time.monotonic() + limit_s
        said = False
        while True:
            outcome = await self._in_thread(self._probe, picture)
            if outcome == OK:
                return
            if outcome not in ("429", "503", "504", "timeout") or time.monotonic() >= ends:
                raise DogbreedError(f"{self.where} answers the first picture with {outcome}", "Look at its log.")
            if not said:
                say(f"{self.where} is not ready ({outcome}); waiting for it, {limit_s:g} s at most.")
                said = True
            await asyncio.sleep(1)

    def _probe(self, picture: bytes) -> str:
        from botocore.exceptions import (
            CredentialRetrievalError,
            EndpointConnectionError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        try:
            return self._call(picture)
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError):
            raise DogbreedError(
                "There are no AWS credentials here", "Run `aws sso login`, or set AWS_PROFILE."
            ) from None
        except EndpointConnectionError as error:
            raise DogbreedError(str(error), "Check AWS_DEFAULT_REGION and AWS_ENDPOINT_URL.") from None
        except self._client_error as error:
            code = str(error.response["Error"].get("Code", ""))
            message = str(error.response["Error"].get("Message", ""))
            if code.startswith(("Validation", "ResourceNotFound")) and "not found" in message.lower() + code.lower():
                raise DogbreedError(
                    f"There is no {self.where} here", "Check its name, AWS_DEFAULT_REGION and AWS_PROFILE."
                ) from None
            if code.startswith(
                ("AccessDenied", "UnrecognizedClient", "ExpiredToken", "InvalidSignature", "InvalidClient")
            ):
                raise DogbreedError(
                    f"AWS refuses the call ({code}: {message})", "Use credentials that may invoke it."
                ) from None
            return self._outcome(error)

    async def send(self, picture: bytes) -> str:
        return await self._in_thread(self._send, picture)

    def _send(self, picture: bytes) -> str:
        try:
            return self._call(picture)
        except self._client_error as error:
            return self._outcome(error)
        except self._timeout:
            return "timeout"
        except self._any_error:
            return "connection"

    def _outcome(self, error: Any) -> str:
        code = str(error.response["Error"].get("Code", ""))
        if code == "ModelError":
            return f"model {error.response.get('OriginalStatusCode', 500)}"
        if code.startswith(("Throttl", "TooManyRequests")):
            return "429"
        return str(error.response["ResponseMetadata"].get("HTTPStatusCode", code))

    @abstractmethod
    def _call(self, picture: bytes) -> str:
        """Sends one picture; what came of it, as `Target.send` says it."""

    async def _in_thread(self, function: Callable[[bytes], str], picture: bytes) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, picture)

    async def close(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client:
            with contextlib.suppress(Exception):
                self._client.close()


class Endpoint(_Aws):
    """A SageMaker endpoint, as `InvokeEndpoint` reaches it."""

    service = "sagemaker-runtime"

    def __init__(self, name: str, workers: int = 64) -> None:
        super().__init__(f"endpoint {name}", workers)
        self.name = name

    def _call(self, picture: bytes) -> str:
        answer = self._client.invoke_endpoint(
            EndpointName=self.name, ContentType=content_type(picture), Accept="application/json", Body=picture
        )
        return judge(answer["Body"].read())


class Function(_Aws):
    """A Lambda function, by `NAME`, `NAME:ALIAS` or ARN."""

    service = "lambda"

    def __init__(self, name: str, workers: int = 64) -> None:
        super().__init__(f"function {name}", workers)
        self.name, self.alias = (name, "") if name.startswith("arn:") else name.partition(":")[::2]

    def _call(self, picture: bytes) -> str:
        which = {"Qualifier": self.alias} if self.alias else {}
        event = json.dumps({"image": base64.b64encode(picture).decode()})
        answer = self._client.invoke(FunctionName=self.name, Payload=event.encode(), **which)
        payload = answer["Payload"].read()
        if answer.get("FunctionError"):
            return "function error"
        try:
            result = json.loads(payload)
            status, body = result["statusCode"], result["body"]
        except (ValueError, KeyError, TypeError):
            return "not an answer"
        return judge(str(body).encode()) if status == 200 else str(status)


def _reason(body: bytes) -> str:
    """What an error's JSON says to people."""
    try:
        return str(json.loads(body)["error"])[:200]
    except (ValueError, KeyError, TypeError):
        return ""


def _cause(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    return (getattr(inner, "strerror", None) or str(inner) or type(error).__name__).split("\n")[0]
