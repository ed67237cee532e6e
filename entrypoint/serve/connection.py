"""HTTP/1.1 over connections that nobody can keep: one request each, and limits on their number, size and time.

h11 parses. A connection gets its answer and is closed; a probe opens another one anyway. When there are too many, the
oldest goes: those who open connections and send nothing keep no probe out.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import h11

from .answers import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    Respond = Callable[[bytes, bytes, str, Callable[[Answer], None]], None]

MAX_CONNECTIONS = 64
MAX_HEADER_BYTES = 8192
MAX_SECONDS = 5.0  # for a whole connection
MAX_DISCARDED_BYTES = 65536  # of what comes after a request


class Connections:
    """Makes connections and knows those that are open, the oldest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, respond: Respond) -> None:
        self.loop, self.respond = loop, respond
        self._open: dict[Connection, None] = {}

    def make(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self)

    def opened(self, connection: Connection) -> None:
        """Close the oldest connections if there are too many."""
        self._open[connection] = None
        while len(self._open) > MAX_CONNECTIONS:
            oldest = next(iter(self._open))
            self.closed(oldest)
            oldest.transport.abort()

    def closed(self, connection: Connection) -> None:
        """A connection is not open any more."""
        self._open.pop(connection, None)


class Connection(asyncio.Protocol):
    """One request and its answer."""

    transport: asyncio.Transport

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._http = h11.Connection(h11.SERVER)
        self._left = MAX_HEADER_BYTES
        self._has_request = False
        self._is_answered = False
        self._client_has_ended = False
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._timer = self._connections.loop.call_later(MAX_SECONDS, self.transport.abort)
        self._connections.opened(self)

    def connection_lost(self, _: Exception | None) -> None:
        """It is closed."""
        self._timer.cancel()
        self._connections.closed(self)

    def data_received(self, data: bytes) -> None:
        """Something has come: a part of the request, or what the client sends after it."""
        if self._has_request:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED_BYTES:
                self.transport.abort()
            return
        try:
            self._http.receive_data(data[: self._left])
            self._left -= len(data)
            event = self._http.next_event()
            if event is h11.NEED_DATA and self._left <= 0:
                raise h11.RemoteProtocolError("too large", error_status_hint=431)
        except h11.RemoteProtocolError as error:
            self._send(b"", Answer(error.error_status_hint, "no valid request, or too large"))
            return
        if isinstance(event, h11.Request):
            accept = ",".join(value.decode("latin-1") for name, value in event.headers if name == b"accept")
            self._has_request = True
            self._connections.respond(event.method, event.target, accept, partial(self._send, event.method))

    def eof_received(self) -> bool:
        """The client has closed its end. Return whether ours is to stay open: until its request is answered.

        If not, what was written is sent first.
        """
        self._client_has_ended = True
        return self._has_request and not self._is_answered

    def _send(self, method: bytes, answer: Answer) -> None:
        """Send the answer, and our end of the connection. The client closes its own, or time is up.

        A socket that is closed with something unread is reset, and the client might not see the answer.
        """
        self._has_request = self._is_answered = True
        if self.transport.is_closing():
            return
        headers = {
            "Content-Type": answer.kind,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
            "Connection": "close",
            **answer.headers,
        }
        events: list[h11.Event] = [
            h11.Response(
                status_code=answer.status,
                reason=HTTPStatus(answer.status).phrase.encode(),
                headers=list(headers.items()),
            )
        ]
        if method != b"HEAD":
            events.append(h11.Data(data=answer.body))
        parts = [self._http.send(event) or b"" for event in (*events, h11.EndOfMessage())]
        self.transport.write(b"".join(parts))
        if self._client_has_ended:
            self.transport.close()
        else:
            self.transport.write_eof()
