"""The Lambda function in front of the endpoint: a picture or its address goes in, breeds come out.

Events: `{"url": …}` or `{"image": <base64>}`, each with an optional `"top_k"` (5 by default, `"all"` for every class)
and `"details": true`; the same JSON, or a picture's bytes, as the body of a POST request from a function URL, API
Gateway or a load balancer. Where the variable PAGE is 1, such a GET request for `/` is answered with the page.

Answers: `{"statusCode", "headers", "body"}` with JSON in the body: what the endpoint answered, or `{"error": reason}`.
A 4xx is the sender's to mend, a dead link included; a 5xx is ours, and only its log line says what went wrong.

Pictures are not decoded here, so a picture that would unpack to gigabytes is no danger: their bytes are counted, their
first ones looked at, and the endpoint judges the rest.

The package holds this file, `xray.py`, `webfetch.py` and the page. Everything else is in the runtime; botocore alone,
without boto3 on top, starts faster and needs less memory.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import xray
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
)
from botocore.session import get_session
from webfetch import MAX_URL_LENGTH, Refused, TooLarge, fetch_url

ENDPOINT = os.environ["ENDPOINT_NAME"]
MAX_PICTURE_BYTES = int(os.environ.get("MAX_PICTURE_MIB", "5")) * 2**20
FETCH_TIMEOUT_S = float(os.environ.get("FETCH_TIMEOUT_S", "8"))
FETCH_EXEMPT = frozenset(filter(None, os.environ.get("FETCH_EXEMPT_HOSTS", "").split(",")))
PAGE = os.environ.get("PAGE") == "1"
METHODS = "GET, HEAD, POST" if PAGE else "POST"
MAX_PAYLOAD_BYTES = int(os.environ.get("MAX_PAYLOAD_MB", "6")) * 10**6  # of a request to the endpoint, and an answer
TOP_K = 5  # what the endpoint answers to bare bytes
MAX_TOP_K = 1000
JSON = "application/json"
OUR_FAULT = "something went wrong on our side"

_session = get_session()
# Only this service is asked for. botocore would look into the folder of each of its 400 services, twice: most of the
# time that making a client takes.
_session.get_component("data_loader").list_available_services = lambda type_name: ["sagemaker-runtime"]
_runtime = _session.create_client(
    "sagemaker-runtime",
    config=Config(
        connect_timeout=2,
        read_timeout=float(os.environ.get("INVOKE_TIMEOUT_S", "8")),
        # A second attempt, because a connection kept from the last call may have been closed while we were frozen.
        retries={"mode": "standard", "total_max_attempts": 2},
        tcp_keepalive=True,
    ),
)


class Problem(Exception):
    """An answer other than 200: `reason` is for the sender, `detail` for the log only."""

    def __init__(self, status: int, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.detail = status, reason, detail


class Request(NamedTuple):
    """A picture's bytes or its address, how many classes to answer with (None: all), and whether with details."""

    picture: bytes | None
    url: str | None
    top_k: int | None
    details: bool = False


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answers one event; never raises."""
    started = time.perf_counter()
    trace = xray.current()
    line: dict[str, Any] = {"requestId": getattr(context, "aws_request_id", None), "traceId": trace and trace.id}
    try:
        if PAGE and _method(event) in ("GET", "HEAD"):
            answer = _page(event)
        else:
            answer = _json(200, _classify(_read(event), trace, line))
    except Problem as problem:
        answer = _json(problem.status, {"error": problem.reason})
        line |= {"reason": problem.reason, "detail": problem.detail}
    except Exception as error:
        answer = _json(500, {"error": OUR_FAULT})
        # Without the error's text, which may quote the event.
        line["detail"] = "".join([*traceback.format_tb(error.__traceback__), type(error).__name__])
    status = answer["statusCode"]
    if status == 405:
        answer["headers"]["Allow"] = METHODS
    if status in (429, 503):
        answer["headers"]["Retry-After"] = "5"
    if _is_web(event):
        answer.setdefault("isBase64Encoded", False)  # load balancers insist on it
    _log("ERROR" if status >= 500 else "INFO", status=status, ms=_ms_since(started), **line)
    return answer


def _json(status: int, value: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": JSON, "X-Content-Type-Options": "nosniff"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(value)}


def _classify(request: Request, trace: xray.Trace | None, line: dict[str, Any]) -> dict[str, Any]:
    """The endpoint's answer. Adds what is worth logging to `line`: never a picture, nor an address with its query."""
    picture = request.picture
    if request.url is not None:
        line["host"] = _host(request.url)
        with _timed("fetch", trace, line, host=line["host"] or ""):
            picture = _fetch(request.url)
    if not picture:
        raise Problem(400, "the picture is empty")
    line["bytes"] = len(picture)
    if len(picture) > MAX_PICTURE_BYTES:
        raise Problem(413, f"the picture is larger than {MAX_PICTURE_BYTES // 2**20} MiB")
    kind = _sniff(picture)
    if kind is None:
        raise Problem(415, "this is not a JPEG, PNG or WebP picture")
    with _timed("invoke", trace, line, endpoint=ENDPOINT):
        return _invoke(picture, kind, request.top_k, request.details)


