"""The hooks as AWS's own PyTorch serving container calls them: through its real toolkit, without its Java server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from photographs import BREEDS, CLASSES
from sagemaker_pytorch_serving_container.handler_service import HandlerService

from dogbreed.train import Trained


class Context:
    """What the Java server tells of a request, and what it is told of the answer."""

    model_name = "model"

    def __init__(self, folder: Path) -> None:
        self.system_properties = {"model_dir": str(folder)}
        self.properties: dict[str, str] = {}
        self.request_processor = [self]
        self.status, self.content_type = 200, ""

    def get_request_properties(self) -> dict[str, str]:
        return self.properties

    def set_response_status(self, code: int, phrase: str) -> None:
        self.status = code

    def set_response_content_type(self, _: int, value: str) -> None:
        self.content_type = value


@pytest.fixture
def context(trained: Trained) -> Context:
    return Context(trained.folder)


@pytest.fixture
def service(trained: Trained, context: Context, monkeypatch: pytest.MonkeyPatch) -> HandlerService:
    monkeypatch.syspath_prepend(str(trained.folder / "code"))
    monkeypatch.setenv("PYTHONPATH", "")
    service = HandlerService()
    service.initialize(context)
    return service


def ask(service: HandlerService, context: Context, body: bytes, kind: str, accept: str = "application/json") -> str:
    context.properties = {"Content-Type": kind, "Accept": accept}
    (answer,) = service.handle([{"body": bytearray(body)}], context)
    assert isinstance(answer, str)
    return answer


def test_a_picture_is_answered(service: HandlerService, context: Context, photos: Path) -> None:
    picture = sorted((photos / "test" / CLASSES[1]).iterdir())[0].read_bytes()
    answer = json.loads(ask(service, context, picture, "image/jpeg"))
    assert (context.status, context.content_type) == (200, "application/json")
    assert answer["predictions"][0]["breed"] == BREEDS[1]


@pytest.mark.parametrize(
    ("body", "kind", "accept", "status", "reason"),
    [
        (b"no picture", "image/jpeg", "application/json", 422, "not a picture in a known format"),
        (b"{", "application/json", "application/json", 400, "not valid JSON"),
        (b"dog", "text/plain", "application/json", 415, "is not supported"),
        (b"dog", "image/jpeg", "text/csv", 422, "not a picture"),
    ],
)
def test_a_refusal_keeps_its_status_and_its_reason(
    service: HandlerService, context: Context, body: bytes, kind: str, accept: str, status: int, reason: str
) -> None:
    answer = ask(service, context, body, kind, accept)
    first, _, trace = answer.partition("\n")
    error: dict[str, Any] = json.loads(first)
    assert context.status == status and reason in error["error"]
    assert "Traceback" in trace, "the toolkit adds it; the function in front of the endpoint leaves it out"
