"""What is written to the termination log, beside what the agent writes, and into which files."""

from __future__ import annotations

import errno
import os
import posix
import time
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import parsed
from entrypoint import settings as reader
from entrypoint.init import procfs, termination_log
from entrypoint.init.termination_log import TerminationLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def settings(log: Path | str, *, named: bool = True) -> parsed.Settings:
    """Return settings with this log. `named`: by --termination-log; otherwise it is the default."""
    read = reader.read(["--termination-log", str(log), "agent"], {})
    if not named:
        del read.sources["termination_log"]
    return read


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def ours(log: Path) -> TerminationLog:
    """Return our part of `log`, the default file; the test fails if it leaves a descriptor open."""
    log.touch()
    return TerminationLog(settings(log, named=False))


@pytest.fixture(autouse=True)
def _no_descriptor_stays_open() -> object:
    opened = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == opened


# --- Our part. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["first", "second"], b"first\nsecond\n"),
        ([], b""),
        (["x" * 4000, "y" * 94], b"x" * 4000 + b"\n" + b"y" * 94 + b"\n"),
        (["x" * 4000, "y" * 95], b"x" * 4000 + b"\n" + b"y" * 91 + b"...\n"),
        (["x" * 4091 + "\xe9" + "y" * 99], b"x" * 4091 + b"...\n"),
    ],
    ids=["lines", "none", "just fits", "does not fit", "no part of a character"],
)
def test_our_part_is_cut_to_4096_bytes(ours: TerminationLog, log: Path, lines: list[str], text: bytes) -> None:
    ours.write(lines)
    assert log.read_bytes() == text
    assert ours.is_written == bool(text)
    assert ours.error == ""


@pytest.mark.parametrize(
    ("agents", "text"),
    [
        (b"lost\n", b"lost\nagent-init: one\ntwo\n"),
        (b"lost", b"lost\nagent-init: one\ntwo\n"),
        (b"\xff\n", b"\xff\nagent-init: one\ntwo\n"),
        (b"x" * 4031 + b"\n", b"x" * 4031 + b"\nagent-init: one\ntwo\n"),
        (b"x" * 4032 + b"\n", b"x" * 4032 + b"\n"),
        (b"x" * 5000, b"x" * 5000),
        (b"x" * 20000, b"x" * 20000),
    ],
    ids=["a line", "no line", "no text", "room for 64 bytes", "no room", "more than is shown", "much more"],
)
def test_our_part_follows_the_agents(ours: TerminationLog, log: Path, agents: bytes, text: bytes) -> None:
    log.write_bytes(agents)
    ours.write(["one", "two"])
    assert log.read_bytes() == text
    ours.write([])
    assert log.read_bytes() == agents
    assert not ours.is_written


def test_our_part_is_cut_to_what_the_agent_leaves(ours: TerminationLog, log: Path) -> None:
    log.write_bytes(b"x" * 3999 + b"\n")
    ours.write(["\xe9" * 99])
    assert log.read_bytes()[4000:] == b"agent-init: " + "\xe9".encode() * 40 + b"...\n"
    assert log.stat().st_size <= 4096


def append(log: Path, text: bytes) -> None:
    with log.open("ab") as file:
        file.write(text)


@pytest.mark.parametrize("after", [["longer than before"], ["x"], []], ids=["longer", "shorter", "none"])
def test_only_our_part_is_replaced(ours: TerminationLog, log: Path, after: list[str]) -> None:
    """What the agent has appended comes before it then."""
    log.write_bytes(b"first\n")
    ours.write(["one", "two"])
    append(log, b"second\n")
    ours.write(after)
    mine = f"agent-init: {after[0]}\n".encode() if after else b""
    assert log.read_bytes() == b"first\nsecond\n" + mine
    append(log, b"third\n")
    ours.write(["end"])
    assert log.read_bytes() == b"first\nsecond\nthird\nagent-init: end\n"


