"""The parts of the server, and their order: the first state, the sockets, the user, the loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from functools import partial
from typing import TYPE_CHECKING

from .. import http_state
from . import privileges
from .answers import Answers
from .connection import Connections
from .state import Source

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG = 64
STATE_FD = 0
BEFORE_EXIT = 0.2  # seconds for answers that are on their way


def main(host: str, port: int) -> int:
    """Serve until process 1 ends; return the exit code."""
    source = Source(STATE_FD)
    if not source.wait():
        return 0
    try:
        listeners = listen(host, port)
    except OSError as error:
        return http_state.CANNOT_LISTEN + (error.errno or 0)
    loop = _new_loop()
    user = privileges.drop(source.state.agent)  # who may not be able to read the packages: import nothing from here on
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        loop.stop()

    def look() -> None:
        if user.has_changed(source.state.agent):
            loop.call_later(BEFORE_EXIT, end, http_state.OTHER_USER)

    os.set_blocking(STATE_FD, False)
    loop.add_reader(STATE_FD, partial(_receive, source, look, partial(end, 0)))
    connections = Connections(loop, Answers(source, loop, look).answer)
    for listener in listeners:
        loop.run_until_complete(loop.create_server(connections.make, sock=listener, backlog=BACKLOG))
    loop.run_forever()
    return codes[0]


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that are bound to the address; without one to loopback, IPv6's too if there is one.

    Raises OSError.
    """
    if host:
        return [_bind(host, port)]
    sockets = [_bind("127.0.0.1", port)]
    try:
        sockets.append(_bind("::1", port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:  # a client of localhost would reach another process
            raise
        # Else there is no IPv6 here: not in the kernel, no address ::1, or not for this container.
    return sockets


def _bind(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4's addresses too
        made.bind((host, port))
        made.listen(BACKLOG)  # two sockets may bind to an address, but not listen
        return made
    except OSError:
        made.close()
        raise


def _receive(source: Source, on_state: Callable[[], None], on_end: Callable[[], None]) -> None:
    if source.read():
        on_state()
    else:
        on_end()
