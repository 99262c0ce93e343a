"""moto's web application with our routes and errors."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler
from werkzeug.serving import BaseWSGIServer
from werkzeug.serving import make_server as make_werkzeug_server

from localaws.missing import create_app

log = logging.getLogger("localaws")


WAITING = {"s3", "sqs", "states"}
"""Services whose requests may take long: objects of gigabytes, a queue or a state machine that is waited for."""


class Application(DomainDispatcherApplication):
    """Sends a request to the application of its service, and answers for the server itself at `health_path`.

    moto's backends are not made for threads: two changes of one security group at a time lose one of them. So the
    requests of a service go through one after the other, where they are calls of an API (all of them at the path "/").
    """

    def __init__(self, health_path: str, health: dict[str, Any]) -> None:
        super().__init__(create_app)
        self.health_path = health_path
        self.health = json.dumps(health).encode()
        self._locks: dict[str, Lock] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == self.health_path:
            start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(self.health)))])
            return [self.health]
        with self._turn(environ):
            answer: Iterable[bytes] = super().__call__(environ, start_response)
            return answer

    def _turn(self, environ: dict[str, Any]) -> AbstractContextManager[Any]:
        signed = re.search("/([a-z0-9-]+)/aws4_request", environ.get("HTTP_AUTHORIZATION", ""))
        if environ.get("PATH_INFO") != "/" or not signed or signed[1] in WAITING:
            return nullcontext()
        return self._locks.setdefault(signed[1], Lock())  # atomic, other than a look-up and an insertion


class RequestHandler(MotoRequestHandler):
    """Logs what went wrong, not each of a Terraform run's thousand requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code).startswith(("4", "5")):
            target = self.headers.get("X-Amz-Target") or self.path
            log.info("%s %s %s", code, self.command, target)


def make_server(listener: socket.socket, health_path: str, health: dict[str, Any]) -> BaseWSGIServer:
    """A server with a thread per request on a socket that listens already."""
    host, port = listener.getsockname()
    application = Application(health_path, health)
    return make_werkzeug_server(
        host, port, application, threaded=True, request_handler=RequestHandler, fd=listener.fileno()
    )
