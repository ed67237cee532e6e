"""When an agent counts as up: `--up`, or what shows it by itself."""

from __future__ import annotations

import abc
import http.client
import socket
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Protocol

from .. import units
from ..signals import quote

READY = "READY=1"
OF_QUIET = " of quiet"  # after a time: how that sign is named
QUIET_SECONDS = 3.0  # without output or a new process, after some output
SILENT_SECONDS = 6.0  # the same, of an agent that has printed nothing at all
SETTLED_SECONDS = 0.5  # the same, after a port was opened: the master of a server opens it before its workers are there
MAX_SETTLE_SECONDS = 5.0
AUTOMATIC_SECONDS = 30.0  # then an agent that shows none of the signs is taken to be up
PROBE_SECONDS, BETWEEN_PROBES = 0.5, 0.1
ACCEPTED = "READY=1, the text of a log line, tcp:PORT, tcp:HOST:PORT, an http:// or https:// URL, a time such as 5s"


class NotUp(Exception):
    """The agent has not come up, has ended before anybody asked it to, or its work has failed: the text says which."""


class PortInUse(NotUp):
    """The agent has ended at once, as another process, or a connection that was closed, still has its port."""


@dataclass
class Signs:
    """What was seen of an agent's start so far. Times by the monotonic clock."""

    started: float
    now: float = 0.0
    ready_at: float | None = None
    texts: list[tuple[float, str]] = field(default_factory=list)  # lines of the agent
    ports: dict[int, float] = field(default_factory=dict)  # that it listens on, and since when
    active_at: float = 0.0  # the last output, or the last process that began or ended
    up_at: float | None = None  # since when the agent counts as up


class Condition(Protocol):
    """A way to see that an agent is up."""

    @property
    def text(self) -> str:
        """For people."""

    def check(self, signs: Signs) -> float | None:
        """Return since when the agent is up; None: it is not."""


@dataclass(frozen=True)
class Ready:
    """READY=1 has come."""

    text: str = READY

    def check(self, signs: Signs) -> float | None:
        """Return when it came."""
        return signs.ready_at


@dataclass
class LogLine:
    """The agent has printed a line with this text."""

    part: str
    _checked: int = 0

    @property
    def text(self) -> str:
        """For people."""
        return f"the line {quote(self.part)}"

    def check(self, signs: Signs) -> float | None:
        """Return when it was printed."""
        new, self._checked = signs.texts[self._checked :], len(signs.texts)
        return next((at for at, text in new if self.part in text), None)


@dataclass(frozen=True)
class After:
    """So many seconds have passed since the start."""

    seconds: float

    @property
    def text(self) -> str:
        """For people."""
        return f"{units.format_duration(self.seconds)} after the start"

    def check(self, signs: Signs) -> float | None:
        """Return when they had passed."""
        at = signs.started + self.seconds
        return at if signs.now >= at else None


class Probe(abc.ABC):
    """A question to the agent from outside, asked once in BETWEEN_PROBES seconds at most."""

    _next = 0.0

    @abc.abstractmethod
    def answers(self) -> bool:
        """Whether the agent answers as it should."""

    def check(self, signs: Signs) -> float | None:
        """Return now, if it does."""
        if signs.now < self._next:
            return None
        answered = self.answers()
        self._next = time.monotonic() + BETWEEN_PROBES
        return signs.now if answered else None


@dataclass
class Port(Probe):
    """A TCP port accepts connections."""

    host: str
    port: int

    @property
    def text(self) -> str:
        """For people."""
        return f"tcp:{self.port}" if self.host == "localhost" else f"tcp:{self.host}:{self.port}"

    def answers(self) -> bool:
        """Whether a connection is accepted."""
        try:
            with socket.create_connection((self.host, self.port), PROBE_SECONDS):
                return True
        except OSError:
            return False


@dataclass
class Url(Probe):
    """A URL answers with a status below 400."""

    text: str

    def answers(self) -> bool:
        """Whether it answers."""
        parts = urllib.parse.urlsplit(self.text)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")))
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass
class Automatic:
    """READY=1, a port and then no change, or output and then none for longer: what is seen first.

    `found`: the text of what was seen. `at_least`: seconds that a start is known to take; once it is known, less quiet
    is enough.
    """

    text: str = "automatic"
    found: str = ""
    at_least: float = 0.0

    def check(self, signs: Signs) -> float | None:
        """Return since when the agent seems to be up."""
        quiet = signs.now - signs.active_at
        needed = QUIET_SECONDS if signs.texts else SILENT_SECONDS
        shorter = 0.5 if self.at_least else 1.0
        if signs.ready_at is not None:
            self.found = READY
            return signs.ready_at
        if signs.ports:
            port, since = min(signs.ports.items(), key=lambda item: item[1])
            if quiet >= SETTLED_SECONDS or signs.now - since >= MAX_SETTLE_SECONDS:
                self.found = f"a listening port ({port})"
                return max(since, min(signs.active_at, signs.now))
        elif signs.now >= signs.started + self.at_least and quiet >= shorter * needed:
            self.found = f"{units.format_duration(needed)}{OF_QUIET}"
            return signs.active_at
        return None


def parse(text: str) -> Condition:
    """Return the condition for the text of `--up`. Raises ValueError, which names what is accepted."""
    if text == READY:
        return Ready()
    if text.startswith("tcp:"):
        return _port(text)
    if text.startswith(("http://", "https://")):
        return _url(text)
    try:
        seconds = units.parse_duration(text)
    except ValueError:
        if not text.strip():
            raise ValueError(f"{quote(text)} shows nothing; accepted: {ACCEPTED}") from None
        return LogLine(text)
    if seconds == units.INFINITY:
        raise ValueError(f"{quote(text)} never ends; accepted: {ACCEPTED}")
    return After(seconds)


def _port(text: str) -> Port:
    host, _, port = text.removeprefix("tcp:").rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "localhost"
    if not _is_host(host):
        raise ValueError(f"{quote(text)} has no valid host name; accepted: {ACCEPTED}")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ValueError(f"{quote(text)} has no port from 1 to 65535; accepted: {ACCEPTED}")
    return Port(host, int(port))


def _url(text: str) -> Url:
    try:
        parts = urllib.parse.urlsplit(text)
        usable = _is_host(parts.hostname or "") and parts.port != 0  # .port raises ValueError where it is none
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{quote(text)} is not a URL; accepted: {ACCEPTED}")
    return Url(text)


def _is_host(text: str) -> bool:
    """Whether the resolver accepts it as a name or an address: it raises UnicodeError for what IDNA cannot encode."""
    try:
        return bool(text) and "\0" not in text and bool(text.encode("idna"))
    except UnicodeError:
        return False


def occupied(condition: Condition | None) -> str:
    """Return what answers before the agent was started; else an empty text."""
    if isinstance(condition, Probe) and condition.answers():
        return condition.text
    return ""
