"""In gVisor nothing shows which signals a process handles: who gets which signal there, with genuine programs."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.init import AGENT_INIT

if TYPE_CHECKING:
    from .conftest import Sandboxed

PROGRAMS = Path(__file__).with_name("programs")
CONTROL = Path(__file__).parents[2] / "entrypoint" / "ctl" / "__main__.py"
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


def test_a_shell_in_the_agents_place_gets_no_signals_but_those_to_stop(sandboxed: Sandboxed) -> None:
    """What is known of a program is forgotten when another one takes its place (execve(2))."""
    sandbox = sandboxed("--", sys.executable, str(PROGRAMS / "becomes_a_shell.py"), *DRAIN, "0")
    sandbox.wait_for_line("waiting")
    sandbox.signal("USR1")
    sandbox.wait_for_line("up")
    sandbox.signal("USR1")
    sandbox.wait_for_line("dropped: no process is known to handle it")
    sandbox.signal("TERM")
    assert sandbox.wait() == 0
    assert sandbox.find("got SIG") == ["got SIGUSR1", "got SIGTERM"]


# --- How long it takes. ---------------------------------------------------------------------------------------------


def round_trip(sandboxed: Sandboxed, *, init: str = "") -> float:
    sandbox = sandboxed("--", sys.executable, str(PROGRAMS / "round_trips.py"), "300", init=init)
    assert sandbox.wait() == 0, sandbox.lines
    (line,) = sandbox.find("a round trip takes")
    return float(line.split()[4])


@pytest.mark.skipif(not shutil.which("tini"), reason="compares with tini")
def test_a_forwarded_signal_takes_at_most_three_times_as_long_as_under_tini(sandboxed: Sandboxed) -> None:
    """In turn, and the best of each: what else this machine does hits one or the other."""
    tini = str(shutil.which("tini"))
    ours, theirs = [], []
    for _ in range(6):
        theirs.append(round_trip(sandboxed, init=tini))
        ours.append(round_trip(sandboxed))
        if min(ours) <= 3 * min(theirs):
            break
    assert min(ours) <= 3 * min(theirs), (ours, theirs)


MANY = """trap "" TERM
i=0
while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done
echo up
while :; do wait; done
"""
# Measured on an idle machine: SIGKILL after 1.0 s, all gone after 1.4 to 1.6 s. These are for one that has more to do
# than it has processors.
KILLED_BY, GONE_BY = 4.0, 9.0  # seconds


@pytest.mark.parametrize("above", [[], ["tini", "--"]], ids=["process 1", "below another init"])
def test_300_processes_that_ignore_the_stop_signal_are_gone_soon_after_the_deadline(
    sandboxed: Sandboxed, above: list[str]
) -> None:
    if above and not shutil.which(above[0]):
        pytest.skip("tini is not installed")
    init, *rest = [*(str(shutil.which(word) or word) for word in above), str(AGENT_INIT)]
    sandbox = sandboxed(*rest, "-t", "1s", "--", "sh", "-c", MANY, init=init)
    sandbox.wait_for_line("up")
    sandbox.signal("TERM")  # tini passes it on
    assert sandbox.wait() == 137
    killed, ended = (seconds(line) for text in ("SIGKILL; still", "ended: ") for line in sandbox.find(text))
    assert 1.0 <= killed < KILLED_BY, sandbox.lines
    assert killed <= ended < GONE_BY, sandbox.lines


def seconds(line: str) -> float:
    """Return how long after the stop request it was."""
    found = re.search(r"([\d.]+)s after the stop request", line)
    assert found, line
    return float(found[1])


def test_agent_init_can_be_asked(sandboxed: Sandboxed) -> None:
    """The kernel there reports who asks, and who answers, too."""
    ask = [sys.executable, str(CONTROL)]
    sandbox = sandboxed("-t", "20s", "--", *DRAIN, "0.5")
    sandbox.wait_for_line("up")
    live = sandbox.run(*ask, "live")
    assert (live.returncode, live.stdout) == (0, "no hang detected; starting\n"), live.stderr
    assert "state: starting" in sandbox.run(*ask, "status").stdout
    sandbox.run(*ask, "signal", "USR1")
    sandbox.wait_for_line("got SIGUSR1")
    sandbox.run(*ask, "stop")
    assert sandbox.wait() == 0
    assert sandbox.find("got SIGTERM") == ["got SIGTERM"]
    assert sandbox.find("stop requested by TERM from agent-initctl")
