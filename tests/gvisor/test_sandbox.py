"""In gVisor nothing shows which signals a process handles: who gets which signal there, with genuine programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Sandboxed

PROGRAMS = Path(__file__).with_name("programs")
DRAIN = [sys.executable, str(PROGRAMS / "drain.py")]
ON_THE_RUNNER = [sys.executable, str(PROGRAMS / "on_the_runner.py")]


def test_an_agent_gets_the_signals_that_it_handles(sandboxed: Sandboxed) -> None:
    sandbox = sandboxed("-v", "-v", "--", *DRAIN, "0.5")
    sandbox.wait_for_line("up")
    sandbox.wait_for_line("signal handlers cannot be seen here")
    for name in ("USR1", "HUP", "TERM"):
        sandbox.signal(name)
        sandbox.wait_for_line(f"got SIG{name}")
    assert sandbox.wait() == 0
    assert sandbox.find("got") == ["got SIGUSR1", "got SIGHUP", "got SIGTERM"]
    assert sandbox.find("drained")
    assert len(sandbox.find("signal handlers cannot be seen here")) == 1
    # A record of gVisor's signalfd is two bytes too long; those are no signal.
    assert not sandbox.find("agent-init: 0 from")


def test_an_agent_is_killed_by_a_signal_that_it_does_not_handle(sandboxed: Sandboxed) -> None:
    """The price of forwarding what may be handled."""
    sandbox = sandboxed("--", *DRAIN, "0")
    sandbox.wait_for_line("up")
    sandbox.signal("USR2")
    assert sandbox.wait() == 140


def test_real_time_signals_do_not_kill_the_agent(sandboxed: Sandboxed) -> None:
    sandbox = sandboxed("--", *DRAIN, "0")
    sandbox.wait_for_line("up")
    sandbox.signal("37")
    sandbox.wait_for_line("RTMIN+3 from")
    sandbox.signal("TERM")
    assert sandbox.wait() == 0


@pytest.mark.parametrize(
    "wrapper",
    [
        ["sh", "-c", '"$@"; exit $?', "sh"],
        ["bash", "-c", '"$@" 2>&1 | tee /run/log; exit ${PIPESTATUS[0]}', "bash"],
        ["bash", "-c", 'timeout 60 "$@"; exit $?', "bash"],
        ["timeout", "60"],
    ],
    ids=["sh", "bash and tee", "bash and timeout", "timeout"],
)
def test_an_agent_behind_a_wrapper_drains(sandboxed: Sandboxed, wrapper: list[str]) -> None:
    """For longer than what a wrapper leaves behind would have."""
    sandbox = sandboxed("--linger", "500ms", "-t", "20s", "--", *wrapper, *DRAIN, "2")
    sandbox.wait_for_line("up")
    sandbox.signal("TERM")
    assert sandbox.wait() == 0
    assert sandbox.find("got SIGTERM") == ["got SIGTERM"]
    assert sandbox.find("drained")


def test_a_shell_and_what_it_runs_get_no_signals_but_those_to_stop(sandboxed: Sandboxed) -> None:
    sandbox = sandboxed("--", "sh", "-c", '"$@"; exit $?', "sh", *DRAIN, "0")
    sandbox.wait_for_line("up")
    for name in ("USR1", "USR2"):
        sandbox.signal(name)
        sandbox.wait_for_line(f"{name} from")
    assert len(sandbox.find("dropped: no process is known to handle it")) == 2
    sandbox.signal("HUP")
    assert sandbox.wait() == 0
    assert sandbox.find("got SIG") == ["got SIGTERM"]


@pytest.mark.parametrize("wrapper", [[], ["sh", "-c", '"$@"; exit $?', "sh"]], ids=["direct", "behind sh"])
def test_an_agent_that_has_reported_its_handlers_gets_these_signals_only(
    sandboxed: Sandboxed, wrapper: list[str]
) -> None:
    sandbox = sandboxed("--", *wrapper, *ON_THE_RUNNER)
    sandbox.wait_for_line("the agent is ready")
    sandbox.signal("USR2")
    sandbox.wait_for_line("USR2 from")
    sandbox.signal("USR1")
    sandbox.wait_for_line("got SIGUSR1")
    sandbox.signal("HUP")  # not handled: a stop request
    assert sandbox.wait() == 0
    assert sandbox.find("cleaned up")


def test_a_shell_that_only_waits_stops_at_once(sandboxed: Sandboxed) -> None:
    sandbox = sandboxed("-t", "20s", "--", "sh", "-c", "echo up; while :; do sleep 3600; done")
    sandbox.wait_for_line("up")
    sandbox.signal("TERM")
    assert sandbox.wait() == 143
    assert not sandbox.find("SIGKILL")


def test_the_deadline_is_kept(sandboxed: Sandboxed) -> None:
    command = 'trap "" TERM; echo up; while :; do sleep 0.1; done'
    sandbox = sandboxed("-t", "1s", "--", "sh", "-c", command)
    sandbox.wait_for_line("up")
    sandbox.signal("TERM")
    assert sandbox.wait() == 137
    assert sandbox.find("at the deadline")
