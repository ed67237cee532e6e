"""The fast path of a signal: what the agent handles by itself is sent at once, and an answer holds while it is true."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import console, dispositions, fast_path
from entrypoint.init.counters import Counters
from entrypoint.init.signalfd import Received
from tests.support.world import AGENT, failing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.world import Harness, World

USR1, USR2, WINCH = int(signal.SIGUSR1), int(signal.SIGUSR2), int(signal.SIGWINCH)
RTMIN = int(signal.SIGRTMIN)


class Agent:
    """The agent, its dispositions and its signals, all in one. `asked`: each look that could not be spared."""

    def __init__(self) -> None:
        self.pid, self.status, self.named = 100, None, None
        self.looks = 0
        self.dispositions = self
        self.sent: list[int] = []
        self.asked: list[int] = []
        self.name, self.stack = b"100 (agent", b"140000"
        self.blocked = self.ignored = self.caught = 0
        self.in_sigwait: set[int] = set()
        self.is_hidden = False

    def seen(self) -> dispositions.Seen | None:
        masks = b" %b 0 0 0 %d %d %d " % (self.stack, self.blocked, self.ignored, self.caught)
        return None if self.is_hidden else dispositions.Seen(self.name, masks, 26)

    def is_as(self, states: list[dispositions.Seen]) -> bool:
        self.looks += 1
        now = self.seen()
        return now is not None and (now.start, now.masks) in [(seen.start, seen.masks) for seen in states]

    def handles_or_ignores(self, number: int) -> bool:
        self.asked.append(number)
        bit = dispositions.signal_bit(number)
        return bool((self.blocked | self.ignored | self.caught) & bit) or number in self.in_sigwait

    def send_agent(self, number: int) -> None:
        self.sent.append(number)

    @property
    def has_exited(self) -> bool:
        return self.status is not None

    may_be_a_wrapper = False

    def may_be_looked_through(self) -> bool:
        return self.may_be_a_wrapper


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def path(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> fast_path.FastPath:
    monkeypatch.setattr(dispositions, "masks_are_false", lambda: False)
    return made(agent)


def made(agent: Agent, target: str = "auto", level: int = console.INFO) -> fast_path.FastPath:
    lifecycle = SimpleNamespace(sent_at_once=frozenset(range(1, 65)) - {signal.SIGTERM})
    parts: Any = SimpleNamespace(target=target), agent, lifecycle, SimpleNamespace(level=level), agent, Counters()
    return fast_path.FastPath(*parts)


@pytest.mark.parametrize("mask", ["blocked", "ignored", "caught"])
def test_one_question_serves_as_long_as_nothing_changes(agent: Agent, path: fast_path.FastPath, mask: str) -> None:
    setattr(agent, mask, dispositions.signal_bit(USR1) | dispositions.signal_bit(USR2))
    for _ in range(3):
        assert path.send(USR1, {})
        assert path.send(USR2, {})
    assert agent.asked == [USR1, USR2]
    assert agent.sent == [USR1, USR2] * 3


def test_a_handler_that_is_gone_is_noticed(agent: Agent, path: fast_path.FastPath) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    assert path.send(USR1, {})
    agent.caught = 0
    assert not path.send(USR1, {})
    agent.caught = dispositions.signal_bit(USR1)
    assert path.send(USR1, {})
    assert agent.sent == [USR1, USR1]


@pytest.mark.parametrize("what", ["name", "stack"])
def test_an_exec_is_noticed(agent: Agent, path: fast_path.FastPath, what: str) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    assert path.send(USR1, {})
    setattr(agent, what, b"other")
    agent.may_be_a_wrapper = True
    assert not path.send(USR1, {})
    assert agent.sent == [USR1]


def test_another_process_that_has_become_the_agent_is_looked_at(agent: Agent, path: fast_path.FastPath) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    assert path.send(USR1, {})
    agent.name = b"101 (agent"
    assert path.send(USR1, {})
    assert agent.asked == [USR1, USR1]


def test_what_the_masks_do_not_show_is_asked_each_time(agent: Agent, path: fast_path.FastPath) -> None:
    agent.in_sigwait = {USR1}
    agent.caught = dispositions.signal_bit(RTMIN)
    for _ in range(2):
        assert path.send(USR1, {})
        assert path.send(RTMIN, {})  # the file does not show real-time signals
    assert agent.asked == [USR1, RTMIN] * 2


def test_what_cannot_be_seen_is_asked_each_time(
    agent: Agent, path: fast_path.FastPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    agent.is_hidden = True
    assert path.send(USR1, {})
    agent.is_hidden = False
    monkeypatch.setattr(dispositions, "masks_are_false", lambda: True)
    assert path.send(USR1, {})
    assert path.send(USR1, {})
    assert agent.asked == [USR1] * 3


def test_one_look_serves_signals_that_came_together(agent: Agent, path: fast_path.FastPath) -> None:
    agent.in_sigwait = {USR1}
    inbox = [Received(USR1), Received(USR1)]
    assert path.send_all(inbox, {})
    assert (inbox, agent.asked, agent.sent) == ([], [USR1], [USR1, USR1])


@pytest.mark.parametrize("number", [*sorted(fast_path.MAY_BE_OURS), signal.SIGTERM, signal.SIGINT, USR2])
def test_what_takes_more_stays_in_the_inbox_with_all_after_it(
    agent: Agent, path: fast_path.FastPath, number: int
) -> None:
    agent.caught = dispositions.signal_bit(USR1) | (0 if number == USR2 else dispositions.signal_bit(number))
    inbox = [Received(each) for each in (USR1, number, USR1)]
    assert not path.send_all(inbox, {})
    assert [received.number for received in inbox] == [number, USR1]
    assert agent.sent == [USR1]


@pytest.mark.parametrize(("changes", "level"), [({"status": 0}, 1), ({"named": "another"}, 1), ({}, console.DEBUG)])
def test_it_is_not_for_an_agent_that_has_exited_or_named_another_nor_for_a_log(
    agent: Agent, path: fast_path.FastPath, changes: dict[str, object], level: int
) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    vars(agent).update(changes)
    assert not made(agent, level=level).send(USR1, {})
    assert agent.sent == []


def test_with_a_target_nobody_is_looked_through(agent: Agent, path: fast_path.FastPath) -> None:
    agent.caught, agent.may_be_a_wrapper = dispositions.signal_bit(USR1), True
    assert not path.send(USR1, {})
    assert made(agent, target="child").send(USR1, {})


# --- One signal at a time. ------------------------------------------------------------------------------------------


class Source:
    """A signalfd with the one signal `number`, none if `size` is 0."""

    def __init__(self, number: int) -> None:
        self.number, self.size = number, 128

    def peek(self) -> int:
        return self.number if self.size else 0


def sends(path: fast_path.FastPath, number: int) -> bool:
    """Whether the signal is sent when it comes alone; if not, it must stay."""
    source: Any = Source(number)
    is_sent = path.send_next(source.peek(), source)
    assert is_sent == (source.size == 0)
    return is_sent


def test_a_signal_that_comes_alone_takes_one_look(agent: Agent, path: fast_path.FastPath) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    assert not sends(path, 0)
    assert not sends(path, USR1)
    assert path.send(USR1, {})
    agent.looks = 0
    assert [sends(path, USR1) for _ in range(3)] == [True] * 3
    assert (agent.asked, agent.looks, agent.sent) == ([USR1], 3, [USR1] * 4)
    agent.caught = 0
    assert not sends(path, USR1)


def test_what_is_sent_is_counted(agent: Agent, path: fast_path.FastPath) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    assert path.send(USR1, {})
    assert sends(path, USR1)
    assert not path.send(USR2, {})
    assert (path._forwarded[USR1], sum(path._forwarded)) == (2, 2)


def test_a_handler_that_runs_makes_no_difference(agent: Agent, path: fast_path.FastPath) -> None:
    """Its signal is blocked meanwhile."""
    agent.caught = dispositions.signal_bit(USR1)
    for agent.blocked in (0, dispositions.signal_bit(USR1)):
        assert path.send(USR1, {})
    for agent.blocked in (0, dispositions.signal_bit(USR1)) * 2:
        assert sends(path, USR1)
    assert agent.asked == [USR1, USR1]


def test_few_looks_are_remembered(agent: Agent, path: fast_path.FastPath) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    for _ in range(2):
        for number in range(1, 7):
            agent.blocked = dispositions.signal_bit(number)
            assert path.send(USR1, {})
    assert agent.asked == [USR1] * 12
    blocked = map(dispositions.signal_bit, range(1, 7))
    assert [sends(path, USR1) for agent.blocked in blocked] == [False] * 2 + [True] * 4


@pytest.mark.parametrize("changes", [{"status": 0}, {"named": "another"}])
def test_alone_nothing_is_sent_to_an_agent_that_has_exited_or_named_another(
    agent: Agent, path: fast_path.FastPath, changes: dict[str, object]
) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    assert path.send(USR1, {})
    vars(agent).update(changes)
    assert not sends(path, USR1)


def test_alone_a_signal_that_has_become_a_stop_request_is_not_sent(agent: Agent, path: fast_path.FastPath) -> None:
    agent.caught = dispositions.signal_bit(USR1)
    assert path.send(USR1, {})
    path._lifecycle.sent_at_once = frozenset()
    assert not sends(path, USR1)


@pytest.mark.parametrize("number", sorted(fast_path.MAY_BE_OURS))
def test_what_may_concern_process_1_is_never_sent_without_a_look_at_that(
    agent: Agent, path: fast_path.FastPath, number: int
) -> None:
    agent.caught = dispositions.signal_bit(number)
    assert path.send(number, {})
    assert not sends(path, number)


# --- In the supervisor. ---------------------------------------------------------------------------------------------


def test_a_signal_that_the_agent_handles_takes_no_wait(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.handled[AGENT].add(USR1)
    world.wait_results = [(77, 0)]
    harness.source.pending += [USR1]
    harness.supervisor._signals_waiting()
    assert world.sent == [(AGENT, USR1)]
    assert world.wait_results == [(77, 0)]
    with monkeypatch.context() as patch:
        patch.setattr(fast_path.FastPath, "send_next", lambda *_: True)
        harness.supervisor._signals_waiting()
    assert world.wait_results == [(77, 0)]
    harness.source.pending += [USR1, signal.SIGCHLD]
    harness.supervisor._signals_waiting()
    assert world.sent == [(AGENT, USR1)] * 2
    assert world.wait_results == []


def test_a_childs_exit_that_comes_alone_is_handled_at_once(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    monkeypatch.setattr(harness.source, "peek", lambda: signal.SIGCHLD)
    harness.source.size = 128  # type: ignore[attr-defined]
    world.wait_results, world.no_children = [(77, 0), (AGENT, 0)], True
    harness.supervisor._signals_waiting()
    assert harness.source.size == 0  # type: ignore[attr-defined]
    assert harness.supervisor.execution.exit_code == 0
    assert len(harness.lines("ended: ")) == 1


def test_what_was_not_done_before_comes_first(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.handled[AGENT].add(USR1)
    harness.supervisor._inbox.append(Received(WINCH, bytes(16)))
    harness.source.pending += [USR1]
    harness.supervisor._signals_waiting()
    assert world.sent == [(AGENT, WINCH), (AGENT, USR1)]


def test_a_signal_that_there_is_no_memory_for_is_sent_later(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.handled[AGENT].add(USR1)
    harness.supervisor._inbox.append(Received(USR1, bytes(16)))
    with monkeypatch.context() as patch:
        patch.setattr(fast_path.FastPath, "send", failing(lambda: True, MemoryError()))
        with pytest.raises(MemoryError):
            harness.supervisor._read()
    assert world.sent == []
    harness.supervisor._read()
    assert world.sent == [(AGENT, USR1)]
