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
from typing import TYPE_CHECKING

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
    assert not made.directory or not os.path.exists(made.directory)
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


class Unbound(_socket.socket):
    """A socket that cannot be bound."""

    def bind(self, address: object) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def test_a_socket_that_cannot_be_bound_leaves_no_directory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    directories: list[str] = []
    mkdir = os.mkdir

    def note(path: str, mode: int) -> None:
        mkdir(path, mode)
        directories.append(path)

    monkeypatch.setattr(_socket, "socket", Unbound)
    monkeypatch.setattr(posix, "mkdir", note)
    problems: list[str] = []
    made, environment = make(problems=problems)
    assert cleaned_up(made).socket is None
    assert problems == ["no notify socket for the agent: Address already in use"]
    assert "NOTIFY_SOCKET" not in environment
    assert directories
    assert not any(map(os.path.exists, directories))


def test_where_no_directory_can_be_written_the_socket_is_abstract(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise OSError(errno.EROFS, path)

    monkeypatch.setattr(posix, "mkdir", refuse)
    made, environment = make()
    assert environment["NOTIFY_SOCKET"].startswith("@agent-init-")
    assert made is not None
    assert made.socket is not None
    assert made.socket.getsockname().decode() == "\0" + environment["NOTIFY_SOCKET"][1:]
    assert cleaned_up(made).directory == ""


class Refusal:
    """Has calls of a function of `posix` fail for some paths, and keeps the paths of all calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *refused: str) -> None:
        self.paths: list[str] = []
        self.refused, self.real = refused, getattr(os, name)
        monkeypatch.setattr(posix, name, self)

    def __call__(self, path: str, mode: int) -> None:
        self.paths.append(path)
        if path.startswith(self.refused):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        self.real(path, mode)


@pytest.mark.parametrize(
    ("given", "place"), [(None, "/tmp"), ("", "/tmp"), ("scratch", "/tmp"), ("./scratch", "/tmp"), ("{}", "{}")]
)
def test_where_run_cannot_be_written_the_socket_lies_in_tmpdir_if_that_is_absolute(
    monkeypatch: pytest.MonkeyPatch, short_path: Path, given: str | None, place: str
) -> None:
    """A relative address is none, and the agent may have another working directory."""
    (short_path / "scratch").mkdir()
    monkeypatch.chdir(short_path)
    made_in = Refusal(monkeypatch, "mkdir", "/run/")
    made, environment = make() if given is None else make(TMPDIR=given.format(short_path))
    assert [os.path.dirname(path) for path in made_in.paths] == ["/run", place.format(short_path)]
    assert environment["NOTIFY_SOCKET"] == f"{made_in.paths[-1]}/notify"
    assert made is not None
    assert made.socket is not None
    assert made.socket.getsockname() == environment["NOTIFY_SOCKET"]
    cleaned_up(made)
    assert os.listdir(short_path) == ["scratch"]
    assert os.listdir("scratch") == []


@pytest.mark.parametrize("what", ["the socket", "the directory"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_where_modes_cannot_be_changed_the_next_place_is_tried(
    monkeypatch: pytest.MonkeyPatch, short_path: Path, everywhere: bool, what: str
) -> None:
    """Nothing is left behind in the first place, no descriptor either."""
    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(posix, "geteuid", lambda: 0)
    places = Refusal(monkeypatch, "mkdir")
    chmod = Refusal(monkeypatch, "chmod")
    chmod.refused = ("/run/", *[f"{short_path}/"] * everywhere)
    if what == "the directory":
        real = chmod.real
        monkeypatch.setattr(
            posix, "chmod", lambda path, mode: (real if path.endswith("/notify") else chmod)(path, mode)
        )
    problems: list[str] = []
    made, environment = make(problems=problems, TMPDIR=str(short_path))
    assert [os.path.dirname(path) for path in places.paths] == ["/run", str(short_path)]
    assert any(path.startswith(f"{short_path}/") for path in chmod.paths)
    assert problems == []
    assert len(os.listdir("/proc/self/fd")) == opened + 1
    assert not os.path.exists(places.paths[0])
    assert os.path.exists(places.paths[1]) is not everywhere
    assert environment["NOTIFY_SOCKET"].startswith("@" if everywhere else f"{short_path}/")
    assert made is not None
    assert made.socket is not None
    address = made.socket.getsockname()
    assert (address if isinstance(address, str) else "@" + address[1:].decode()) == environment["NOTIFY_SOCKET"]
    assert cleaned_up(made).directory == ("" if everywhere else places.paths[1])
    assert os.listdir(short_path) == []


@pytest.mark.parametrize(("user", "modes"), [(0, (0o711, 0o666)), (1000, (0o700, 0o600))])
def test_only_the_socket_of_root_can_be_used_by_other_users(
    monkeypatch: pytest.MonkeyPatch, user: int, modes: tuple[int, int]
) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: user)
    made, environment = make(NOTIFY_SOCKET="/parent")
    assert made is not None
    path = environment["NOTIFY_SOCKET"]
    assert re.search("-[0-9a-f]{12,}/notify$", path)  # cannot be guessed
    assert path == made.directory + "/notify"
    assert tuple(os.stat(name).st_mode & 0o777 for name in (made.directory, path)) == modes
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
