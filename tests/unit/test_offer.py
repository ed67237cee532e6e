"""What is put into the agent's environment, and what can be missing for it."""

from __future__ import annotations

import _socket
import errno
import os
import re
import sys

import pytest

from entrypoint import settings as reader
from entrypoint.init import agent_environment as offer


def made(*flags: str, problems: list[str] | None = None, **given: str) -> tuple[offer.Offer | None, dict[str, str]]:
    environment = {name.encode(): value.encode() for name, value in given.items()}
    settings = reader.read([*flags, "--", "agent"], {})
    offered = offer.make(settings, environment, "/package", [] if problems is None else problems)
    return offered, {name.decode(): value.decode() for name, value in environment.items()}


def withdrawn(offered: offer.Offer | None) -> offer.Offer:
    """Nothing is left behind."""
    assert offered is not None
    if offered.socket is not None:
        offered.socket.close()
    offered.withdraw()
    assert not offered.directory or not os.path.exists(offered.directory)
    return offered


def test_stacks_can_be_had_without_a_socket() -> None:
    offered, environment = made("--no-notify", "--stacks", PYTHONPATH="/app", NOTIFY_SOCKET="/above")
    offered = withdrawn(offered)
    assert environment == {
        "PYTHONPATH": "/package/entrypoint/agent/site:/app",
        "NOTIFY_SOCKET": "/above",
        reader.RESPONDERS: offered.responders,
    }
    assert (offered.socket, offered.above) == (None, "")


def test_neither_is_nothing() -> None:
    assert made("--no-notify", A="b") == (None, {"A": "b"})


def test_elsewhere_than_on_linux_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert made("--stacks", A="b") == (None, {"A": "b"})


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), OSError("odd")])
def test_a_socket_that_cannot_be_had_is_a_problem_and_not_offered(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(*_: object) -> object:
        raise error

    monkeypatch.setattr(_socket, "socket", refuse)
    problems: list[str] = []
    offered, environment = made("--watchdog", "1s", problems=problems, NOTIFY_SOCKET="/above")
    offered = withdrawn(offered)
    assert problems == [f"no notify socket for the agent: {error.strerror or error}"]
    assert (offered.socket, offered.above, environment["NOTIFY_SOCKET"]) == (None, "", "/above")
    assert "WATCHDOG_USEC" not in environment


class Unbound(_socket.socket):
    """One that can be had, but gets no name."""

    def bind(self, address: object) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def test_a_socket_without_a_name_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    directories: list[str] = []
    mkdir = os.mkdir

    def note(path: str, mode: int) -> None:
        mkdir(path, mode)
        directories.append(path)

    monkeypatch.setattr(_socket, "socket", Unbound)
    monkeypatch.setattr(os, "mkdir", note)
    problems: list[str] = []
    offered, environment = made(problems=problems)
    assert withdrawn(offered).socket is None
    assert problems == ["no notify socket for the agent: Address already in use"]
    assert "NOTIFY_SOCKET" not in environment
    assert directories
    assert not any(map(os.path.exists, directories))


def test_where_nothing_can_be_written_its_name_is_abstract(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise OSError(errno.EROFS, path)

    monkeypatch.setattr(os, "mkdir", refuse)
    offered, environment = made()
    assert environment["NOTIFY_SOCKET"].startswith("@agent-init-")
    assert offered is not None
    assert offered.socket is not None
    assert offered.socket.getsockname().decode() == "\0" + environment["NOTIFY_SOCKET"][1:]
    assert withdrawn(offered).directory == ""


@pytest.mark.parametrize(("user", "modes"), [(0, (0o711, 0o666)), (1000, (0o700, 0o600))])
def test_roots_socket_can_be_reached_by_others_and_anybody_elses_cannot(
    monkeypatch: pytest.MonkeyPatch, user: int, modes: tuple[int, int]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    offered, environment = made(NOTIFY_SOCKET="/above")
    assert offered is not None
    path = environment["NOTIFY_SOCKET"]
    assert re.search("-[0-9a-f]{12,}/notify$", path)  # nobody guesses it
    assert path == offered.directory + "/notify"
    assert tuple(os.stat(name).st_mode & 0o777 for name in (offered.directory, path)) == modes
    assert offered.socket is not None
    assert not os.get_blocking(offered.socket.fileno())
    assert withdrawn(offered).above == "/above"


def test_what_another_around_us_has_said_of_the_time_to_stop_is_not_ours() -> None:
    offered, environment = made(AGENT_INIT_STOP_SECONDS="7")  # how long ours takes is the platform's
    withdrawn(offered)
    assert reader.STOP_SECONDS not in environment


@pytest.mark.parametrize(("given", "told"), [("2s", "2000000"), ("0.000001", "1"), ("0.0000001", "1")])
def test_a_watchdog_is_told_in_whole_microseconds(given: str, told: str) -> None:
    """And never as 0: that is none (sd_watchdog_enabled(3))."""
    offered, environment = made("--watchdog", given)
    withdrawn(offered)
    assert (environment["WATCHDOG_USEC"], environment["WATCHDOG_PID"]) == (told, str(os.getpid()))
