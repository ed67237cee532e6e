"""What is answered on which path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from . import state as states
from .loops import Loops
from .measures import Measures
from .metrics import Expositions

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .state import Source

TEXT, JSON = "text/plain; charset=utf-8", "application/json"
METHODS = (b"GET", b"HEAD")


class Answer:
    """The status, the type and the content of an answer, and headers that belong to it."""

    def __init__(self, status: int, text: str | bytes, kind: str = TEXT, **headers: str) -> None:
        self.status, self.kind, self.headers = status, kind, headers
        self.body = text if isinstance(text, bytes) else f"{text}\n".encode()


class Answers:
    """Answers requests about the newest state. `on_request` is called for each."""

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop, on_request: Callable[[], None]) -> None:
        self._source, self._on_request = source, on_request
        self._measures = Measures()
        self._loops = Loops(source, self._measures.tree, loop)
        self._expositions = Expositions(source, self._measures, self._loops)
        self._paths: dict[bytes, Callable[[str], Answer]] = {
            b"/readyz": self._ready,
            b"/livez": self._live,
            b"/startupz": self._startup,
            b"/status": self._status,
            b"/metrics": self._metrics,
        }

    def answer(self, method: bytes, target: bytes, accept: str, send: Callable[[Answer], None]) -> None:
        """Call `send` with the answer to a request: at once, but for the metrics. `accept`: its Accept header."""
        self._on_request()
        path = target.partition(b"?")[0]
        if method not in METHODS:
            send(Answer(405, "only GET and HEAD are accepted", Allow="GET, HEAD"))
        elif path not in self._paths:
            known = " ".join(sorted(name.decode() for name in self._paths))
            send(Answer(404, f"not found; there are: {known}"))
        elif path == b"/metrics":
            self._loops.ask(lambda: send(self._metrics(accept)))
        else:
            send(self._paths[path](accept))

    def _ready(self, _: str) -> Answer:
        state = self._source.state
        return Answer(200, "ready") if state.is_ready else Answer(503, f"not ready: {state.name}")

    def _live(self, _: str) -> Answer:
        hung = self._source.state.hung
        return Answer(503, f"the agent hangs ({hung})") if hung else Answer(200, "no hang detected")

    def _startup(self, _: str) -> Answer:
        if self._source.state.was_ready:
            return Answer(200, "started")
        return Answer(503, "the agent has not sent READY=1")

    def _status(self, _: str) -> Answer:
        found = states.as_json(self._source.state, self._measures.tree, self._measures.memory)
        return Answer(200, json.dumps(found), JSON)

    def _metrics(self, accept: str) -> Answer:
        kind, text = self._expositions.get(accept)
        return Answer(200, text, kind)
