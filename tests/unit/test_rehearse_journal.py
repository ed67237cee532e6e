"""What a run keeps of its output, and what becomes of its work."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init.console import json_line
from entrypoint.rehearse import up
from entrypoint.rehearse.journal import Journal
from entrypoint.rehearse.options import Options
from entrypoint.rehearse.records import Line
from entrypoint.rehearse.streams import Streams
from entrypoint.rehearse.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def journal(folder: Path, work_up: str = "") -> Journal:
    return Journal(folder, up.Signs(100.0, active_at=100.0), work_up)


def record(at: float, event: str, message: str, **facts: object) -> Line:
    return Line(at, "err", json_line(at, 2, event, message, facts).decode().rstrip("\n"))


# --- The journal. -----------------------------------------------------------------------------------------------------


def test_lines_and_records_are_kept_apart_and_written_with_their_time(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.add_line(Line(100.5, "out", "starting"))
    kept.add_line(record(101.0, "started", "agent started", grace=30))
    kept.add_line(record(102.0, "stop-requested", "received TERM"))
    kept.add_event("end", "exit code 0", 103.25)
    kept.close()
    assert [line.text for line in kept.lines] == ["starting"]
    assert [one.event for one in kept.records] == ["started", "stop-requested"]
    assert kept.grace == 30.0
    assert [(event.seconds, event.kind) for event in kept.events] == [(2.0, "signal"), (3.25, "end")]
    assert (tmp_path / "output.log").read_text() == "    0.500 out starting\n"
    written = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [one.get("event", one.get("kind")) for one in written] == ["started", "stop-requested", "signal", "end"]


def test_lines_show_a_start_until_the_agent_is_up(tmp_path: Path) -> None:
    signs = up.Signs(100.0, active_at=100.0)
    kept = Journal(tmp_path, signs, "")
    kept.add_line(Line(101.0, "out", "starting"))
    kept.add_line(record(102.0, "ready", "agent is ready"))
    assert (signs.texts, signs.ready_at, signs.active_at) == ([(101.0, "starting")], 102.0, 101.0)
    signs.up_at = 102.0
    kept.add_line(Line(103.0, "err", "serving"))
    assert (signs.texts, signs.active_at) == ([(101.0, "starting")], 103.0)
    kept.close()


@pytest.mark.parametrize(("wanted", "begun"), [("", [True, True]), ("sent", [False, True])])
def test_work_has_begun_with_the_line_that_was_awaited(tmp_path: Path, wanted: str, begun: list[bool]) -> None:
    kept = journal(tmp_path, wanted)
    assert not kept.work_begun
    for at, text, expected in zip((101.0, 102.0), ("connecting", "request sent"), begun, strict=True):
        kept.add_line(Line(at, "work", text))
        assert kept.work_begun == expected
    kept.close()
    assert not kept.lines
    assert (tmp_path / "work.log").read_text() == "    1.000 connecting\n    2.000 request sent\n"


# --- The work. --------------------------------------------------------------------------------------------------------


class Stage:
    """A run that has nothing but its work."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.journal = journal(folder, options.work_up or "")
        self.streams = Streams(self.journal.add_line)
        self.work = Work(options, self.journal, self.wait_until)

    def wait_until(self, at: float, is_over: Callable[[], bool]) -> None:
        while (left := at - time.monotonic()) > 0 and not is_over():
            self.streams.read(min(0.02, left))

    def begin(self) -> Work:
        self.work.begin(dict(os.environ), self.streams, scenario="term", run="1")
        return self.work

    def texts(self) -> list[str]:
        return [event.text for event in self.journal.events]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**options: object) -> Stage:
        made.append(Stage(tmp_path, Options(**options)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.work.end()
        one.streams.close()
        one.journal.close()


def test_without_work_nothing_is_done(stage: Callable[..., Stage]) -> None:
    one = stage()
    work = one.begin()
    work.await_end()
    assert not work.is_running()
    assert (work.code, work.cut, work.was_over, one.texts()) == (None, False, False, [])


def test_work_that_ends_after_the_stop_request_has_an_exit_code(stage: Callable[..., Stage], tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    one = stage(work=f"echo begun; until test -e {go_on}; do sleep 0.05; done; exit 3", work_up="begun", up_timeout=60)
    work = one.begin()
    assert work.is_running()
    go_on.touch()
    work.await_end()
    assert (work.code, work.cut, work.was_over) == (3, False, False)
    assert one.texts() == ["the work begins", "exit code 3"]


def test_work_that_does_not_end_is_cut(stage: Callable[..., Stage]) -> None:
    one = stage(work="echo begun; exec sleep 600", work_up="begun", up_timeout=60, work_timeout=0.1)
    work = one.begin()
    work.await_end()
    assert (work.code, work.cut, work.was_over) == (None, True, False)
    work.end()
    assert not work.is_running()


def test_work_that_was_over_before_the_stop_request_is_no_work(stage: Callable[..., Stage]) -> None:
    one = stage(work="true")
    work = one.begin()
    work.await_end()
    assert (work.code, work.cut, work.was_over) == (None, False, True)
    assert one.texts() == ["the work begins", "the work had ended before the stop request"]


def test_work_that_fails_at_once_is_no_start(stage: Callable[..., Stage]) -> None:
    with pytest.raises(up.NotUp, match="the work failed before a stop was requested, with exit code 4"):
        stage(work="exit 4").begin()


def test_work_that_does_not_print_what_was_awaited_is_no_start(stage: Callable[..., Stage]) -> None:
    with pytest.raises(up.NotUp, match="the work did not print 'begun' within 200ms"):
        stage(work="exec sleep 600", work_up="begun", up_timeout=0.2).begin()


def test_work_without_a_text_to_await_is_in_hand_once_it_waits(stage: Callable[..., Stage]) -> None:
    assert stage(work="echo begun; exec sleep 600").begin().is_running()
