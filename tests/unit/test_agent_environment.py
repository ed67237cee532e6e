"""Variables and the notify socket for the agent, also where they cannot be made."""

from __future__ import annotations

import _socket
import errno
import math
import os
import posix
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import parsed
from entrypoint import settings as reader
from entrypoint.init import agent_environment, cpu_limit, lifecycle, planning
from entrypoint.init.agent_environment import AgentEnvironment
from entrypoint.signals import TERM

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's: an address has at most 107 bytes (unix(7))."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


def make(
    *flags: str, problems: list[str] | None = None, **given: str
) -> tuple[AgentEnvironment | None, dict[str, str]]:
    """Return what is made with these `flags`, and the environment that follows from `given`."""
    environment = {name.encode(): value.encode() for name, value in given.items()}
    settings = reader.read([*flags, "--", "agent"], {})
    made = agent_environment.make(settings, environment, "/package", [] if problems is None else problems)
    return made, {name.decode(): value.decode() for name, value in environment.items()}


def cleaned_up(made: AgentEnvironment | None) -> AgentEnvironment:
    """Check that `cleanup` leaves nothing behind."""
    assert made is not None
    if made.socket is not None:
        made.socket.close()
    made.cleanup()
    assert not made.file or not os.path.exists(made.file)
    made.cleanup()  # harmless
    return made


def test_stacks_need_no_notify_socket() -> None:
    made, environment = make("--no-notify", "--stacks", PYTHONPATH="/app", NOTIFY_SOCKET="/parent")
    made = cleaned_up(made)
    assert environment == {
        "PYTHONPATH": "/package/entrypoint/agent/site:/app",
        "NOTIFY_SOCKET": "/parent",
        parsed.RESPONDERS: made.responders,
    }
    assert (made.socket, made.parent_socket) == (None, "")


def test_the_limit_of_the_loop_watch_is_given_in_seconds() -> None:
    """Whoever has set it: the option goes before a variable that the agent would inherit."""
    made, environment = make("--no-notify", "--loop-watch", "250ms", AGENT_INIT_LOOP_WATCH="3m")
    made = cleaned_up(made)
    assert environment == {
        "PYTHONPATH": "/package/entrypoint/agent/site",
        parsed.RESPONDERS: made.responders,
        parsed.LOOP_WATCH: "0.25",
    }
    assert make("--no-notify", "--loop-watch", "0", AGENT_INIT_LOOP_WATCH="3m") == (None, {})


def test_without_notify_and_stacks_nothing_is_made() -> None:
    assert make("--no-notify", A="b") == (None, {"A": "b"})