def _fetch(url: str) -> bytes:
    try:
        return fetch_url(url, max_bytes=MAX_PICTURE_BYTES, timeout_s=FETCH_TIMEOUT_S, allowed=FETCH_EXEMPT)
    except TooLarge as error:
        raise Problem(413, str(error)) from None
    except Refused as error:
        raise Problem(422, str(error)) from None


@contextlib.contextmanager
def _timed(name: str, trace: xray.Trace | None, line: dict[str, Any], **annotations: str) -> Iterator[None]:
    """Puts the time that a part of the call takes into the log line, and into its trace."""
    started, start_s, status = time.perf_counter(), time.time(), 500
    try:
        yield
        status = 200
    except Problem as problem:
        status = problem.status
        raise
    finally:
        line[f"{name}_ms"] = _ms_since(started)
        xray.send(trace, name, start_s, start_s + time.perf_counter() - started, status, **annotations)


# ------------------------------------------------------------------------------------------------ the page


def _page(event: dict[str, Any]) -> dict[str, Any]:
    """The page, at `/` and nowhere else."""
    if _path(event) != "/":
        raise Problem(404, "there is nothing at this address: the page is at /, and any address takes pictures by POST")
    from page import page  # calls that classify do not pay for it

    html, headers = page()
    answer = {"statusCode": 200, "headers": dict(headers), "body": ""}
    if _headers(event).get("if-none-match") == headers.get("ETag", ""):
        answer["statusCode"] = 304
    elif _method(event) == "GET":
        answer["body"] = html.decode()  # as text: REST APIs decode base64 only for types that they are told of
    return answer


# ------------------------------------------------------------------------------------------------ events


def _read(event: Any) -> Request:
    if not isinstance(event, dict):
        raise Problem(400, "the event is not a JSON object")
    if not _is_web(event):
        return _from_json(event)
    if _method(event) != "POST":
        raise Problem(405, f"only these requests are answered: {METHODS}")
    kind = str(_headers(event).get("content-type") or "").partition(";")[0].strip().lower()
    body = event.get("body") or ""
    if not isinstance(body, str):
        raise Problem(400, "the body is not text")
    data = _from_base64(body, "the body") if event.get("isBase64Encoded") else body.encode(errors="replace")
    if kind.startswith("image/") or kind == "application/octet-stream":
        top_k = _object(event, "queryStringParameters").get("top_k", TOP_K)
        is_number = isinstance(top_k, str) and top_k.isascii() and top_k.isdigit() and len(top_k) < 6
        return Request(data, None, _top_k(int(top_k) if is_number else top_k))
    if kind not in ("", JSON):
        raise Problem(415, f"send {JSON} or a picture as image/jpeg, image/png or image/webp")
    try:
        return _from_json(json.loads(data))
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not valid JSON") from None


def _from_json(value: Any) -> Request:
    if not isinstance(value, dict) or ("url" in value) == ("image" in value):
        raise Problem(400, 'send a JSON object with either "url" or "image"')
    top_k, details = _top_k(value.get("top_k", TOP_K)), value.get("details", False)
    if not isinstance(details, bool):
        raise Problem(400, '"details" is true or false')
    source = value["url"] if "url" in value else value["image"]
    if not isinstance(source, str):
        raise Problem(400, '"url" and "image" are texts')
    if "url" in value:
        return Request(None, source, top_k, details)
    return Request(_from_base64(source, '"image"'), None, top_k, details)


def _is_web(event: Any) -> bool:
    return isinstance(event, dict) and "requestContext" in event


def _method(event: Any) -> Any:
    """Of a web request, in either version of the events; None where there is none."""
    if not _is_web(event):
        return None
    return _object(_object(event, "requestContext"), "http").get("method") or event.get("httpMethod")


def _path(event: dict[str, Any]) -> str:
    """Below the stage of an API, which version 2 of the events has in the path and version 1 has not."""
    if "rawPath" not in event:
        return str(event.get("path"))
    return str(event["rawPath"]).removeprefix(f"/{_object(event, 'requestContext').get('stage')}")


def _headers(event: dict[str, Any]) -> dict[str, Any]:
    return {str(name).lower(): value for name, value in _object(event, "headers").items()}


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _from_base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Problem(400, f"{what} is not valid base64") from None


