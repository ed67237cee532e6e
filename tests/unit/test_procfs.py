"""What is read from /proc: also where there is none, where a read fails, and where a process exits meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import posix
import signal
import subprocess
import sys
import threading
import types

import psutil
import pytest

from entrypoint.init import procfs, tree
from entrypoint.init.procfs import Process
from tests.support.init import until
from tests.support.os_errors import failing


def look(child: subprocess.Popen[bytes] | int) -> Process:
    found = procfs.look(child if isinstance(child, int) else child.pid)
    assert found is not None
    return found


# --- /proc. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "mounted"),
    [
        ([], True),
        ([errno.ENOMEM], True),
        ([errno.ENOMEM, errno.EMFILE], True),
        ([errno.EPERM] * 3, True),
        ([errno.ENOENT], False),
    ],
)
def test_proc_is_used_although_one_read_fails(
    monkeypatch: pytest.MonkeyPatch, errors: list[int], mounted: bool
) -> None:
    monkeypatch.setattr(posix, "readlink", failing(os.readlink, *errors))
    assert procfs._is_our_own() is mounted


@pytest.mark.parametrize("content", [b"1 (a) S 0", b"", b"?"])
def test_where_readlink_is_refused_proc_shows_our_pid_in_a_file(
    monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(posix, "readlink", failing(os.readlink, *[errno.EPERM] * 3))
    monkeypatch.setattr(procfs, "read_file", lambda _: content)
    assert not procfs._is_our_own()


def test_without_readlink_and_files_proc_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "readlink", failing(os.readlink, *[errno.EPERM] * 3))
    monkeypatch.setattr(procfs, "read_file", failing(procfs.read_file, errno.EPERM))
    assert not procfs._is_our_own()


def test_proc_of_another_pid_namespace_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "readlink", lambda _: "1")
    assert procfs._is_our_own() is (os.getpid() == 1)


def test_without_proc_no_process_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    assert procfs.look(os.getpid()) is None
    with pytest.raises(OSError, match="no processes visible"):
        procfs.pids()


def test_a_process_is_shown_with_its_name_and_pid() -> None:
    assert str(Process(17, "agent", 1, 17, 0)) == "agent (pid 17)"


def stat(*fields: int, state: str = "S") -> bytes:
    """Return /proc/17/stat with these fields from the fourth on (proc(5))."""
    return f"17 (na) S (me) {' '.join([state, *map(str, fields)])}\n".encode()


@pytest.mark.parametrize("length", [2, 18])
def test_a_process_without_a_whole_stat_line_is_not_found(
    monkeypatch: pytest.MonkeyPatch, gone: int, length: int
) -> None:
    assert procfs.look(gone) is None
    monkeypatch.setattr(procfs, "read_file", lambda *_: stat(*range(length)))
    assert procfs.look(17) is None


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize(
    ("errors", "found"),
    [
        ([errno.EMFILE], True),
        ([errno.ENOMEM, errno.ENFILE], True),
        ([errno.ENOMEM] * 3, False),
        ([errno.ENOENT], False),  # it has exited
        ([errno.ESRCH], False),  # it has exited since the file was opened
        ([errno.EACCES], False),  # hidden (hidepid, proc(5))
        ([errno.EMFILE, errno.ESRCH], False),
    ],
)
def test_a_look_is_tried_three_times_unless_the_process_has_exited_or_is_hidden(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], call: str, errors: list[int], found: bool
) -> None:
    """Processes that are there must not pass for exited when descriptors or memory run out for a moment."""
    known = look(child)
    with monkeypatch.context() as scarce:
        scarce.setattr(posix, call, failing(getattr(os, call), *errors))
        assert (procfs.look(child.pid) is not None) is found
    monkeypatch.setattr(posix, call, failing(getattr(os, call), *errors))
    assert procfs.is_there(known) is found


def test_each_value_comes_from_its_field_in_stat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "read_file", lambda *_: stat(*range(4, 23)))
    found = look(17)
    assert (found.pid, found.name, found.parent, found.group) == (17, "na) S (me", 4, 5)
    assert (found.cpu, found.identity, found.alive) == (14 + 15, (17, 22), True)


@pytest.mark.parametrize(
    ("state", "threads", "alive"), [("S", 1, True), ("Z", 1, False), ("X", 1, False), ("Z", 2, True), ("X", 0, False)]
)
def test_a_process_lives_as_long_as_one_of_its_threads(
    monkeypatch: pytest.MonkeyPatch, state: str, threads: int, alive: bool
) -> None:
    others = 1 if alive else 9
    fields = [others] * 16 + [threads] + [others] * 30
    monkeypatch.setattr(procfs, "read_file", lambda *_: stat(*fields, state=state))
    assert look(17).alive is alive


def test_psutil_is_used_where_there_is_no_linux(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], gone: int
) -> None:
    here = look(child)
    monkeypatch.setattr(procfs, "LINUX", False)
    there = look(child)
    assert (there.pid, there.parent, there.group, there.alive) == (here.pid, os.getpid(), here.group, True)
    assert there.cpu == 0
    assert there.name.startswith("python")
    assert {os.getpid(), child.pid} <= set(procfs.pids())
    assert [found.pid for found in tree.below(os.getpid(), tree.everything())] == [child.pid]
    assert procfs.look(gone) is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not look(child).alive


def test_psutil_tells_apart_two_processes_with_one_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    started = 1_700_000_000.0
    monkeypatch.setattr(procfs, "LINUX", False)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: started)
    before = look(os.getpid())
    assert look(os.getpid()).identity == before.identity
    started += 0.1
    assert look(os.getpid()).identity != before.identity


# --- Children, and what a process is. -------------------------------------------------------------------------------


def test_a_process_that_has_exited_has_no_children(child: subprocess.Popen[bytes], gone: int) -> None:
    assert child.pid in [process.pid for process in procfs.children(os.getpid())]
    assert procfs.children(child.pid) == []
    assert procfs.children(gone) == []


@pytest.mark.parametrize("error", [FileNotFoundError(), ProcessLookupError(), OSError(errno.EMFILE, "")], ids=repr)
def test_a_thread_that_exits_meanwhile_does_not_hide_children_of_other_threads(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], error: OSError
) -> None:
    """Wherever it is among them."""
    real = procfs.read_file

    def read_file(path: str, *more: int) -> bytes:
        if "/task/gone" in path:
            raise error
        return real(path, *more)

    tasks = os.listdir("/proc/self/task")
    with monkeypatch.context() as fake:
        fake.setattr(procfs, "read_file", read_file)
        fake.setattr(posix, "listdir", lambda _: ["gone", *tasks, "gone too"])
        found = procfs.children(os.getpid())
    assert child.pid in [process.pid for process in found]


def test_children_of_all_threads_are_found() -> None:
    started, done, pids = threading.Event(), threading.Event(), []

    def run() -> None:
        with subprocess.Popen(["sleep", "100"]) as process:
            pids.append(process.pid)
            started.set()
            done.wait()
            process.kill()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    found = [process.pid for process in procfs.children(os.getpid())]
    done.set()
    thread.join()
    assert pids[0] in found


def test_the_same_process_is_there_until_it_exits(child: subprocess.Popen[bytes]) -> None:
    known = look(child)
    assert procfs.is_there(known)
    reused = look(child)
    reused.start -= 1
    assert not procfs.is_there(reused)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not procfs.is_there(known)  # a zombie
    child.wait()
    assert not procfs.is_there(known)
    assert not procfs.is_there(None)


@pytest.mark.parametrize(
    ("file", "argv", "name", "shell"),
    [
        ("/usr/bin/bash", ["/bin/bash", "/entrypoint.sh"], "entrypoint.sh", True),
        ("/usr/bin/dash", ["sh", "-c", "agent"], "sh", True),
        ("/bin/busybox", ["sh", "-c", "agent"], "sh", True),
        ("/bin/busybox", ["busybox", "ash"], "busybox", True),
        ("/bin/busybox", ["sleep", "60"], "sleep", False),
        ("/usr/bin/python3", ["bash"], "bash", True),
        ("/usr/bin/python3", ["python", "bash"], "bash", False),
        (None, ["-bash"], "bash", True),
        (None, None, "zsh", True),
        (None, None, "agent", False),
    ],
)
def test_a_shell_is_known_by_its_file_or_its_argv(
    monkeypatch: pytest.MonkeyPatch, file: str | None, argv: list[str] | None, name: str, shell: bool
) -> None:
    def readlink(path: str) -> str:
        assert path == "/proc/20/exe"
        if file is None:
            raise PermissionError
        return file

    monkeypatch.setattr(posix, "readlink", readlink)
    monkeypatch.setattr(procfs, "argv_of", lambda _: argv or [])
    assert procfs.is_shell(Process(20, name, 1, 20, 0)) is shell


def test_nothing_is_known_about_a_pid_that_is_not_in_use(gone: int) -> None:
    assert procfs.argv_of(gone) == []
    assert procfs.program_names(Process(gone, "gone", os.getpid(), gone, 0)) == {"gone"}
    assert not procfs.is_shell(None)
    assert procfs.wait_channel(gone) == b""
    assert procfs.blocking_descriptor(gone) is None
    assert procfs.descriptor_target(gone, 0) == ""
    assert list(procfs.open_modes(gone, "pipe:[1]")) == []


def test_a_command_line_is_read_as_far_as_4096_bytes(child: subprocess.Popen[bytes]) -> None:
    assert procfs.argv_of(child.pid)[:3] == [sys.executable, "-S", "-c"]
    with subprocess.Popen(["sleep", *["0" * 100] * 100, "100"]) as long:
        until(lambda: procfs.argv_of(long.pid)[:1] == ["sleep"], "the exec")
        assert procfs.argv_of(long.pid) == ["sleep", *["0" * 100] * 40]  # whole arguments in 4096 bytes
        long.kill()


def test_the_executable_of_a_process(gone: int) -> None:
    assert procfs.executable(os.getpid()) == os.path.realpath(sys.executable)
    assert procfs.executable(gone) == ""


# --- What a process is doing. ---------------------------------------------------------------------------------------


def test_the_descriptor_that_a_process_reads_is_found_with_its_pipe() -> None:
    with subprocess.Popen(["cat", "/dev/fd/0"], stdin=subprocess.PIPE) as reader:
        assert reader.stdin
        until(lambda: b"pipe_read" in procfs.wait_channel(reader.pid), "cat to read")
        fd = procfs.blocking_descriptor(reader.pid)
        assert fd is not None
        target = procfs.descriptor_target(reader.pid, fd)
        assert target == os.readlink(f"/proc/self/fd/{reader.stdin.fileno()}")
        assert [flags & os.O_ACCMODE for flags in procfs.open_modes(reader.pid, target)] == [os.O_RDONLY] * 2
        assert os.O_WRONLY in [flags & os.O_ACCMODE for flags in procfs.open_modes(os.getpid(), target)]


@pytest.mark.parametrize("text", [b"running\n", b"", b"0 odd\n"], ids=["running", "empty", "malformed"])
def test_a_process_that_runs_is_blocked_by_no_descriptor(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(procfs, "read_file", lambda _: text)
    assert procfs.blocking_descriptor(17) is None


@pytest.mark.parametrize("text", [b"pos:\t0\n", b"flags:", b"flags:\todd\n"], ids=["no flags", "cut", "malformed"])
def test_a_descriptor_without_flags_is_skipped(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    targets = {"/proc/17/fd/3": "pipe:[1]", "/proc/17/fd/4": "pipe:[2]", "/proc/17/fd/6": "pipe:[1]"}
    infos = {"/proc/17/fdinfo/3": text, "/proc/17/fdinfo/6": b"pos:\t0\nflags:\t02000001\nmnt_id:\t13\n"}

    def readlink(path: str) -> str:
        if path not in targets:
            raise FileNotFoundError  # closed meanwhile
        return targets[path]

    entries = [types.SimpleNamespace(name=name) for name in "3456"]
    monkeypatch.setattr(posix, "scandir", lambda path: {"/proc/17/fd": contextlib.nullcontext(entries)}[path])
    monkeypatch.setattr(posix, "readlink", readlink)
    monkeypatch.setattr(procfs, "read_file", infos.__getitem__)
    assert list(procfs.open_modes(17, "pipe:[1]")) == [0o2000001]


# --- What a look at shells, relays and tracers needs. ---------------------------------------------------------------


def test_inherited_descriptors_are_recognised() -> None:
    with open("/dev/null") as opened:
        own = procfs.opened(os.getpid(), opened.fileno())
        assert own is not None
        assert own[0] == "/dev/null"
        assert not own[1] & os.O_CLOEXEC
        with subprocess.Popen(["sleep", "60"], stdin=opened) as heir:
            assert procfs.opened(heir.pid, 0) == own
            heir.kill()
        with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as other:
            assert procfs.opened(other.pid, 0) != own
            other.kill()
    assert procfs.opened(os.getpid(), 10_000) is None


def test_descriptor_whose_target_is_hidden_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "descriptor_target", lambda *_: "")
    assert procfs.opened(os.getpid(), 0) is None


def test_tracer_is_found() -> None:
    assert procfs.tracer_of(os.getpid()) == 0
    assert procfs.tracer_of(10_000_001) == 0
    with subprocess.Popen(["strace", "-o", "/dev/null", "sleep", "60"]) as strace:

        def traced() -> list[int]:  # strace(1) starts other children first, to try what works
            found = [child.pid for child in procfs.children(strace.pid) if child.name == "sleep"]
            return [pid for pid in found if procfs.tracer_of(pid) == strace.pid]

        for pid in until(traced, "a traced child"):
            os.kill(pid, signal.SIGKILL)


def test_a_sleeping_process_waits() -> None:
    with subprocess.Popen(["sleep", "90"]) as child:
        try:
            until(lambda: (seen := procfs.look(child.pid)) is not None and seen.waits, "it to sleep")
        finally:
            child.kill()
    ourselves = procfs.look(os.getpid())
    assert ourselves is not None
    assert not ourselves.waits


# --- Descriptors. ---------------------------------------------------------------------------------------------------


def test_descriptors_are_listed_by_what_they_refer_to() -> None:
    reader, writer = os.pipe()
    again = os.dup(writer)
    try:
        target = os.readlink(f"/proc/self/fd/{reader}")
        held = procfs.descriptors(os.getpid())
        assert held is not None
        assert sorted(held[target]) == sorted(map(str, (reader, writer, again)))
        modes = [flags & 0o3 for flags in procfs.open_modes(os.getpid(), target)]
        assert sorted(modes) == [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY]
        assert [*procfs.open_modes(os.getpid(), target, {})] == []
    finally:
        for fd in (reader, writer, again):
            os.close(fd)


def test_more_descriptors_than_wanted_are_not_listed(child: subprocess.Popen[bytes]) -> None:
    number = len(os.listdir(f"/proc/{child.pid}/fd"))
    assert procfs.descriptors(child.pid, number - 1) is None
    held = procfs.descriptors(child.pid, number)
    assert held is not None
    assert sum(map(len, held.values())) == number


def test_no_more_of_them_are_read_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """To list 10,000 takes the kernel 40 ms, and a stop waits for it."""
    entries = iter([types.SimpleNamespace(name=str(number)) for number in range(10_000)])
    monkeypatch.setattr(posix, "scandir", lambda _: contextlib.nullcontext(entries))
    assert procfs.descriptors(17, 100) is None
    assert next(entries).name == "101"


def test_descriptors_that_cannot_be_seen_are_none(gone: int) -> None:
    assert procfs.descriptors(gone) == {}
    assert procfs.descriptors(gone, 10) == {}
    assert [*procfs.open_modes(gone, "pipe:[1]")] == []
    assert [*procfs.open_modes(gone, "pipe:[1]", {"pipe:[1]": ["0"]})] == []


def test_a_descriptor_that_is_closed_meanwhile_is_left_out(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    before = procfs.descriptors(child.pid)
    monkeypatch.setattr(posix, "readlink", failing(os.readlink, errno.ENOENT))
    held = procfs.descriptors(child.pid)
    assert before is not None
    assert held is not None
    assert sum(map(len, held.values())) == sum(map(len, before.values())) - 1


# --- What SIGKILL has done. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "state", "dying"),
    [(4, "S", True), (0x400004, "D", True), (0, "D", False), (0, "S", False), (0, "R", True), (0, "Z", True)],
)
def test_a_process_is_dying_if_it_exits_or_can_run(
    monkeypatch: pytest.MonkeyPatch, flags: int, state: str, dying: bool
) -> None:
    line = f"7 (a) b) {state} 1 7 7 0 -1 {flags} 0 0".encode()
    monkeypatch.setattr(procfs, "read_file", lambda path: line if path == "/proc/7/stat" else b"")
    assert procfs.is_dying(procfs.Process(7, "a", 1, 7, 1)) is dying


def test_what_has_exited_meanwhile_is_dying(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    known = procfs.look(child.pid)
    assert known
    until(lambda: not procfs.is_dying(known), "the child to sleep")
    with monkeypatch.context() as patch:
        patch.setattr(procfs, "read_file", lambda *_: b"")
        assert procfs.is_dying(known)
    child.kill()
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert procfs.is_dying(known)
    child.wait()
    assert procfs.is_dying(known)


# --- Containers. ----------------------------------------------------------------------------------------------------

LINKS = {"/proc/self/ns/mnt": "mnt:[1]", "/proc/8/ns/mnt": "mnt:[1]", "/proc/9/ns/mnt": "mnt:[2]"}


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The links to mount namespaces that can be read."""
    found = dict(LINKS)

    def readlink(path: str) -> str:
        if path not in found:
            raise PermissionError
        return found[path]

    monkeypatch.setattr(posix, "readlink", readlink)
    return found