def test_nothing_is_made_where_there_is_no_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert make("--stacks", A="b") == (None, {"A": "b"})


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), OSError("odd")])
def test_a_socket_that_cannot_be_made_is_a_problem(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(*_: object) -> object:
        raise error

    monkeypatch.setattr(_socket, "socket", refuse)
    problems: list[str] = []
    made, environment = make("--watchdog", "1s", problems=problems, NOTIFY_SOCKET="/parent")
    made = cleaned_up(made)
    assert problems == [f"no notify socket for the agent: {error.strerror or error}"]
    assert (made.socket, made.parent_socket, environment["NOTIFY_SOCKET"]) == (None, "", "/parent")
    assert "WATCHDOG_USEC" not in environment


class Places:
    """Has sockets refuse to be bound to some addresses, and keeps all that are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refused: str) -> None:
        asked = self.asked = list[str]()

        class Picky(_socket.socket):
            def bind(self, address: Any) -> None:
                asked.append(str(address))
                if str(address).startswith(refused):
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                super().bind(address)

        monkeypatch.setattr(_socket, "socket", Picky)

    @property
    def directories(self) -> list[str]:
        return [os.path.dirname(address) for address in self.asked]


def test_a_socket_that_cannot_be_bound_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    places = Places(monkeypatch, "")
    problems: list[str] = []
    made, environment = make(problems=problems, TMPDIR=str(short_path))
    assert cleaned_up(made).socket is None
    assert problems == ["no notify socket for the agent: Address already in use"]
    assert "NOTIFY_SOCKET" not in environment
    assert len(places.asked) == 3
    assert os.listdir(short_path) == []
    assert len(os.listdir("/proc/self/fd")) == opened


def test_where_no_directory_can_be_written_the_socket_is_abstract(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(monkeypatch, "/")
    made, environment = make()
    assert environment["NOTIFY_SOCKET"].startswith("@agent-init-")
    assert made is not None
    assert made.socket is not None
    assert made.socket.getsockname().decode() == "\0" + environment["NOTIFY_SOCKET"][1:]
    assert cleaned_up(made).file == ""
    assert places.directories[:2] == ["/run", "/tmp"]


@pytest.mark.parametrize(
    ("given", "place"), [(None, "/tmp"), ("", "/tmp"), ("scratch", "/tmp"), ("./scratch", "/tmp"), ("{}", "{}")]
)
def test_where_run_cannot_be_written_the_socket_lies_in_tmpdir_if_that_is_absolute(
    monkeypatch: pytest.MonkeyPatch, short_path: Path, given: str | None, place: str
) -> None:
    """A relative address is none, and the agent may have another working directory."""
    (short_path / "scratch").mkdir()
    monkeypatch.chdir(short_path)
    places = Places(monkeypatch, "/run/")
    made, environment = make() if given is None else make(TMPDIR=given.format(short_path))
    assert places.directories == ["/run", place.format(short_path)]
    assert environment["NOTIFY_SOCKET"] == places.asked[-1]
    assert made is not None
    assert made.socket is not None
    assert made.socket.getsockname() == environment["NOTIFY_SOCKET"]
    cleaned_up(made)
    assert os.listdir(short_path) == ["scratch"]
    assert os.listdir("scratch") == []


@pytest.mark.parametrize("refused", [(), ("",)], ids=["bound", "not bound"])
def test_the_mask_of_new_files_stays_the_agents(monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]) -> None:
    Places(monkeypatch, *refused)
    previous = os.umask(0o027)
    try:
        cleaned_up(make()[0])
    finally:
        left = os.umask(previous)
    assert left == 0o027


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
@pytest.mark.parametrize(("user", "mode"), [(0, 0o666), (1000, 0o600)])
def test_only_the_socket_of_root_can_be_used_by_other_users(
    monkeypatch: pytest.MonkeyPatch, user: int, mode: int, mask: int
) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: user)
    previous = os.umask(mask)
    try:
        made, environment = make(NOTIFY_SOCKET="/parent")
    finally:
        os.umask(previous)
    assert made is not None
    path = environment["NOTIFY_SOCKET"]
    assert re.search("-[0-9a-f]{12,}$", path)  # cannot be guessed
    assert path == made.file
    assert os.stat(path).st_mode & 0o777 == mode
    assert made.socket is not None
    assert not os.get_blocking(made.socket.fileno())
    assert cleaned_up(made).parent_socket == "/parent"


def test_the_stop_time_of_an_agent_init_above_is_removed() -> None:
    made, environment = make(AGENT_INIT_STOP_SECONDS="7")  # without a grace of ours the time is not known
    cleaned_up(made)
    assert parsed.STOP_SECONDS not in environment


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        (["--grace", "30s"], 28.5),  # the stall report takes its share
        (["--grace", "30s", "--stop-delay", "10s"], 18.5),
        (["--stop-schedule", "TERM/20s/KILL"], 18.5),
        (["--grace", "0s"], 0.0),
        (["--platform-grace", "60s"], 56.5),  # SIGKILL comes 2 s before the platform's
    ],
    ids=str,
)
def test_a_known_stop_time_is_given_in_seconds(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], seconds: float
) -> None:
    monkeypatch.setattr(cpu_limit, "cpus", lambda: None)
    made, environment = make(*flags, AGENT_INIT_STOP_SECONDS="7")
    cleaned_up(made)
    assert float(environment[parsed.STOP_SECONDS]) == seconds


@pytest.mark.parametrize(
    ("flags", "cpus", "seconds"),
    [
        (["--grace", "30s"], 0.08, 30 - 9.375),
        (["--grace", "60s"], 0.01, 50.0),
        (["--grace", "4s"], 0.08, 2.0),
        (["--grace", "30s", "--stop-delay", "20s"], 0.08, 5.0),
        (["--grace", "30s"], 0.5, 28.5),
        (["--grace", "infinity"], 0.08, math.inf),
    ],
    ids=str,
)
def test_with_little_processor_time_the_stop_time_ends_with_the_earlier_report(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], cpus: float, seconds: float
) -> None:
    """What the agent is given is when the state machine acts: see `Lifecycle`."""
    monkeypatch.setattr(cpu_limit, "cpus", lambda: cpus)
    made, environment = make(*flags)
    cleaned_up(made)
    assert float(environment[parsed.STOP_SECONDS]) == pytest.approx(seconds)
    settings = reader.read([*flags, "--", "agent"], {})
    plan = planning.make(settings, {}, lambda _: False)
    plan.allow_report(cpus)
    life = lifecycle.Lifecycle(settings, plan, 0.0)
    life.signal(0.0, TERM, None)
    if settings.stop_delay:
        life.tick(settings.stop_delay)
    acts = [at for timer, at in life._timers.items() if timer in ("stall_report", "step")]
    assert min(acts, default=math.inf) - settings.stop_delay == pytest.approx(seconds)


@pytest.mark.parametrize(("given", "microseconds"), [("2s", "2000000"), ("0.000001", "1"), ("0.0000001", "1")])
def test_the_watchdog_time_is_given_in_whole_microseconds(given: str, microseconds: str) -> None:
    """Never as 0, which means no watchdog (sd_watchdog_enabled(3))."""
    made, environment = make("--watchdog", given)
    cleaned_up(made)
    assert (environment["WATCHDOG_USEC"], environment["WATCHDOG_PID"]) == (microseconds, str(os.getpid()))
