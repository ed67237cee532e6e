"""Whose user the agent runs as, in a simulated process table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from entrypoint.init import agent_user, names, procfs

if TYPE_CHECKING:
    from collections.abc import Mapping


class Program(NamedTuple):
    user: int | None
    children: tuple[int, ...] = ()
    is_wrapper: bool = True
    alive: bool = True


LONG = {pid: Program(0, (pid + 1,)) for pid in range(1, 40)}
TABLES: dict[str, tuple[dict[int, Program], int]] = {
    "no wrapper": ({1: Program(0, (2,), is_wrapper=False), 2: Program(7)}, 1),
    "it has dropped its privileges itself": ({1: Program(7, (2,)), 2: Program(8)}, 1),
    "su": ({1: Program(0, (2,)), 2: Program(7)}, 2),
    "a shell that runs su": ({1: Program(0, (2,)), 2: Program(0, (3,)), 3: Program(7, (4,)), 4: Program(8)}, 3),
    "root below a wrapper": ({1: Program(0, (2,)), 2: Program(0, is_wrapper=False)}, 1),
    "a zombie beside it": ({1: Program(0, (2, 3)), 2: Program(8, alive=False), 3: Program(7)}, 3),
    "two programs": ({1: Program(0, (2, 3)), 2: Program(8), 3: Program(7)}, 1),
    "one that exits meanwhile": ({1: Program(0, (2,))}, 1),
    "many children": ({1: Program(0, tuple(range(2, 12))), 2: Program(7)}, 1),
    "many wrappers": (LONG, 1),
    "gone": ({}, 1),
    "no child": ({1: Program(0)}, 1),
}


def use(monkeypatch: pytest.MonkeyPatch, table: Mapping[int, Program]) -> None:
    def look(pid: int) -> SimpleNamespace | None:
        return SimpleNamespace(pid=pid, alive=table[pid].alive) if pid in table else None

    monkeypatch.setattr(procfs, "look", look)
    monkeypatch.setattr(procfs, "user_of", lambda pid: table[pid].user if pid in table else None)
    monkeypatch.setattr(procfs, "child_pids", lambda pid: list(table[pid].children))
    monkeypatch.setattr(names, "is_wrapper", lambda process: table[process.pid].is_wrapper)


@pytest.mark.parametrize(("table", "whose"), TABLES.values(), ids=TABLES)
def test_the_process_whose_user_counts(monkeypatch: pytest.MonkeyPatch, table: dict[int, Program], whose: int) -> None:
    use(monkeypatch, table)
    assert agent_user.find(1) == whose


def test_one_that_is_gone_before_it_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {1: Program(0, (2,)), 2: Program(7)})
    monkeypatch.setattr(procfs, "look", lambda pid: None)
    assert agent_user.find(1) == 1