def test_the_same_text_is_not_written_again(ours: TerminationLog, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours.write(["one"])
    monkeypatch.setattr(posix, "pwrite", lambda *_: pytest.fail("written"))
    ours.write(["one"])
    assert log.read_bytes() == b"one\n"


def test_the_agent_may_begin_the_file_anew(ours: TerminationLog, log: Path) -> None:
    ours.write(["one", "two"])
    log.write_bytes(b"lost\n")
    ours.write(["three"])
    assert log.read_bytes() == b"lost\nagent-init: three\n"
    log.write_bytes(b"a longer text than all that was there\n")
    ours.write([])
    assert log.read_bytes() == b"a longer text than all that was there\n"
    log.write_bytes(b"")
    ours.write(["four"])
    assert log.read_bytes() == b"four\n"


@pytest.mark.parametrize(
    "agents", [b"lost\n", b"lost the database and the queue, gave up\n"], ids=["shorter", "longer"]
)
def test_the_agent_may_write_over_our_part(ours: TerminationLog, log: Path, agents: bytes) -> None:
    """It has opened the file before: its offset is where our part begins."""
    with log.open("r+b", buffering=0) as file:
        file.write(b"first\n")
        ours.write(["our first line", "another"])
        file.write(agents)
        ours.write(["our last line"])
    assert log.read_bytes() == b"first\n" + agents + b"agent-init: our last line\n"
    ours.write([])
    assert log.read_bytes() == b"first\n" + agents


def test_a_text_that_has_moved_is_found(ours: TerminationLog, log: Path) -> None:
    ours.write(["one", "two"])
    log.write_bytes(b"before\n" + log.read_bytes() + b"after\n")
    ours.write([])
    assert log.read_bytes() == b"before\nafter\n"


def test_after_a_text_that_leaves_no_room_ours_stays_where_it_is(ours: TerminationLog, log: Path) -> None:
    """It is not among the last bytes, which are shown."""
    ours.write(["one"])
    append(log, b"x" * 9000)
    ours.write(["two"])
    assert log.read_bytes() == b"one\n" + b"x" * 9000


# --- The file. ------------------------------------------------------------------------------------------------------


def test_the_default_file_is_written_only_where_it_exists(log: Path) -> None:
    by_default = settings(log, named=False)
    ours = TerminationLog(by_default)
    assert not by_default.has_termination_log
    ours.write(["text"])
    assert not log.exists()
    assert ours.error == ""
    log.touch()
    assert by_default.has_termination_log
    ours.write(["text"])
    assert log.read_text() == "text\n"


def test_a_named_file_is_created_if_there_is_something_to_write(log: Path) -> None:
    assert settings(log).has_termination_log
    ours = TerminationLog(settings(log))
    ours.write([])
    assert not log.exists()
    assert ours.error == ""
    before = os.umask(0)
    try:
        ours.write(["text"])
    finally:
        os.umask(before)
    assert log.stat().st_mode & 0o7777 == 0o644


def test_a_file_that_is_gone_is_made_again(log: Path) -> None:
    ours = TerminationLog(settings(log))
    ours.write(["text"])
    log.unlink()
    ours.write(["more"])
    assert log.read_text() == "more\n"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("lines", [["text"], []], ids=["text", "none"])
def test_only_a_named_file_may_hold_the_message_of_an_earlier_run(log: Path, named: bool, lines: list[str]) -> None:
    log.write_text("from before\n")
    own = procfs.look(os.getpid())
    assert own
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + own.start / os.sysconf("SC_CLK_TCK")
    os.utime(log, (started - 1, started - 1))
    TerminationLog(settings(log, named=named)).write(lines)
    kept = "" if named else "from before\n"
    ours = "text\n" if named else "agent-init: text\n"
    assert log.read_text() == kept + (ours if lines else "")
    log.write_text("by the agent\n")
    os.utime(log, (started + 0.5, started + 0.5))
    TerminationLog(settings(log, named=named)).write(["text"])
    assert log.read_text() == "by the agent\nagent-init: text\n"


def test_a_file_stays_where_our_own_start_is_not_known(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write_text("from before\n")
    os.utime(log, (1, 1))
    monkeypatch.setattr(procfs, "look", lambda _: None)
    TerminationLog(settings(log)).write(["text"])
    assert log.read_text() == "from before\nagent-init: text\n"


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    ours = TerminationLog(settings(tmp_path / "missing" / "log"))
    ours.write(["text"])
    assert ours.error == "No such file or directory"
    ours = TerminationLog(settings(tmp_path))
    ours.write(["text"])
    assert ours.error == "Is a directory"


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """A user who may write to the directory could have us write elsewhere."""
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "log").symlink_to("elsewhere")
    ours = TerminationLog(settings(tmp_path / "log"))
    ours.write(["text"])
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert ours.error == "Too many levels of symbolic links"


@pytest.mark.timeout(10)
def test_a_fifo_is_neither_waited_for_nor_read(log: Path) -> None:
    os.mkfifo(log)
    ours = TerminationLog(settings(log))
    ours.write(["text"])
    assert ours.error == "not a regular file"


def refuse(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_cannot_be_written_keeps_what_it_has(
    ours: TerminationLog, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(b"lost\n")
    ours.write(["one"])
    with monkeypatch.context() as patch:
        patch.setattr(posix, "pwrite", refuse)
        ours.write(["two"])
    assert ours.error == os.strerror(errno.ENOSPC)
    assert log.read_bytes() == b"lost\nagent-init: one\n"
    ours.write([])
    assert log.read_bytes() == b"lost\n"
    assert ours.error == ""


@pytest.fixture
def nearly_full(ours: TerminationLog, log: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The file holds our part between two of the agent's. Cut the next write to `room` bytes, after `meanwhile`."""
    log.write_bytes(b"first\n")
    ours.write(["one"])
    append(log, b"second\n")
    write: Callable[..., int] = os.pwrite

    def cut(room: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        def pwrite(fd: int, data: bytes, offset: int) -> int:
            if b"another" not in data:
                return write(fd, data, offset)
            meanwhile()
            return write(fd, data[:room], offset) if room else 0

        monkeypatch.setattr(posix, "pwrite", pwrite)

    return cut


@pytest.mark.parametrize("room", [0, 3, 10, 20])
def test_if_the_disk_becomes_full_the_agents_bytes_are_restored(
    ours: TerminationLog, log: Path, nearly_full: Callable[..., None], room: int
) -> None:
    nearly_full(room)
    ours.write(["another text, which is longer"])
    assert log.read_bytes() == b"first\nsecond\n"
    assert ours.error == "no room for all of it"
    assert not ours.is_written
    ours.write(["end"])
    assert log.read_bytes() == b"first\nsecond\nagent-init: end\n"


def test_if_the_disk_becomes_full_what_the_agent_appends_meanwhile_stays(
    ours: TerminationLog, log: Path, nearly_full: Callable[..., None]
) -> None:
    nearly_full(3, lambda: append(log, b"third\n" * 20))
    ours.write(["another text"])
    assert log.read_bytes().startswith(b"first\nsecond\n")
    assert log.read_bytes().endswith(b"third\n" * 20)
    assert ours.error == "no room for all of it"


@pytest.mark.parametrize(
    ("call", "then"),
    [("pread", ["x"]), ("pread", ["a longer text than before"]), ("pread", []), ("pwrite", ["x"])],
)
def test_what_the_agent_appends_meanwhile_stays(
    ours: TerminationLog, log: Path, monkeypatch: pytest.MonkeyPatch, call: str, then: list[str]
) -> None:
    """The agent appends after our look, or before our write is complete. Of our former text nothing is left."""
    log.write_bytes(b"the agent's\n")
    ours.write(["a text of ours"])
    real: Callable[..., Any] = getattr(os, call)
    left = [b"appended\n"]

    def late(*arguments: Any) -> Any:
        result = real(*arguments) if call == "pread" else None
        if left:
            append(log, left.pop())
        return real(*arguments) if call == "pwrite" else result

    monkeypatch.setattr(posix, call, late)
    ours.write(then)
    text = f"agent-init: {then[0]}\n" if then else ""
    assert log.read_text() == f"the agent's\nappended\n{text}"
    assert ours.is_written == bool(then)


def test_a_file_that_keeps_growing_is_left_alone(
    ours: TerminationLog, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Callable[..., bytes] = os.pread

    def late(*arguments: Any) -> bytes:
        content = read(*arguments)
        append(log, b"again\n")
        return content

    monkeypatch.setattr(posix, "pread", late)
    log.write_bytes(b"")
    ours.write(["text"])
    assert set(log.read_text().splitlines()) == {"again"}
    assert not ours.is_written


def test_without_a_termination_log_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(posix, "open", lambda *arguments: opened.append(arguments))
    assert not settings("none").has_termination_log
    ours = TerminationLog(settings("none"))
    ours.write(["text"])
    assert opened == []


def test_the_limit_is_that_of_kubernetes() -> None:
    """MaxContainerTerminationMessageLength in the kubelet."""
    assert termination_log.MAX_BYTES == 4096