def test_the_mount_namespace_decides(links: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "control_group", lambda pid: pytest.fail("it is known already"))
    assert procfs.is_in_our_container(8) is True
    assert procfs.is_in_our_container(9) is False


@pytest.mark.parametrize("hidden", ["/proc/self/ns/mnt", "/proc/8/ns/mnt"])
@pytest.mark.parametrize(
    ("groups", "same"),
    [
        ({os.getpid(): b"0::/a", 8: b"0::/a"}, True),
        ({os.getpid(): b"0::/a", 8: b"0::/b"}, False),
        ({os.getpid(): b"0::/a"}, False),
        ({}, None),
    ],
    ids=["same", "other", "gone", "none"],
)
def test_where_it_is_hidden_the_control_group_does(
    links: dict[str, str], monkeypatch: pytest.MonkeyPatch, hidden: str, groups: dict[int, bytes], same: bool | None
) -> None:
    del links[hidden]
    monkeypatch.setattr(procfs, "control_group", lambda pid: groups.get(pid, b""))
    assert procfs.is_in_our_container(8) is same


def test_the_control_groups_of_a_process() -> None:
    with open("/proc/self/cgroup", "rb") as file:
        assert procfs.control_group(os.getpid()) == file.read()
    assert procfs.control_group(2**22 + 1) == b""
