"""Wait statuses as exit codes and text, and the evidence for the reason of an exit."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from entrypoint.init import exit_status
from entrypoint.init.exit_status import Ending


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("exit 3", 3, "exited with code 3"),
        ("kill -9 $$", 137, "was killed by SIGKILL"),
        ("kill -1 $$", 129, "was killed by SIGHUP"),
    ],
)
def test_a_wait_status_as_exit_code_and_text(line: str, code: int, text: str) -> None:
    pid = os.posix_spawn("/bin/sh", ["/bin/sh", "-c", line], {})
    _, status = os.waitpid(pid, 0)
    assert (exit_status.exit_code(status), exit_status.describe(status)) == (code, text)


def memory(kills: int | None) -> SimpleNamespace:
    """In the place of the control group's memory."""
    return SimpleNamespace(new_kills=kills, limit=64, peak=60)


EXITED_137, KILLED, ABORTED = 137 << 8, int(signal.SIGKILL), int(signal.SIGABRT) | 0x80  # with a core dump


@pytest.mark.parametrize(
    ("status", "code", "killed", "signalled"),
    [
        (0, 0, False, False),
        (3 << 8, 3, False, False),
        (KILLED, 137, True, True),
        (EXITED_137, 137, False, False),  # a shell reports its child's end so
        (ABORTED, 134, False, True),
        (None, 125, False, False),
    ],
)
def test_an_ending_has_an_exit_code_and_knows_its_signal(
    status: int | None, code: int, killed: bool, signalled: bool
) -> None:
    ending = Ending(status)
    assert (ending.code, ending.killed, ending.signalled) == (code, killed, signalled)


@pytest.mark.parametrize(("kills", "figures"), [(None, (None, None, None)), (0, (0, None, None)), (2, (2, 64, 60))])
def test_an_ending_has_memory_figures_only_after_an_oom_kill(
    kills: int | None, figures: tuple[int | None, ...]
) -> None:
    ending = Ending(KILLED, memory(kills))  # type: ignore[arg-type]
    assert (ending.oom_kills, ending.memory_limit, ending.memory_peak) == figures


def test_an_ending_without_a_control_group_has_no_memory_figures() -> None:
    ending = Ending(KILLED)
    assert (ending.oom_kills, ending.memory_limit, ending.memory_peak) == (None, None, None)


@pytest.mark.parametrize("forwarded", [False, True])
def test_an_ending_knows_whether_sigkill_was_forwarded(forwarded: bool) -> None:
    assert Ending(KILLED, kill_forwarded=forwarded).kill_forwarded is forwarded
