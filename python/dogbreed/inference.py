"""The hooks that SageMaker's PyTorch serving container calls: `model_fn`, `input_fn`, `predict_fn`, `output_fn`.

Requests are a picture (`image/jpeg`, `image/png`, `image/webp`) or JSON: `{"url": …}` or `{"image": <base64>}`, with
`"top_k"` (5 by default, `"all"` for every class). The answer is JSON:

    {"predictions": [{"breed": …, "class_index": …, "probability": …}, …], "rejected": …, "model": …}
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogbreed.data.pictures import BadPicture, decode
from dogbreed.model import Answer, Model
from dogbreed.webfetch import Refused, fetch_url

TOP_K = 5
JSON = "application/json"
PICTURES = ("image/jpeg", "image/jpg", "image/png", "image/webp", "application/x-image")


class BadRequest(ValueError):
    """A request that cannot be answered; `status` is the HTTP status that says whose mistake it is."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """One picture's bytes, and how many classes to answer with (None: all)."""

    picture: bytes
    top_k: int | None = TOP_K


def model_fn(model_dir: str) -> Model:
    """Opens the model directory, with the weights that are in it: nothing is downloaded."""
    return Model.load(Path(model_dir))


def input_fn(body: bytes | str, content_type: str) -> Request:
    """Reads a request.

    Raises:
        BadRequest: 415 for a type we do not read, 400 for a body that is not what its type says.
    """
    kind = content_type.partition(";")[0].strip().lower()
    data = body.encode() if isinstance(body, str) else bytes(body)
    if kind in PICTURES:
        return Request(data)
    if kind == JSON:
        return _from_json(data)
    raise BadRequest(f"the content type {kind!r} is not supported; send a picture or {JSON}", 415)


def _from_json(data: bytes) -> Request:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not valid JSON") from None
    if not isinstance(value, dict) or ("url" in value) == ("image" in value):
        raise BadRequest('send a JSON object with either "url" or "image"')
    top_k = _top_k(value.get("top_k", TOP_K))
    source = value.get("url", value.get("image"))
    if not isinstance(source, str):
        raise BadRequest('"url" and "image" are texts')
    if "image" in value:
        try:
            return Request(base64.b64decode(source, validate=True), top_k)
        except (binascii.Error, ValueError):
            raise BadRequest('"image" is not valid base64') from None
    try:
        return Request(fetch_url(source), top_k)
    except Refused as error:
        raise BadRequest(str(error), 422) from None


def _top_k(value: Any) -> int | None:
    if value == "all":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadRequest('"top_k" is a whole number of at least 1, or "all"')
    return value


def predict_fn(request: Request, model: Model) -> dict[str, Any]:
    """Answers a request; raises BadRequest (422) for a picture that cannot be used."""
    try:
        pixels = decode(request.picture, model.preprocessing)
    except BadPicture as error:
        raise BadRequest(str(error), 422) from None
    return to_json(model.answer([pixels])[0], model, request.top_k)


def to_json(answer: Answer, model: Model, top_k: int | None) -> dict[str, Any]:
    return {
        "predictions": answer.predictions(model.breeds, top_k or len(model.breeds)),
        "rejected": answer.rejected,
        "rejection_score": answer.rejection_score,
        "model": model.extractor.config.backbone,
    }


def output_fn(prediction: dict[str, Any], accept: str) -> tuple[str, str]:
    """Writes the answer as JSON, the only type there is; raises BadRequest (406) for another one."""
    kinds = {part.partition(";")[0].strip().lower() for part in accept.split(",")} if accept else {JSON}
    if not kinds & {JSON, "application/*", "*/*", ""}:
        raise BadRequest(f"the answer is {JSON}", 406)
    return json.dumps(prediction, ensure_ascii=False), JSON
