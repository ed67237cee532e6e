"""The smaller parts of a rehearsal: what is up, what is planned, whose a line is, what is read when."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.init import procfs
from entrypoint.init.console import json_line
from entrypoint.rehearse import container, observe, rehearsal, scenarios, up
from entrypoint.rehearse.options import Options
from entrypoint.rehearse.plugin import Silent
from entrypoint.rehearse.records import Line, split
from entrypoint.rehearse.run import Reference
from entrypoint.rehearse.scenarios import NAMES, WAYS, Before
from entrypoint.rehearse.streams import Streams

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = Reference(up_after=2.0, drain=1.0)

# --- Up. ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("READY=1", "READY=1"),
        ("registered worker", "the line 'registered worker'"),
        ("tcp:8080", "tcp:8080"),
        ("tcp:127.0.0.1:80", "tcp:127.0.0.1:80"),
        ("tcp:[::1]:80", "tcp:::1:80"),
        ("http://localhost:8080/health", "http://localhost:8080/health"),
        ("5s", "5s after the start"),
        ("500ms", "500ms after the start"),
    ],
)
def test_what_shows_that_an_agent_is_up(text: str, shown: str) -> None:
    assert up.parse(text).text == shown


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "infinity", "tcp:", "tcp:0", "tcp:65536", "tcp:a", "tcp:a..b:80", "tcp:a\0b:80"),
        *("http://", "http://h:x/", "http://h/a b", "http://a..b/", f"http://{'x' * 64}/"),
    ],
)
def test_what_shows_nothing_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="accepted: READY=1, the text of a log line, tcp:PORT"):
        up.parse(text)


@given(st.text(max_size=30))
def test_property_any_text_is_a_condition_or_is_refused(text: str) -> None:
    try:
        assert up.parse(text).text
    except ValueError as refused:
        message = str(refused)
    else:
        return
    assert "accepted" in message


def signs(now: float, **more: object) -> up.Signs:
    made = up.Signs(100.0, now=now, active_at=100.0)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_log_line_is_seen_once_it_is_there() -> None:
    condition = up.parse("registered")
    seen = signs(101.0, texts=[(100.5, "starting")])
    assert condition.check(seen) is None
    seen.texts.append((101.5, "worker registered"))
    assert condition.check(seen) == 101.5


def test_time_is_over_when_it_is() -> None:
    condition = up.parse("5s")
    assert condition.check(signs(104.9)) is None
    assert condition.check(signs(105.1)) == 105.0


def test_first_of_ready_port_and_quiet_counts() -> None:
    condition = up.Automatic()
    assert condition.check(signs(102.9, texts=[(100.0, "starting")])) is None
    assert condition.check(signs(103.1, texts=[(100.0, "starting")])) == 100.0
    assert condition.found == "3s of quiet"
    assert condition.check(signs(104.0, ports={8080: 103.0}, active_at=103.4)) == 103.4
    assert condition.found == "a listening port (8080)"
    assert condition.check(signs(104.0, ports={8080: 103.0}, active_at=103.4, ready_at=103.9)) == 103.9
    assert condition.found == "READY=1"


def test_master_that_listens_is_not_up_while_its_workers_start() -> None:
    condition = up.Automatic()
    assert condition.check(signs(103.2, ports={80: 101.0}, active_at=103.0)) is None
    assert condition.check(signs(106.1, ports={80: 101.0}, active_at=106.0)) == 106.0  # but not for ever


def test_less_quiet_is_enough_once_it_is_known_how_long_a_start_takes() -> None:
    condition = up.Automatic(at_least=4.0)
    assert condition.check(signs(103.9, texts=[(100.0, "starting")])) is None
    assert condition.check(signs(104.1, texts=[(100.0, "starting")])) == 100.0
    assert condition.check(signs(104.6, texts=[(103.5, "up")], active_at=103.5)) is None
    assert condition.check(signs(105.1, texts=[(103.5, "up")], active_at=103.5)) == 103.5


def test_silent_agent_is_up_after_a_longer_time() -> None:
    assert up.Automatic().check(signs(105.9)) is None
    assert up.Automatic().check(signs(106.1)) == 100.0


# --- Plans. ---------------------------------------------------------------------------------------------------------


def test_scenarios_are_chosen_by_name_in_the_order_of_the_table() -> None:
    assert [way.name for way in scenarios.parse("hup,term,")] == ["term", "hup"]
    for text in ("", ",", "term,nova"):
        with pytest.raises(ValueError, match="accepted: term, int, term-twice"):
            scenarios.parse(text)


def test_each_scenario_is_planned_so_often_and_the_reference_is_the_first_of_term() -> None:
    planned = rehearsal.plan(Options(runs=3, seed=1, break_dependency="true"), REFERENCE)
    numbers = {way.name: sorted(one.number for one in planned if one.way == way) for way in WAYS}
    assert numbers.pop("term") == [2, 3]
    assert numbers.pop("early") == list(range(1, 13))
    assert all(found == [1, 2, 3] for found in numbers.values())


def test_same_seed_is_the_same_order_and_the_same_moments() -> None:
    plans = [rehearsal.plan(Options(runs=2, seed=seed), REFERENCE) for seed in (7, 7, 8)]
    assert plans[0] == plans[1] != plans[2]


@given(st.integers(0, 1 << 32), st.integers(1, 4))
def test_property_early_stops_come_between_5_and_50_percent_of_the_start(seed: int, runs: int) -> None:
    planned = rehearsal.plan(Options(seed=seed, runs=runs, ways=(NAMES["early"],)), REFERENCE)
    shares = sorted(one.share or 0.0 for one in planned)
    assert set(scenarios.EARLY_SHARES) <= set(shares)
    assert shares[0] == 0.05
    assert shares[-1] == 0.5


@given(st.integers(0, 1 << 32))
def test_property_what_stays_broken_is_broken_last(seed: int) -> None:
    options = Options(seed=seed, break_dependency="true", runs=2)
    planned = rehearsal.plan(options, REFERENCE)
    assert [one.way.before is Before.BREAK for one in planned[-2:]] == [True, True]


def test_what_cannot_be_done_is_planned_with_its_reason() -> None:
    quick = Reference(up_after=1.0, drain=0.05)
    reasons = {one.way.name: one.reason for one in rehearsal.plan(Options(runs=5), quick) if one.reason}
    assert reasons == {
        "dependency-gone": "no --break CMD, which stops a dependency",
        "grace-too-short": "the agent ended within 50ms: no grace is too short",
    }


def test_shell_gets_the_command_as_one_line() -> None:
    assert NAMES["sh-c"].command(["python", "a b.py"]) == ("sh", "-c", "python 'a b.py'")
    assert NAMES["sh-c-stays"].command(["a", "{}"]) == ("sh", "-c", "a '{}'; exit $?")
    assert NAMES["term"].command(["a", "b"]) == ("a", "b")


# --- Lines and records. ---------------------------------------------------------------------------------------------


def test_record_is_found_behind_an_unfinished_line_of_the_agent() -> None:
    written = json_line(1.0, 1, "lingering", "the agent exited", {"processes": ["sh (3)"]}).decode().rstrip()
    rest, record = split(Line(5.0, "err", "progress 50 %" + written))
    assert rest == Line(5.0, "err", "progress 50 %")
    assert record is not None
    assert (record.event, record.message, record.texts("processes")) == ("lingering", "the agent exited", ("sh (3)",))
    assert record.texts("code") == ()
    assert split(Line(5.0, "err", written))[0] is None


@pytest.mark.parametrize(
    "text", ["text", '{"time": "now", "level": "info"}', '{"time": "', '{"time": "x", "event": "e", "message": "m"}']
)
def test_line_of_the_agent_stays_its_own(text: str) -> None:
    line = Line(5.0, "err", text)
    assert split(line) == (line, None)


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_property_a_line_is_split_or_kept(before: str, fields: dict[str, str]) -> None:
    text = before + json.dumps(fields)
    assert split(Line(1.0, "err", text)) == (Line(1.0, "err", text), None)


# --- Pipes. ---------------------------------------------------------------------------------------------------------


def pipe(name: str) -> tuple[Streams, list[Line], int, int]:
    """The streams of a run that has one pipe, the lines that came, and the ends of the pipe."""
    lines: list[Line] = []
    streams = Streams(lines.append)
    reader, writer = os.pipe()
    streams.add(reader, name)
    return streams, lines, reader, writer


def test_pipe_that_is_not_read_is_full_and_loses_nothing() -> None:
    streams, lines, reader, writer = pipe("out")
    os.write(writer, b"before\nunfin")
    streams.read(1)
    streams.pause(reader)
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        os.write(writer, b"x")
    streams.read(0.01)
    streams.resume(reader)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            os.write(writer, b"ished\n")
            break
        except BlockingIOError:
            streams.read(0.1)
    os.close(writer)
    streams.close()
    assert [line.text for line in lines] == ["before", "unfinished"]


def test_pipe_that_the_agent_has_closed_cannot_be_filled() -> None:
    streams, _, reader, writer = pipe("out")
    os.close(writer)
    streams.read(1)
    streams.pause(reader)
    streams.resume(reader)
    streams.close()


def test_last_line_needs_no_end() -> None:
    streams, lines, _, writer = pipe("err")
    os.write(writer, b"a\r\n\xff")
    streams.close()
    os.close(writer)
    assert [(line.stream, line.text) for line in lines] == [("err", "a"), ("err", "\\xff")]


# --- What stands in the way. ----------------------------------------------------------------------------------------


def test_without_proc_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    with pytest.raises(rehearsal.Failure, match="works on Linux only"):
        rehearsal.rehearse(["true"], Options(), Silent())


def test_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "term").mkdir()
    with pytest.raises(rehearsal.Failure, match=r"is not empty; accepted by --keep: "):
        rehearsal.rehearse(["true"], Options(keep=tmp_path), Silent())
    (tmp_path / "file").touch()
    with pytest.raises(rehearsal.Failure, match="cannot keep output in"):
        rehearsal.rehearse(["true"], Options(keep=tmp_path / "file" / "x"), Silent())


def test_children_are_found_where_the_kernel_does_not_list_them(monkeypatch: pytest.MonkeyPatch) -> None:
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    try:
        listed = [process.pid for process in container._children(os.getpid())]
        monkeypatch.setattr(procfs, "children", lambda _: [])
        monkeypatch.setattr(os.path, "exists", lambda _: False)
        found = [process.pid for process in container._children(os.getpid())]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert found == listed
    assert {child.pid for child in children} <= set(found)


def test_processes_that_cannot_be_seen_for_a_moment_have_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        observer = observe.Observer(os.getpid(), 0.0)
        observer.look(at_once=True)
        monkeypatch.setattr(procfs, "pids", mock.Mock(side_effect=OSError))
        observer.look(at_once=True)
        assert child.pid in [seen.process.pid for seen in observer.alive()]
        monkeypatch.undo()
    finally:
        child.kill()
        child.wait()
    observer.look(at_once=True)
    assert child.pid not in [seen.process.pid for seen in observer.alive()]


def test_what_agent_init_starts_for_itself_is_not_the_agents() -> None:
    def is_helper(name: str, parent: int, *argv: str) -> bool:
        process = procfs.Process(9, name, parent, 9, 1)
        return observe.Seen(process, 9, parent, name, 0.0, argv=list(argv)).is_helper_of(5)

    assert is_helper("agent-init", 5, "python3", "-I", "-S", "-X", "utf8", "/x/__main__.py")  # forked just now
    assert is_helper("python3", 5, "python3", "-I", "-S", "/x/entrypoint/report/__main__.py", "{}")
    assert not is_helper("agent-init", 6, "agent-init", "--", "python", "agent.py")  # the agent's own
    assert not is_helper("python3", 5, "python3", "agent.py")
