"""The hooks that SageMaker's PyTorch serving container calls: `model_fn`, `input_fn`, `predict_fn`, `output_fn`.

`serve.py` answers by the same functions. Requests are a picture (`image/jpeg`, `image/png`, `image/webp`) or JSON:
`{"url": …}` or `{"image": <base64>}`, with `"top_k"` (5 by default, `"all"` for every class) and `"details"` (false by
default). The answer is JSON:

    {"predictions": [{"breed": …, "class_index": …, "probability": …}, …],
     "rejected": …, "rejection_score": …, "model": …}

and with details also what the network saw, a similar training picture, and how long each step took:

    "details": {"picture": <data URI>, "similar": {"breed", "class_index", "similarity", "picture"}, "ms": {…}}
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dogbreed.data.pictures import BadPicture, Pixels, open_picture, to_pixels
from dogbreed.extractor import FloatArray
from dogbreed.gallery import to_jpeg
from dogbreed.model import Model
from dogbreed.webfetch import Refused, TooLarge, fetch_url

if TYPE_CHECKING:
    ToolkitError = Exception
else:
    try:  # inside AWS's container: its server takes the status from such errors alone
        from sagemaker_inference.errors import BaseInferenceToolkitError as ToolkitError
    except ImportError:
        ToolkitError = Exception

TOP_K = 5
JSON = "application/json"
PICTURES = ("image/jpeg", "image/jpg", "image/png", "image/webp", "application/x-image")
MAX_BODY_BYTES = 6 * 2**20  # what an endpoint takes in one request
MAX_PIXELS = 32_000_000  # a photograph of more is larger than MAX_BODY_BYTES
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_JSON_PARTS = 10_000  # a request has five; millions of lists would stop all threads for seconds


class BadRequest(ToolkitError):
    """A request that cannot be answered; `status` is the HTTP status that says whose mistake it is."""

    def __init__(self, message: str, status: int = 400) -> None:
        Exception.__init__(self, message)
        self.status = status
        # As AWS's server reads them: it sends `message` and a stack trace after it.
        self.status_code, self.phrase = status, message
        self.message = json.dumps({"error": message}, ensure_ascii=False)


@dataclass(frozen=True)
class Request:
    """A picture's bytes, or its address; how many classes to answer with (None: all), and whether in detail."""

    picture: bytes = b""
    url: str | None = None
    top_k: int | None = TOP_K
    details: bool = False


def model_fn(model_dir: str) -> Model:
    """Opens the model directory, with the weights that are in it: nothing is downloaded. It runs on the CPU."""
    return Model.load(Path(model_dir), device="cpu")


def input_fn(body: bytes | str, content_type: str) -> Request:
    """Reads a request, and fetches the picture that it names.

    Raises:
        BadRequest: 415 for a type we do not read, 400 for a body that is not what its type says, 422 for an address
            from which nothing may or can be fetched, 413 for a picture that is too large.
    """
    return fetch(parse(body.encode() if isinstance(body, str) else bytes(body), content_type))


def parse(data: bytes, content_type: str) -> Request:
    """Reads a request; raises BadRequest (400, 415)."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in PICTURES:
        return Request(data)
    if kind != JSON:
        raise BadRequest(f"the content type {kind[:100]!r} is not supported; send a picture or {JSON}", 415)
    if sum(data.count(sign) for sign in b",[{") > MAX_JSON_PARTS:
        raise BadRequest("the body is not valid JSON, or has too many parts")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not valid JSON") from None
    if not isinstance(value, dict) or ("url" in value) == ("image" in value):
        raise BadRequest('send a JSON object with either "url" or "image"')
    source = value["url"] if "url" in value else value["image"]
    if not isinstance(source, str):
        raise BadRequest('"url" and "image" are texts')
    details = value.get("details", False)
    if not isinstance(details, bool):
        raise BadRequest('"details" is true or false')
    request = Request(top_k=_top_k(value.get("top_k", TOP_K)), details=details)
    if "url" in value:
        return replace(request, url=source)
    try:
        return replace(request, picture=base64.b64decode(source, validate=True))
    except (binascii.Error, ValueError):
        raise BadRequest('"image" is not valid base64') from None


def _top_k(value: Any) -> int | None:
    if value == "all":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadRequest('"top_k" is a whole number of at least 1, or "all"')
    return value


def fetch(request: Request, allowed: frozenset[str] = frozenset()) -> Request:
    """The request with the picture that lies at its address, if it gave one; raises BadRequest (413, 422).

    Args:
        allowed: `host:port` pairs that may be fetched from though they are not public.
    """
    if request.url is None:
        return request
    try:
        picture = fetch_url(request.url, max_bytes=MAX_BODY_BYTES, allowed=allowed)
    except TooLarge as error:
        raise BadRequest(str(error), 413) from None
    except Refused as error:
        raise BadRequest(str(error), 422) from None
    return replace(request, picture=picture)


def predict_fn(request: Request, model: Model) -> dict[str, Any]:
    """Answers a request; raises BadRequest (422) for a picture that cannot be used."""
    started = time.perf_counter()
    pixels = pixels_of(request, model)
    decoded = time.perf_counter()
    features = model.extractor(pixels[None])[0]
    ms = {"queue": 0.0, "decode": (decoded - started) * 1e3, "network": (time.perf_counter() - decoded) * 1e3}
    return to_json(request, model, pixels, features, ms)


def pixels_of(request: Request, model: Model) -> Pixels:
    """What the network sees of a request's picture; raises BadRequest (422)."""
    try:
        picture = open_picture(request.picture, max_pixels=MAX_PIXELS, formats=FORMATS)
        return to_pixels(picture, model.preprocessing)
    except BadPicture as error:
        raise BadRequest(str(error), 422) from None
    except MemoryError:
        raise BadRequest("the picture is too large to be read here", 413) from None


def to_json(
    request: Request, model: Model, pixels: Pixels, features: FloatArray, ms: dict[str, float]
) -> dict[str, Any]:
    """The answer. pixels: (S, S, 3) uint8; features: (D,); ms: how long each step took."""
    (answer,) = model.answer_features(features[None])
    value = {
        "predictions": answer.predictions(model.breeds, request.top_k or len(model.breeds)),
        "rejected": answer.rejected,
        "rejection_score": answer.rejection_score,
        "model": model.version,
    }
    if request.details:
        value["details"] = {
            "picture": _data_uri(to_jpeg(pixels, pixels.shape[0])),
            "similar": _similar(model, features),
            "ms": {name: round(value, 2) for name, value in ms.items()},
        }
    return value


def _similar(model: Model, features: FloatArray) -> dict[str, Any] | None:
    found = model.gallery.most_similar(features)
    if found is None:
        return None
    place, cosine = found
    label = int(model.gallery.labels[place])
    return {
        "breed": model.breeds[label],
        "class_index": label,
        "similarity": float(np.clip(cosine, 0, 1)),
        "picture": _data_uri(model.gallery.jpegs[place]),
    }


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def output_fn(prediction: dict[str, Any], accept: str) -> tuple[str, str]:
    """Writes the answer as JSON, the only type there is; raises BadRequest (406) for another one."""
    check_accept(accept)
    return json.dumps(prediction, ensure_ascii=False), JSON


def check_accept(accept: str) -> None:
    kinds = {part.partition(";")[0].strip().lower() for part in accept.split(",")} if accept else {JSON}
    if not kinds & {JSON, "application/*", "*/*", ""}:
        raise BadRequest(f"the answer is {JSON}", 406)
