"""Job control on a simulated terminal: who has it, and what a Ctrl-Z does."""

from __future__ import annotations

import posix
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import terminal
from entrypoint.init.actions import Exit
from entrypoint.init.signalfd import Received
from tests.support.world import (
    AGENT,
    CHLD,
    CONT,
    OWN_GROUP,
    OWN_PID,
    STOP,
    TSTP,
    TTIN,
    World,
    exited,
    stopped,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.world import Harness


@pytest.mark.parametrize(
    ("number", "foreground", "shell", "after", "sent"),
    [
        pytest.param(TTIN, OWN_GROUP, False, AGENT, [(-AGENT, CONT)], id="it wants the terminal that we have"),
        pytest.param(TTIN, OWN_GROUP, True, AGENT, [(-AGENT, CONT)], id="the same as a job"),
        pytest.param(TSTP, AGENT, True, AGENT, [(OWN_PID, STOP), (-AGENT, CONT)], id="Ctrl-Z, as a job"),
        pytest.param(TTIN, 77, True, 77, [(OWN_PID, STOP), (-AGENT, CONT)], id="in the background, as a job"),
        pytest.param(TSTP, AGENT, False, AGENT, [(-AGENT, CONT)], id="Ctrl-Z, and no shell to continue it"),
        pytest.param(TTIN, 77, False, 77, [], id="it does not have the terminal"),
        pytest.param(TSTP, None, True, None, [], id="no terminal"),
        pytest.param(STOP, AGENT, True, AGENT, [], id="STOP"),
    ],
)
def test_an_agent_that_was_stopped(
    world: World,
    supervise: Callable[..., Harness],
    number: int,
    foreground: int | None,
    shell: bool,
    after: int | None,
    sent: list[tuple[int, int]],
) -> None:
    harness = supervise()
    world.foreground, world.has_shell_above = foreground, shell
    world.wait_results.append((AGENT, stopped(number)))
    harness.receive(CHLD)
    assert world.sent == sent
    # A job that stops gives the terminal back first. After `fg` we have it, and the agent gets it again.
    assert world.foreground == after
    if (OWN_PID, STOP) in sent:
        assert world.foreground_while_stopped == (OWN_GROUP if foreground == AGENT else foreground)
    assert bool(harness.lines("it does not have the terminal")) is (not sent and foreground == 77)


def test_an_agent_in_our_own_group_is_continued_too(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    harness.supervisor.agent.group = OWN_GROUP
    world.foreground, world.has_shell_above = OWN_GROUP, True
    world.wait_results.append((AGENT, stopped(TSTP)))
    harness.receive(CHLD)
    assert world.sent == [(OWN_PID, STOP), (-OWN_GROUP, CONT)]


def test_the_cont_that_continues_us_is_not_received_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent has had its own by then."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [CONT])
    try:
        monkeypatch.setattr(posix, "kill", lambda *_: signal.raise_signal(CONT))
        terminal.stop()
        assert CONT not in signal.sigpending()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_the_agent_goes_on_where_that_cont_cannot_be_taken(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    harness = supervise()
    world.foreground, world.has_shell_above = AGENT, True
    monkeypatch.setattr("_signal.sigtimedwait", refuse)
    world.wait_results.append((AGENT, stopped(TSTP)))
    harness.receive(CHLD)
    assert world.sent == [(OWN_PID, STOP), (-AGENT, CONT)]


def test_other_stopped_children_are_not_continued(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.foreground = AGENT
    world.wait_results.append((20, stopped(TSTP)))
    harness.receive(CHLD)
    assert world.sent == []


def test_a_shell_that_gives_us_the_terminal_gives_it_to_the_agent(
    world: World, supervise: Callable[..., Harness]
) -> None:
    """At the end we give it back."""
    harness = supervise()
    world.handled[AGENT].add(CONT)
    world.foreground = OWN_GROUP
    harness.receive(CONT)
    assert world.foreground == AGENT
    assert world.sent == [(-AGENT, CONT)]
    harness.do(Exit(0))
    assert harness.supervisor.run() == 0
    assert world.foreground == OWN_GROUP


def test_a_reaped_agent_does_not_get_the_terminal(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    harness.supervisor.agent.status = exited(0)
    world.foreground = OWN_GROUP
    assert not harness.supervisor.job_control.brought_to_foreground()
    assert world.foreground == OWN_GROUP


@pytest.mark.parametrize(
    ("foreground", "shell", "after", "sent"),
    [
        pytest.param(OWN_GROUP, True, AGENT, [(-AGENT, TSTP)], id="a job whose terminal was still ours"),
        pytest.param(AGENT, True, AGENT, [], id="a job whose agent has it"),
        pytest.param(OWN_GROUP, False, OWN_GROUP, [], id="no shell to continue it"),
    ],
)
def test_ctrl_z_that_comes_to_us(
    world: World,
    supervise: Callable[..., Harness],
    foreground: int,
    shell: bool,
    after: int,
    sent: list[tuple[int, int]],
) -> None:
    """The agent is to stop by it; where we cannot notice that, it is a signal like any other."""
    harness = supervise()
    world.foreground, world.has_shell_above = foreground, shell
    harness.receive(TSTP)
    assert (world.foreground, world.sent) == (after, sent)
    assert bool(harness.lines("TSTP from outside the container dropped")) is not bool(sent)


@pytest.mark.parametrize(
    ("foreground", "shell", "group", "sent"),
    [
        pytest.param(AGENT, True, AGENT, [(-AGENT, TSTP)], id="the agent has it since"),
        pytest.param(AGENT, False, AGENT, [], id="no shell to continue it"),
        pytest.param(77, True, AGENT, [], id="somebody else has it"),
        pytest.param(OWN_GROUP, True, OWN_GROUP, [], id="the agent has got it too"),
    ],
)
def test_ctrl_z_of_when_the_terminal_was_ours(
    world: World,
    supervise: Callable[..., Harness],
    foreground: int,
    shell: bool,
    group: int,
    sent: list[tuple[int, int]],
) -> None:
    """The shell sends CONT with `fg`, which is handled first, and the terminal sends TSTP to us before that."""
    harness = supervise()
    world.foreground, world.has_shell_above = foreground, shell
    harness.supervisor.agent.group = group
    by_kernel = b"".join(value.to_bytes(4, sys.byteorder) for value in (TSTP, 0, 0x80, 0))
    harness.supervisor._inbox.append(Received(TSTP, by_kernel))
    harness.receive()
    assert world.sent == sent


def test_ctrl_z_for_an_agent_in_our_own_group_is_a_signal_like_any_other(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise("--unhandled", "forward")
    world.foreground, world.has_shell_above = OWN_GROUP, True
    harness.supervisor.agent.group = OWN_GROUP
    harness.receive(TSTP)
    assert world.sent == [(AGENT, TSTP)]


@pytest.mark.parametrize(("foreground", "after"), [(AGENT, 77), (5, 5), (None, None)])
def test_the_terminal_is_given_back_if_the_agent_still_has_it(
    world: World, supervise: Callable[..., Harness], foreground: int | None, after: int | None
) -> None:
    harness = supervise(previous_foreground=77)
    world.foreground = foreground
    harness.supervisor.execution.to_do.append(Exit(7))
    assert harness.supervisor.run() == 7
    assert world.foreground == after


def test_a_terminal_that_the_agent_never_got_is_not_given_back(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.foreground = AGENT
    harness.supervisor.execution.to_do.append(Exit(7))
    assert harness.supervisor.run() == 7
    assert world.foreground == AGENT