def _top_k(value: Any) -> int | None:
    if value == "all":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOP_K:
        raise Problem(400, f'"top_k" is a whole number from 1 to {MAX_TOP_K}, or "all"')
    return value


def _sniff(picture: bytes) -> str | None:
    """The type that the bytes themselves announce: what a sender or a web server calls them proves nothing."""
    if picture.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if picture.startswith(b"RIFF") and picture[8:12] == b"WEBP":
        return "image/webp"
    return None


# ------------------------------------------------------------------------------------------------ the endpoint


def _invoke(picture: bytes, kind: str, top_k: int | None, details: bool) -> dict[str, Any]:
    body = picture
    if top_k is None or top_k > TOP_K or details:  # bare bytes cannot say so
        kind = JSON
        wishes = json.dumps({"top_k": top_k or "all"} | ({"details": True} if details else {})).encode()
        body = wishes[:-1] + b', "image": "' + base64.b64encode(picture) + b'"}'  # base64 needs no escapes
        if len(body) > MAX_PAYLOAD_BYTES:
            mib = MAX_PAYLOAD_BYTES * 3 // 4 * 10 // 2**20 / 10  # rounded down: the JSON around it needs room too
            raise Problem(413, f"for details or more than {TOP_K} classes the picture may have {mib} MiB at most")
    try:
        response = _runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType=kind, Accept=JSON, Body=body)
        text = response["Body"].read(MAX_PAYLOAD_BYTES + 1)
        if len(text) > MAX_PAYLOAD_BYTES:
            raise Problem(502, "the model's answer is too large")
        answer: dict[str, Any] = json.loads(text)
        return answer | {"predictions": answer["predictions"][:top_k]}
    except ClientError as error:
        raise _refused_by_sagemaker(error) from None
    except (ReadTimeoutError, ConnectTimeoutError) as error:
        raise Problem(504, "the model took too long", str(error)) from None
    except (HTTPClientError, EndpointConnectionError, IncompleteReadError) as error:
        raise Problem(502, "the model could not be reached", str(error)) from None
    except BotoCoreError as error:  # no credentials, no region: a deployment gone wrong
        raise Problem(500, OUR_FAULT, str(error)) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Problem(502, "the model's answer could not be read", repr(error)) from None


def _refused_by_sagemaker(error: ClientError) -> Problem:
    code = error.response["Error"].get("Code", "")
    detail = str(error)
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code == "ModelError":
        return _refused_by_model(error)
    if code.startswith("Validation") and ("not found" in detail.lower() or "could not find" in detail.lower()):
        return Problem(503, "no model is live yet", detail)
    if code.startswith("AccessDenied"):
        missing = f"the function's role lacks sagemaker:InvokeEndpoint on endpoint/{ENDPOINT}"
        return Problem(500, OUR_FAULT, f"{missing}: {detail}")
    if code == "ModelNotReadyException" or status == 503:
        return Problem(503, "the model is not ready; try again in some seconds", detail)
    if code.startswith("Throttl") or status == 429:
        return Problem(429, "too many requests at once; try again in some seconds", detail)
    if status == 413:
        return Problem(413, "the picture is larger than the model accepts", detail)
    return Problem(502, "the model could not be reached", detail)


def _refused_by_model(error: ClientError) -> Problem:
    """The container answered, but not with 200: what it says of a picture is passed on, of itself it is not.

    AWS's own serving toolkit appends a stack trace, below the line of JSON.
    """
    status = error.response.get("OriginalStatusCode", 500)
    message = str(error.response.get("OriginalMessage", ""))
    detail = f"the model answered {status}: {message[:1000]}"
    if status in (400, 413, 415, 422):
        try:
            reason = json.loads(message.partition("\n")[0])["error"]
        except (ValueError, TypeError, KeyError, RecursionError):
            reason = None
        one_line = " ".join(reason.split())[:200] if isinstance(reason, str) else ""
        return Problem(status, one_line or "the model refused the picture", detail)
    if status in (429, 503):
        return Problem(status, "the model is busy; try again in some seconds", detail)
    if status == 504:
        return Problem(504, "the model took too long", detail)
    return Problem(502, "the model failed", detail)


# ------------------------------------------------------------------------------------------------ logs


def _log(level: str, **fields: Any) -> None:
    """One line of JSON, which Lambda's JSON log format passes on as it is."""
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    known = {name: value for name, value in fields.items() if value is not None}
    print(json.dumps({"timestamp": timestamp, "level": level, **known}), flush=True)


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)


def _host(url: str) -> str | None:
    if len(url) > MAX_URL_LENGTH:  # urlsplit remembers what it was asked
        return None
    try:
        return (urlsplit(url).hostname or "")[:255] or None
    except ValueError:
        return None
