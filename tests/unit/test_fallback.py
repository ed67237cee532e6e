"""The fallback, in a simulated world: failures at any point, and what is rare in a real run."""

from __future__ import annotations

import os
import posix
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import settings as reader
from entrypoint.init import fallback, stop_steps
from entrypoint.init.fallback import GIVE_UP_AFTER, Fallback
from entrypoint.signals import EOF, NUMBERS
from tests.support.world import AGENT, CHLD, CONT, INT, KILL, TERM, TSTP, USR1, exited, failing

if TYPE_CHECKING:
    from collections.abc import Callable

ALRM, HUP, INFINITY = int(signal.SIGALRM), int(signal.SIGHUP), float("inf")


class Stage:
    """A fallback, the signals that come, and what it does. Time passes only while it waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *flags: str, pid: int = 1) -> None:
        self.now, self.wait = 1000.0, 0.0
        self.sent: list[tuple[int, int]] = []
        self.signals: list[int | tuple[int, int]] = []  # a signal, or the agent's exit: pid and status
        self.exits: list[tuple[int, int]] = []
        self.alone = False  # no children are left once these are reaped
        self.unreadable = False
        self.children = b""
        self.fallback = Fallback(reader.read([*flags, "--", "agent"], {}))
        self.fallback.pid = AGENT
        self.timers: list[float] = []
        fake = SimpleNamespace(
            SIG_BLOCK=0,
            ITIMER_REAL=0,
            pthread_sigmask=lambda *_: None,
            sigpending=lambda: {came if isinstance(came, int) else CHLD for came in self.signals},
            sigwait=self.sigwait,
            setitimer=self.setitimer,
        )
        monkeypatch.setattr(fallback, "_signal", fake)
        monkeypatch.setattr(posix, "waitpid", self.waitpid)
        monkeypatch.setattr(posix, "kill", self.kill)
        monkeypatch.setattr(posix, "getpid", lambda: pid)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(fallback, "_children", lambda: map(int, self.children.split()))

    def waitpid(self, pid: int, flags: int) -> tuple[int, int]:
        assert (pid, flags) == (-1, os.WNOHANG)
        if self.exits:
            return self.exits.pop(0)
        if self.alone:
            raise ChildProcessError
        return 0, 0

    def kill(self, pid: int, number: int) -> None:
        self.sent.append((pid, number))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def setitimer(self, _: int, seconds: float, interval: float) -> None:
        self.wait = seconds
        self.timers.append(seconds)

    def sigwait(self, _: object) -> int:
        if self.signals:
            came = self.signals.pop(0)
            if isinstance(came, tuple):
                self.exits.append(came)
                return CHLD
            return came
        assert self.wait, "waits for ever"
        self.now += self.wait
        return ALRM

    def run(self, *signals: int | tuple[int, int]) -> int:
        self.signals += signals
        return self.fallback.run()


@pytest.mark.parametrize(
    ("status", "flags", "code"),
    [(exited(3), [], 3), (TERM, [], 143), (exited(3), ["-e", "3"], 0), (KILL, ["-e", "143"], 137)],
)
def test_the_exit_code_is_the_agents(monkeypatch: pytest.MonkeyPatch, status: int, flags: list[str], code: int) -> None:
    stage = Stage(monkeypatch, *flags)
    stage.alone = True
    stage.exits = [(20, exited(9)), (AGENT, status), (21, exited(8))]
    assert stage.run() == code
    assert stage.sent == []


def test_signals_are_handled_where_the_clock_cannot_be_read_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """It returns a number, which takes memory."""
    stage = Stage(monkeypatch)
    monkeypatch.setattr(time, "monotonic", failing(time.monotonic, *[MemoryError()] * 20))
    assert stage.run(HUP, (AGENT, exited(3))) == 3
    assert stage.sent[0] == (AGENT, HUP)


@pytest.mark.parametrize("came", ["from sigwait", "from the inbox"])
def test_a_stop_request_is_handled_again_if_there_was_no_memory_for_its_time(
    monkeypatch: pytest.MonkeyPatch, came: str
) -> None:
    stage = Stage(monkeypatch, "-t", "5s")
    full = failing(stage.fallback.request_stop, *[MemoryError()] * 3)
    monkeypatch.setattr(Fallback, "request_stop", lambda _, number: full(number))
    if came == "from the inbox":
        stage.fallback.inbox = [TERM]
        assert stage.run(HUP, (AGENT, exited(3))) == 3
    else:
        assert stage.run(TERM, HUP, (AGENT, exited(3))) == 3
    assert stage.sent[:3] == [(AGENT, TERM), (AGENT, CONT), (AGENT, HUP)]


def test_signals_are_handled_though_no_timer_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """setitimer(2) may be refused (seccomp)."""
    stage = Stage(monkeypatch, "-t", "5s")
    refused = failing(lambda *_: None, *[PermissionError()] * 1000)
    monkeypatch.setattr("entrypoint.init.fallback._signal.setitimer", refused)
    monkeypatch.setattr("entrypoint.init.fallback._signal.pthread_sigmask", failing(lambda *_: None, MemoryError()))
    assert stage.run(HUP, TERM) == 137
    assert stage.sent[:4] == [(AGENT, HUP), (AGENT, TERM), (AGENT, CONT), (-1, KILL)]
    assert stage.now < 1000 + 5 + GIVE_UP_AFTER + 0.5


def test_a_signal_that_asks_for_a_report_is_not_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end an agent that does not handle it."""
    stage = Stage(monkeypatch, "--report-on", "USR2")
    assert stage.run(NUMBERS["USR2"], HUP, (AGENT, exited(3))) == 3
    assert stage.sent[0] == (AGENT, HUP)


