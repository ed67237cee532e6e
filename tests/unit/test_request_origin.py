"""Where a stop request comes from, with fake processes. Real ones: tests/process1/test_stop_from_inside.py."""

from __future__ import annotations

import posix
import sys
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import procfs, request_origin
from entrypoint.init.actions import NoteAllSignalled, StopLeftovers
from entrypoint.init.signalfd import Received
from entrypoint.init.stop_plan import INSIDE, KERNEL, OUTSIDE
from entrypoint.signals import TERM
from tests.support.world import AGENT, OWN_PID, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.world import Harness

PARENT, SENDER = 30, 40
HERE, THERE = b"0::/here\n", b"0::/there\n"


def sent_by(pid: int, code: int = 0) -> Received:
    return Received(TERM, b"".join(value.to_bytes(4, sys.byteorder) for value in (TERM, 0, code, pid)))


@pytest.fixture
def files(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What /proc has. We are below PARENT, which is below process 1."""
    content = {f"/proc/{OWN_PID}/cgroup": HERE, "/proc/1/cgroup": HERE}

    def read_file(path: str) -> bytes:
        if path not in content:
            raise FileNotFoundError
        return content[path]

    world.add(1, 0, "init")
    world.add(PARENT, 1, "bash")
    world.add(OWN_PID, PARENT, "agent-init")
    monkeypatch.setattr(procfs, "read_file", read_file)
    monkeypatch.setattr(posix, "getppid", lambda: PARENT)
    return content


def test_the_origin_is_outside_where_the_sender_is_not_known() -> None:
    assert request_origin.of(Received(TERM)) == OUTSIDE


def test_what_the_kernel_sends_is_neither_outside_nor_inside() -> None:
    assert request_origin.of(sent_by(0, code=0x80)) == KERNEL


def test_any_process_that_process_1_can_see_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    assert request_origin.of(sent_by(SENDER)) == INSIDE
    assert request_origin.of(sent_by(0)) == OUTSIDE


@pytest.mark.parametrize(
    ("pid", "cgroup_of_1", "cgroup_of_sender", "origin"),
    [
        (PARENT, HERE, None, OUTSIDE),
        (1, HERE, None, OUTSIDE),
        (SENDER, HERE, None, INSIDE),  # our own PID namespace; the sender has exited
        (SENDER, THERE, HERE, INSIDE),  # a shared one
        (SENDER, THERE, THERE, OUTSIDE),
        (SENDER, THERE, None, OUTSIDE),
        (SENDER, b"", b"", OUTSIDE),
        (SENDER, None, None, OUTSIDE),
    ],
)
def test_a_sender_is_inside_if_it_is_in_our_container_and_not_above_us(
    files: dict[str, bytes], pid: int, cgroup_of_1: bytes | None, cgroup_of_sender: bytes | None, origin: str
) -> None:
    for path, content in (("/proc/1/cgroup", cgroup_of_1), (f"/proc/{SENDER}/cgroup", cgroup_of_sender)):
        files.pop(path, None)
        if content is not None:
            files[path] = content
    assert request_origin.of(sent_by(pid)) == origin


def test_control_groups_that_cannot_be_read_are_not_the_same(files: dict[str, bytes]) -> None:
    files.update({"/proc/1/cgroup": b"", f"/proc/{OWN_PID}/cgroup": b""})
    assert request_origin.of(sent_by(SENDER)) == OUTSIDE


def test_process_1_was_not_started_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    assert not request_origin.started_by_hand()


@pytest.mark.parametrize("is_above", [True, False])
@pytest.mark.parametrize("same_container", [True, False])
def test_started_by_hand_where_process_1_of_the_container_is_not_above(
    world: World, files: dict[str, bytes], is_above: bool, same_container: bool
) -> None:
    world.add(PARENT, 1 if is_above else 0, "bash")
    files["/proc/1/cgroup"] = HERE if same_container else THERE
    assert request_origin.started_by_hand() == (same_container and not is_above)


@pytest.fixture
def job(world: World, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Return whether we count as started by hand; by default as a job of an interactive shell."""

    def by_hand(
        *, group: int = OWN_PID, session: int = PARENT, terminal: bytes = b"34816", parent: str = "bash"
    ) -> bool:
        monkeypatch.setattr(posix, "getpgrp", lambda: group)
        monkeypatch.setattr(posix, "getsid", lambda _: session)
        world.add(PARENT, 1, parent)
        files[f"/proc/{OWN_PID}/stat"] = b"1 (a b) c) S 30 1 30 " + terminal + b" 1\n"
        return request_origin.started_by_hand()

    return by_hand


def test_a_job_of_an_interactive_shell_was_started_by_hand(
    job: Callable[..., bool], world: World, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job()
    assert not job(group=PARENT)  # a script's
    assert not job(session=OWN_PID)  # docker run -t
    assert not job(terminal=b"0")
    assert not job(parent="supervisord")
    for content in (None, b"", b"1 (x) S"):
        job()
        files.pop(f"/proc/{OWN_PID}/stat")
        if content is not None:
            files[f"/proc/{OWN_PID}/stat"] = content
        assert not request_origin.started_by_hand()
    job()
    world.no_proc = True
    assert not request_origin.started_by_hand()


def test_what_the_platform_has_signalled_is_not_signalled_again(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.add(20, OWN_PID, "helper", TERM)
    harness.do(NoteAllSignalled(TERM), StopLeftovers(TERM))
    assert world.sent == []
    world.no_proc = True
    harness.do(NoteAllSignalled(TERM))
    assert harness.lines("unexpected") == []


@pytest.mark.parametrize(
    ("name", "status", "works_on"), [("python", TERM, True), ("python", 0, False), ("sh", 0, True), ("sh", TERM, True)]
)
def test_work_below_a_wrapper_that_the_platform_has_ended(
    world: World, supervise: Callable[..., Harness], name: str, status: int, works_on: bool
) -> None:
    """It may be gone before anybody has looked at what is below it."""
    harness = supervise()
    delivery, agent = harness.supervisor.execution.delivery, harness.supervisor.agent
    work = world.add(20, OWN_PID, "python", TERM)
    world.add(21, 20, "worker", TERM)
    world.add(22, OWN_PID, "tail")
    harness.do(NoteAllSignalled(TERM))
    agent.status, agent.name = status, name
    del world.processes[AGENT]
    assert delivery.agent_left() == works_on
    assert delivery.departures.work == ([work] if works_on else [])
    del world.processes[20], world.processes[21]
    harness.supervisor.execution.descendants.forget()
    assert not delivery.agent_left()
