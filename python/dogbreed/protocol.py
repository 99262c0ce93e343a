"""HTTP/1.1 connections that nobody can hold for ever: limits on time and number around uvicorn's own protocol."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 15.0
WRITE_TIMEOUT_S = 15.0  # in which a caller must take some of an answer; within the time that stopping may take
KEEP_ALIVE_S = 75  # longer than load balancers keep a connection, so that it is never closed under a request
MAX_HEADERS_BYTES = 64 * 1024
MAX_CONNECTIONS = 1024


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, which waits for ever by itself: for headers, for the rest of a body that was answered early,
    for callers that do not read. Its own refusals are plain text; these are JSON, as all others are."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._end(503, "too many connections; try again in some seconds")
        else:
            self._wait(HEADERS_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        theirs = self.conn.their_state
        if theirs is h11.IDLE and self.conn.trailing_data[0]:
            self._wait(HEADERS_TIMEOUT_S)
        elif theirs is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            self._wait(BODY_TIMEOUT_S)  # the rest of a body that is answered already
        elif not self.flow.write_paused:
            self._stop_waiting()
            if theirs is h11.IDLE and not self.transport.is_closing():  # that rest has ended
                self._unset_keepalive_if_required()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_waiting()
        self._wait(WRITE_TIMEOUT_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Also when the application is about to answer, or has answered: uvicorn's own would fail then."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._end(400, "this is not valid HTTP/1.1")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _end(self, status: int, problem: str) -> None:
        """Answers, if no answer has begun, and closes the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": problem}).encode()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
            if status == 503:
                headers["Retry-After"] = "1"
            response = h11.Response(status_code=status, headers=[*headers.items()], reason=HTTPStatus(status).phrase)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait(self, seconds: float) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