@pytest.mark.parametrize("rewrite", ["INT:0", "TERM:QUIT"])
def test_a_pending_signal_that_is_rewritten_to_nothing_is_no_stop_request(
    monkeypatch: pytest.MonkeyPatch, rewrite: str
) -> None:
    stage = Stage(monkeypatch, "-t", "5s", "-r", rewrite)
    stage.signals = [INT]
    stage.fallback.notice_stop_request()
    assert stage.fallback.requested_at == (INFINITY if rewrite == "INT:0" else stage.now)
    stage.fallback.forget_stop_request()
    assert stage.fallback.requested_at == INFINITY


def test_a_lost_exit_status_gives_125(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.alone = True
    assert stage.run() == 125


@pytest.mark.parametrize("flags", [(), ("-r", "TERM:INT"), ("--stop-signal", "INT")], ids=" ".join)
@pytest.mark.parametrize("before", [(), (HUP,)], ids=["alone", "after another"])
def test_the_end_of_stdin_that_was_not_handled_yet_is_a_stop_request(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], before: tuple[int, ...]
) -> None:
    """The supervisor has put it into its inbox, and could not go on."""
    stage = Stage(monkeypatch, "-t", "5s", "--stop-on", "TERM,EOF", *flags)
    stage.fallback.inbox = [*before, EOF]
    assert stage.run((AGENT, exited(3))) == 3
    stop = INT if "--stop-signal" in flags else TERM
    assert stage.sent[: len(before) + 2] == [*((AGENT, number) for number in before), (AGENT, stop), (AGENT, CONT)]
    assert set(stage.sent[len(before) + 2 :]) == {(-1, KILL)}
    assert stage.timers[0] == 5.0


def test_signals_are_forwarded_and_the_first_stop_request_starts_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, "-t", "5s", "-r", "HUP:USR1", "-r", "USR2:0")
    stage.fallback.inbox = [HUP]
    code = stage.run(CHLD, TSTP, int(signal.SIGPIPE), int(signal.SIGUSR2), ALRM, TERM, INT, TERM)
    assert code == 137
    before = [(AGENT, USR1), (AGENT, ALRM), (AGENT, TERM), (AGENT, CONT)]
    assert stage.sent[:4] == before
    assert set(stage.sent[4:]) == {(-1, KILL)}
    assert len(stage.sent) > 5  # again and again: processes fork
    assert stage.timers[0] == 5.0  # none before the stop request
    assert stage.now == pytest.approx(1007.0, abs=0.05)


def test_a_rewritten_stop_request_is_sent_as_what_it_was_rewritten_to(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, "-r", "TERM:INT", "--target", "group")
    stage.run(TERM, (AGENT, exited(0)))
    assert stage.sent[:2] == [(-AGENT, INT), (-AGENT, CONT)]


def test_without_a_grace_there_is_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    assert stage.run(TERM, (AGENT, exited(4))) == 4
    assert stage.sent[:2] == [(AGENT, TERM), (AGENT, CONT)]
    assert max(stage.timers) == fallback.SWEEP_EVERY


@pytest.mark.parametrize(
    ("flags", "number", "grace"),
    [
        (["--stop-schedule", "INT/3s/TERM/4s/KILL"], INT, 7.0),
        (["--stop-schedule", "INT/3s/TERM"], INT, INFINITY),
        (["-t", "5s", "--stop-signal", "USR1"], USR1, 5.0),
        (["-t", "5s", "--platform-grace", "4s"], TERM, 3.0),
        (["-t", "2s", "--platform-grace", "4s"], TERM, 2.0),
        (["--platform-grace", "4s"], TERM, 3.0),
        (["--platform-grace", "30s"], TERM, 28.0),
        (["--platform-grace", "infinity"], TERM, INFINITY),
        (["--stop-schedule", "INT/3s/TERM/4s/KILL", "--platform-grace", "6s"], INT, 4.5),
        (["--stop-schedule", "INT/3s/TERM", "--platform-grace", "10s"], INT, 8.0),
        ([], TERM, INFINITY),
    ],
)
def test_the_plan_as_far_as_the_settings_have_it(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], number: int, grace: float
) -> None:
    """The same as the supervisor's plan, where the settings decide."""
    made = Stage(monkeypatch, *flags).fallback
    assert (made.stop_signal, made.grace) == (number, grace)
    if (steps := stop_steps.own_steps(reader.read([*flags, "--", "agent"], {}))) is not None:
        assert (steps[0][0], stop_steps.seconds_to_kill(steps)) == (number, grace)


