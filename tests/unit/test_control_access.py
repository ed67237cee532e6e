"""Who may ask process 1: by pid, user id, mount namespace and control group."""

from __future__ import annotations

import os
import posix
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from entrypoint.init import control_access, procfs
from entrypoint.init.control_access import ALL, NONE, READ

is_in_our_container = control_access._is_in_our_container
OWN, AGENTS, OTHER = 1000, 1001, 1002
AGENT: Any = SimpleNamespace(user=AGENTS)
INSIDE, OUTSIDE = 500, 501  # pids


@pytest.fixture(autouse=True)
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: OWN)
    monkeypatch.setattr(control_access, "_is_in_our_container", lambda pid: pid == INSIDE)


@pytest.mark.parametrize(
    ("pid", "uid", "rights"),
    [
        (INSIDE, 0, ALL),
        (INSIDE, OWN, ALL),
        (INSIDE, AGENTS, READ),
        (INSIDE, OTHER, NONE),
        (OUTSIDE, 0, NONE),
        (OUTSIDE, OWN, NONE),
        (OUTSIDE, AGENTS, NONE),
        (0, 0, NONE),  # not visible here
        (0, OWN, NONE),
    ],
)
def test_rights(pid: int, uid: int, rights: str) -> None:
    assert control_access.of(pid, uid, AGENT) == rights


def test_a_descendant_may_ask_whatever_files_it_sees() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert control_access.of(child.pid, OWN, AGENT) == ALL
        assert control_access.of(child.pid, AGENTS, AGENT) == READ
    finally:
        child.kill()
        child.wait()


def test_an_agent_whose_user_is_not_known_gives_no_rights() -> None:
    unknown: Any = SimpleNamespace(user=None)
    assert control_access.of(INSIDE, AGENTS, unknown) == NONE


# --- Whether a process is in our container. -------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_where_it_is_known_that_counts(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    monkeypatch.setattr(procfs, "is_in_our_container", lambda pid: known)
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    assert is_in_our_container(8) == known


@pytest.mark.parametrize("own", [1, 12])
def test_where_it_is_not_known_process_1_answers_all_that_it_sees(monkeypatch: pytest.MonkeyPatch, own: int) -> None:
    monkeypatch.setattr(procfs, "is_in_our_container", lambda pid: None)
    monkeypatch.setattr(posix, "getpid", lambda: own)
    assert is_in_our_container(8) == (own == 1)


def test_the_user_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert procfs.user_of(os.getpid()) == os.getuid()
    assert procfs.user_of(2**22 + 1) is None
