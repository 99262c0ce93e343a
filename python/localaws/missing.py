"""What is not emulated says so at once: clients retry a 500 for minutes, a 400 never."""

from __future__ import annotations

import logging
from typing import Any, cast

import flask
from moto.backends import SERVICE_NAMES
from moto.core.exceptions import ServiceException
from moto.core.request import normalize_request
from moto.core.responses import ActionResult, BaseResponse
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.exceptions import HTTPException

log = logging.getLogger("localaws")


class NotEmulated(ServiceException):
    """An action of AWS that neither moto nor localaws has."""

    code = "NotEmulated"


class EmulationFailed(ServiceException):
    """A mistake of moto's, or of ours, while it answered."""

    code = "EmulationFailed"


def create_app(service: SERVICE_NAMES) -> flask.Flask:
    """moto's application for a service; answers 400 and says why where moto answers an HTML page with 404 or 500."""
    app = create_backend_app(service)

    @app.errorhandler(Exception)
    def refuse(failure: Exception) -> Any:
        unrouted = isinstance(failure, HTTPException) and flask.request.url_rule is None
        if isinstance(failure, HTTPException) and not unrouted:
            return failure
        response = BaseResponse(service)
        request = normalize_request(cast(Any, flask.request))
        response.setup_class(request, request.raw_url, dict(request.headers))
        action = f"{service}:{response._get_action() or f'{request.method} {request.path}'}"
        error: ServiceException
        if unrouted or isinstance(failure, NotImplementedError):
            error = NotEmulated(f"not emulated locally: {action}")
            log.warning("%s", error.message)
        else:
            error = EmulationFailed(f"failed locally: {action}: {type(failure).__name__}: {failure}")
            log.error("%s", error.message, exc_info=failure)
        _, headers, body = response.serialized(ActionResult(error))
        return flask.Response(cast(Any, body), 400, headers)

    return app