def test_a_subreaper_kills_the_agent_its_group_and_what_was_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, "-t", "1s", pid=77)
    stage.children = b"20 21"
    stage.run(TERM)
    assert stage.sent[2:6] == [(AGENT, KILL), (-AGENT, KILL), (20, KILL), (21, KILL)]


def test_what_the_agent_leaves_behind_is_killed_without_its_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pid may be another process's by then."""
    stage = Stage(monkeypatch, pid=77)
    stage.children = b"20"
    assert stage.run((AGENT, exited(6)), TERM) == 6
    assert set(stage.sent) == {(20, KILL)}
    assert stage.now == pytest.approx(1002.0, abs=0.05)


@pytest.mark.parametrize("broken", ["block", "_enforce", "_receive", "_handle"])
def test_a_part_that_fails_for_ever_holds_up_no_other(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """What was handed over: the stop signal was sent, and the deadline comes in a second."""
    stage = Stage(monkeypatch, "-t", "1s", pid=77)
    stage.fallback.stop_sent, stage.fallback.kill_at = True, stage.now + 1

    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Fallback, broken, fails)
    assert stage.run(*[CHLD] * 100, *([USR1] if broken == "_enforce" else [])) == 137
    assert (AGENT, USR1 if broken == "_enforce" else KILL) in stage.sent
    assert stage.now < 1003.2


def test_reaping_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.exits, stage.alone = [(AGENT, exited(5))], True
    monkeypatch.setattr(posix, "waitpid", failing(stage.waitpid, OSError(), MemoryError()))
    assert stage.run(CHLD, CHLD) == 5


def test_a_signal_that_cannot_be_sent_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, "-t", "1s")
    monkeypatch.setattr(posix, "kill", failing(stage.kill, PermissionError(), ProcessLookupError()))
    assert stage.run(TERM) == 137
    assert stage.sent[0] == (-1, KILL)


@pytest.mark.parametrize(("pending", "noticed"), [({USR1}, INFINITY), ({USR1, TERM}, 1000.0)])
def test_a_pending_stop_request_starts_the_grace(
    monkeypatch: pytest.MonkeyPatch, pending: set[int], noticed: float
) -> None:
    stage = Stage(monkeypatch, "-t", "5s")
    fallback._signal.sigpending = lambda: pending  # type: ignore[attr-defined]
    stage.fallback.notice_stop_request()
    stage.now += 2
    stage.fallback.notice_stop_request()
    assert stage.fallback.requested_at == (noticed if noticed < INFINITY else INFINITY)
    if noticed < INFINITY:
        stage.fallback.request_stop(TERM)
        assert stage.fallback.kill_at == 1005.0


def test_a_stop_request_removes_the_ready_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, "-t", "5s", "--ready-file", "/run/ready")
    removed: list[str] = []
    monkeypatch.setattr(posix, "unlink", removed.append)
    stage.fallback.request_stop(TERM)
    assert removed == ["/run/ready"]
    monkeypatch.setattr(posix, "unlink", failing(os.unlink, FileNotFoundError()))
    stage.fallback.request_stop(TERM)
    assert stage.sent == [(AGENT, TERM), (AGENT, CONT)] * 2


# --- With the real system. ------------------------------------------------------------------------------------------


def test_children_are_those_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    try:
        assert pid in fallback._children()
    finally:
        os.kill(pid, KILL)
        os.waitpid(pid, 0)
    monkeypatch.setattr(posix, "open", failing(os.open, FileNotFoundError()))
    assert list(fallback._children()) == []


def test_a_line_is_written_without_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    fallback.write_line(2, "no way \u20ac")
    assert capfd.readouterr().err == "agent-init: error: no way \\u20ac\n"


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_error_is_described_with_its_place() -> None:
    assert fallback.describe_error(ValueError("odd")) == "ValueError: odd"
    assert fallback.describe_error(MemoryError()) == "MemoryError"
    described = fallback.describe_error(raised(lambda: failing(lambda: None, ValueError("odd"))()))
    assert described.startswith("ValueError: odd (world.py:")
