"""However a rehearsal ends, nothing of it is left; and what cannot be rehearsed is one line and exit code 125."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.rehearse import agents
from tests.rehearse.conftest import marked
from tests.support.init import until
from tests.support.ports import free_port
from tests.support.proc import AS_NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rehearse.conftest import Begun, Rehearse

    Begin = Callable[..., Begun]

MANY = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for _ in range(3):
    if not os.fork():
        os.setsid()
        if not os.fork():
            time.sleep(1000)
        time.sleep(1000)
print("up", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["", "--no-namespace"], ids=["process 1", "subreaper"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_signal_to_agent_initctl_leaves_nothing(begin: Begin, how: str, number: int, code: int) -> None:
    options = [option for option in (how, "--up=up", "--work=sleep 1000 & sleep 1000", "--grace=60s") if option]
    begun = begin(MANY, *options)
    until(lambda: sum("sleep 1000" in line for line in begun.processes()) == 3, "the work", 60)
    until(lambda: sum("agent.py" in line for line in begun.processes()) >= 7, "the agent's processes", 60)
    begun.process.send_signal(number)
    _, errors = begun.process.communicate(timeout=60)
    assert begun.process.returncode == code, errors
    assert "Traceback" not in errors
    assert marked(begun.mark) == []


def test_hup_that_is_ignored_stays_ignored(rehearse: Rehearse) -> None:
    """As below nohup(1), when the terminal is closed."""
    work = "kill -s HUP $(cat pid); exec sleep 3"
    before = ("sh", "-c", "trap '' HUP; echo $$ > pid; exec \"$@\"", "sh")
    ran = rehearse(agents.SLOW_START, "--scenarios=term", f"--work={work}", before=before)
    assert ran.code == 0, ran.errors


@pytest.mark.parametrize("work", [(), ("--work=sleep 1000 & sleep 1000",)], ids=["no work", "work"])
def test_kill_of_agent_initctl_ends_the_agent_and_its_work(begin: Begin, work: tuple[str, ...]) -> None:
    begun = begin(MANY, "--up=up", "--grace=60s", *work)
    until(lambda: sum("sleep 1000" in line for line in begun.processes()) == 3 * len(work), "the work", 60)
    until(lambda: sum("agent.py" in line for line in begun.processes()) >= 7, "the agent's processes", 60)
    begun.process.kill()
    begun.process.communicate()
    until(lambda: not marked(begun.mark), "the end of all", 30)


def test_ctrl_c_in_a_terminal_reaches_agent_initctl_alone(tmp_path: Path) -> None:
    import pexpect

    from tests.rehearse.conftest import MARK
    from tests.support.control import AGENT_INITCTL
    from tests.support.init import clean_environment

    (tmp_path / "agent.py").write_text(agents.DEAF)
    argv = ["rehearse", "--up=up", "--", sys.executable, str(tmp_path / "agent.py")]
    child: Any = pexpect.spawn(str(AGENT_INITCTL), argv, env=clean_environment(**{MARK: tmp_path.name}), timeout=60)
    child.expect("TERM")  # the line with the progress
    until(lambda: any("agent.py" in line and " rehearse " not in line for _, line in marked(tmp_path.name)), "it", 60)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, child.signalstatus) == (130, None)
    assert marked(tmp_path.name) == []


def test_work_that_outlives_the_agent_is_ended(rehearse: Rehearse) -> None:
    ran = rehearse(agents.PLAIN, "--scenarios=term", "--work=trap '' TERM; sleep 1000", "--work-timeout=1s")
    run = ran.run("term")
    assert run["work_kept"] is False
    assert run["reasons"] == ["the work had not ended some time after the agent, and was ended"]


@pytest.mark.parametrize(
    ("agent", "options", "line"),
    [
        ("print('no key'); raise SystemExit(3)", (), "before it was up, with exit code 3; its last line: 'no key'"),
        (
            "input('name? ')",
            (),
            "with exit code 1 (one that reads stdin needs --stdin); its last line: 'EOFError: EOF when reading a line'",
        ),
        (["no-such-program"], (), "cannot run 'no-such-program'"),
        (agents.PLAIN, ("--up=never printed", "--up-timeout=1s"), "was not seen to come up within 1s (the line 'never"),
        (agents.PLAIN, ("--up=up", "--work=exit 7"), "the work failed before a stop was requested, with exit code 7"),
        (agents.PLAIN, ("--up=tcp:99999",), "'tcp:99999' has no port from 1 to 65535; accepted: "),
        (agents.PLAIN, ("--up=",), "accepted: READY=1"),
        (agents.PLAIN, ("--up=tcp:a..b:80",), "'tcp:a..b:80' has no valid host name; accepted: "),
        (agents.PLAIN, ("--up=https://",), "is not a URL; accepted: "),
        (agents.PLAIN, ("--scenarios=term,nova",), "'nova' is not a scenario; accepted: term, int"),
        (agents.PLAIN, ("--runs=0",), "'0' is not a count; accepted: a number from 1 to 1000"),
        (agents.PLAIN, ("--runs=" + "9" * 5000,), "999...' is not a count; accepted: a number from 1 to 1000"),
        (agents.PLAIN, ("--seed=" + "9" * 5000,), "999...' is not a seed; accepted: a number of up to 20 digits"),
        (agents.PLAIN, ("--grace=infinity",), "accepted: a finite time"),
        (agents.PLAIN, ("--junit=/no/such/folder/x.xml",), "cannot write /no/such/folder/x.xml"),
        (agents.PLAIN, ("--junit=",), "cannot write .: "),
    ],
    ids=lambda value: value[0][:30] if isinstance(value, tuple) and value else None,
)
def test_what_cannot_be_rehearsed_is_one_line(
    rehearse: Rehearse, agent: str | list[str], options: tuple[str, ...], line: str
) -> None:
    ran = rehearse(agent, *options)
    assert ran.code == 125
    (last,) = (text for text in ran.errors.splitlines() if text.startswith("agent-initctl: "))
    assert line in last
    assert ran.report == {}


def test_report_that_cannot_be_written_is_named(rehearse: Rehearse) -> None:
    ran = rehearse(agents.PLAIN, "--up=up", "--scenarios=term", "--html=/dev/full")
    assert ran.code == 125
    assert "agent-initctl: cannot write /dev/full: No space left on device" in ran.errors


def test_variable_that_agent_init_refuses_is_named(rehearse: Rehearse) -> None:
    ran = rehearse(agents.PLAIN, AGENT_INIT_REPEAT="sometimes")
    assert ran.code == 125
    assert "AGENT_INIT_REPEAT: 'sometimes' is not valid; accepted: " in ran.errors


def test_port_that_is_in_use_is_named(rehearse: Rehearse) -> None:
    import socket

    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        ran = rehearse(agents.PLAIN, f"--up=tcp:127.0.0.1:{port}")
    assert ran.code == 125
    assert "something else runs there" in ran.errors


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_user_without_namespaces_rehearses_with_a_subreaper(rehearse: Rehearse, tmp_path: Path) -> None:
    # What refuses a namespace to a user (a seccomp profile, a sysctl) is not to be had everywhere: unshare is missing.
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("sh", "sleep", "true", "setpriv"):
        (bin / name).symlink_to(f"/usr/bin/{name}")
    tmp_path.chmod(0o777)
    ran = rehearse(agents.PLAIN, "--scenarios=term,kill-child", before=tuple(AS_NOBODY), PATH=str(bin))
    assert ran.code == 0, ran.errors
    assert ran.run("term")["mode"] == "subreaper"
    assert any("subreaper" in note for note in ran.report["notes"])
