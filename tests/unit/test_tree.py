"""Who descends from whom, also while processes come and go. With real process trees: tests/process1, tests/faults."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import procfs, tree
from entrypoint.init.procfs import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Forest:
    """Processes that are made up. `parents`: by pid; `later`: what a second look at a pid finds, None for nothing."""

    def __init__(self, parents: dict[int, int], later: dict[int, int | None] | None = None) -> None:
        self.parents: dict[int, int | None] = {**parents}
        self.later = later or {}
        self.looks: list[int] = []

    def pids(self) -> list[int]:
        return list(self.parents)

    def look(self, pid: int) -> Process | None:
        self.looks.append(pid)
        parent = self.parents.get(pid)
        if pid in self.later:
            self.parents[pid] = self.later[pid]
        return None if parent is None else Process(pid, f"p{pid}", parent, pid, 0)


@pytest.fixture
def forest(monkeypatch: pytest.MonkeyPatch) -> Callable[[Forest], None]:
    def use(made: Forest) -> None:
        monkeypatch.setattr(procfs, "pids", made.pids)
        monkeypatch.setattr(procfs, "look", made.look)

    return use


def test_an_orphan_is_looked_at_again(forest: Callable[[Forest], None]) -> None:
    """Its parent exited during the look."""
    made = Forest({1: 0, 2: 1, 3: 99, 4: 98, 5: 97}, later={3: 1, 4: 98, 5: None})
    forest(made)
    seen = tree.everything()
    assert {pid: process.parent for pid, process in seen.items()} == {1: 0, 2: 1, 3: 1, 4: 98, 5: 97}
    assert made.looks == [1, 2, 3, 4, 5, 3, 4, 5]  # not at 1: a parent 0 is outside the PID namespace
    assert [found.pid for found in tree.below(1, seen)] == [2, 3]


def test_a_pid_that_cannot_be_looked_at_is_left_out(forest: Callable[[Forest], None]) -> None:
    made = Forest({1: 0, 2: 1})
    made.parents[3] = None
    forest(made)
    assert list(tree.everything()) == [1, 2]


def test_without_proc_there_is_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    with pytest.raises(OSError, match="no processes visible"):
        tree.everything()


FAMILY = {9: 2, 4: 3, 3: 2, 2: 1, 7: 1}


def family(*, dead: int = 0) -> dict[int, Process]:
    return {pid: Process(pid, "p", parent, pid, 0, alive=pid != dead) for pid, parent in FAMILY.items()}


def test_descendants_are_listed_parents_first_without_the_dead() -> None:
    assert [found.pid for found in tree.below(1, family(dead=3))] == [2, 7, 9, 4]


def test_descendants_of_processes_in_a_circle_are_listed_once() -> None:
    """A pid that was reused during the look may make two processes each other's parents."""
    processes = {pid: Process(pid, "p", parent, pid, 0) for pid, parent in {2: 3, 3: 2, 4: 3}.items()}
    assert [found.pid for found in tree.below(2, processes)] == [3, 2, 4]


def test_children_are_found_among_those_seen() -> None:
    children_of = tree.children_among(family(dead=3))
    assert {pid: [child.pid for child in children_of(pid)] for pid in (1, 2, 3, 4)} == {
        1: [2, 7],
        2: [9, 3],
        3: [4],
        4: [],
    }


@pytest.mark.parametrize(("root", "expected"), [(0, True), (1, True), (2, True), (3, False), (8, False)])
def test_an_ancestor_is_found(forest: Callable[[Forest], None], root: int, expected: bool) -> None:
    forest(Forest({1: 0, 2: 1, 3: 2, 8: 1}))
    assert tree.is_below(root, procfs.look(3)) is expected


def test_the_climb_ends_at_a_missing_parent_or_in_a_circle(forest: Callable[[Forest], None]) -> None:
    forest(Forest({5: 6, 6: 5, 7: 77}))
    assert not tree.is_below(1, procfs.look(5))
    assert not tree.is_below(1, procfs.look(7))
    assert not tree.is_below(1, None)


def test_the_climb_ends_at_process_0_where_there_is_one(forest: Callable[[Forest], None]) -> None:
    made = Forest({0: 0, 1: 0, 2: 1})
    forest(made)
    assert not tree.is_below(9, procfs.look(2))
    assert made.looks == [2, 1, 0]


# --- Our own descendants. -------------------------------------------------------------------------------------------


@pytest.fixture
def children() -> Iterator[list[int]]:
    """The pids of two children of ours."""
    code = "import time; print(flush=True); time.sleep(100)"
    started = [subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    for child in started:
        assert child.stdout
        child.stdout.readline()
    yield [child.pid for child in started]
    for child in started:
        child.kill()
        child.communicate()


def test_our_helper_processes_are_no_descendants(monkeypatch: pytest.MonkeyPatch, children: list[int]) -> None:
    monkeypatch.setattr(tree, "MAX_LISTED", 1_000_000)  # whatever else runs on this machine
    ours, helper = children
    descendants = tree.Descendants({helper})
    assert [found.pid for found in descendants.all()] == [ours]
    assert [found.pid for found in descendants.listable() or ()] == [ours]


def test_one_look_at_proc_serves_until_it_is_forgotten(forest: Callable[[Forest], None]) -> None:
    made = Forest({os.getpid(): 0, 10: os.getpid()})
    forest(made)
    descendants = tree.Descendants(())
    assert [found.pid for found in descendants.all()] == [10]
    made.parents[11] = 10
    assert [found.pid for found in descendants.all()] == [10]
    descendants.forget()
    assert [found.pid for found in descendants.all()] == [10, 11]


def test_having_no_descendants_is_remembered_too(forest: Callable[[Forest], None]) -> None:
    made = Forest({os.getpid(): 0})
    forest(made)
    descendants = tree.Descendants(())
    assert descendants.all() == []
    looks = len(made.looks)
    assert descendants.all() == []
    assert len(made.looks) == looks


@pytest.mark.parametrize("too_many", [False, True])
def test_more_processes_than_can_be_listed_in_time_are_not_listed(
    forest: Callable[[Forest], None], monkeypatch: pytest.MonkeyPatch, too_many: bool
) -> None:
    monkeypatch.setattr(tree, "MAX_LISTED", 3)
    ours = os.getpid()
    made = Forest({ours: 0, **{ours + number: ours for number in range(1, 4 if too_many else 3)}})
    forest(made)
    found = tree.Descendants(()).listable()
    if too_many:
        assert found is None
        assert made.looks == []  # it takes no time to find out
    else:
        assert [process.pid for process in found or ()] == [ours + 1, ours + 2]


@pytest.mark.parametrize(("number", "is_listed"), [(tree.ALWAYS_LISTED, True), (tree.ALWAYS_LISTED + 1, False)])
def test_a_look_that_takes_too_long_is_given_up_unless_it_is_at_few_processes(
    forest: Callable[[Forest], None], number: int, is_listed: bool
) -> None:
    """In gVisor a look at one process can take a millisecond."""
    ours = os.getpid()
    made = Forest({ours + n: ours * (n > 0) for n in range(number)})
    forest(made)
    descendants = tree.Descendants(())
    assert (descendants.listable(within=0.0) is not None) is is_listed
    assert len(made.looks) == tree.ALWAYS_LISTED
    assert len(descendants.listable(within=60.0) or ()) == number - 1
    assert len(descendants.listable(within=0.0) or ()) == number - 1, "it was listed before"


def test_without_proc_nothing_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    descendants = tree.Descendants(())
    assert descendants.listable() is None
    with pytest.raises(OSError, match="no processes visible"):
        descendants.all()
