"""The last lines of the log, and who follows it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import history
from entrypoint.init.console import DEBUG, INFO, WARNING, Console
from entrypoint.init.history import MAX_BYTES, OVERHEAD_BYTES, History
from tests.support.world import failing

if TYPE_CHECKING:
    from pathlib import Path


def test_it_keeps_what_was_logged(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    console = Console(fd, level=INFO)
    console.history = History()
    before = time.time()
    console.log(WARNING, "event", "text", pid=3)
    console.log(DEBUG, "detail", "not logged, so not kept")
    os.close(fd)
    [(when, *record)] = console.history.records
    assert before <= when <= time.time()
    assert record == [WARNING, "event", "text", {"pid": 3}]


def test_it_keeps_what_there_is_no_descriptor_for() -> None:
    console = Console(None)
    console.history = History()
    console.log(INFO, "event", "text")
    assert [record[3] for record in console.history.records] == ["text"]


def test_a_record_that_there_is_no_memory_for_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    console = Console(fd)
    console.history = History()
    monkeypatch.setattr(history, "_size", no_memory)
    console.log(INFO, "event", "text")
    os.close(fd)
    assert (tmp_path / "log").read_text() == "agent-init: text\n"


def test_what_fails_when_a_record_is_added_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = History()
    kept.add(INFO, "event", "first", {})
    with monkeypatch.context() as patch:
        patch.setattr(history, "_size", failing(len, MemoryError()))
        with pytest.raises(MemoryError):
            kept.add(INFO, "event", "lost", {})
    for number in range(2000):
        kept.add(INFO, "event", f"{number:100}", {})
    assert len(kept.records) == MAX_BYTES // (OVERHEAD_BYTES + 100 + len(str({})))


def test_the_oldest_go_when_there_is_no_space() -> None:
    kept = History()
    fields: dict[str, object] = {"names": ["x" * 50], "text": "y" * 50, "count": 3}
    for number in range(3000):
        kept.add(INFO, "event", f"{number:100}", fields)
    texts = [int(record[3]) for record in kept.records]
    assert texts == list(range(texts[0], 3000))
    size = OVERHEAD_BYTES + 100 + len(str(fields))
    assert len(texts) == MAX_BYTES // size


def test_a_record_that_is_larger_than_the_space_is_not_kept() -> None:
    kept = History()
    kept.add(INFO, "event", "x" * MAX_BYTES, {})
    assert kept.records == []


@pytest.mark.parametrize("is_followed", [False, True])
def test_the_last_line_is_kept_only_for_those_that_follow(is_followed: bool) -> None:
    console = Console(None)
    console.end_history()
    console.history = kept = History()
    assert console.wants_fields
    kept.is_followed = lambda: is_followed
    console.end_history()
    console.log(INFO, "ended", "the end", code=3)
    assert [record[3] for record in kept.records] == (["the end"] if is_followed else [])
    assert console.wants_fields is is_followed


def test_followers_get_each_record_and_may_stop_meanwhile() -> None:
    kept = History()
    seen: list[tuple[str, str]] = []

    def once(record: Any) -> None:
        seen.append(("once", record[3]))
        kept.followers.remove(once)

    kept.followers += [once, lambda record: seen.append(("always", record[3]))]
    kept.add(INFO, "event", "first", {})
    kept.add(INFO, "event", "second", {})
    assert seen == [("once", "first"), ("always", "first"), ("always", "second")]
