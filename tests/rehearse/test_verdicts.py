"""Good agents hold in every scenario that counts; bad ones are found out, each by its own fault."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.rehearse import agents
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rehearse.conftest import Ran, Rehearse

NAMESPACE = [(), ("--no-namespace",)]
IDS = ["process 1", "subreaper"]


def lost(ran: Ran) -> list[str]:
    """The reasons of all runs that were lost."""
    return [
        f"{run['scenario']}: {reason}"
        for run in ran.report["runs"]
        if run["verdict"] == "lost"
        for reason in run["reasons"]
    ]


def server(tmp_path: Path, code: str) -> tuple[list[str], str]:
    """The command of a server, and the work for it."""
    port = free_port()
    (tmp_path / "server.py").write_text(code)
    fetch = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{port}/slow').read())"
    return [sys.executable, str(tmp_path / "server.py"), str(port)], f'{sys.executable} -S -c "{fetch}"'


@pytest.mark.parametrize("how", NAMESPACE, ids=IDS)
def test_plain_asyncio_program_holds_everywhere(rehearse: Rehearse, how: tuple[str, ...]) -> None:
    ran = rehearse(agents.PLAIN, *how)
    assert ran.code == 0, (lost(ran), ran.errors)
    assert {run["mode"] for run in ran.report["runs"]} == {"subreaper" if how else "process 1"}
    assert ran.run("term")["exit_code"] == 130
    assert ran.run("term")["drain"] >= 0.4
    assert ran.run("sh-c-stays")["verdict"] == "held"
    assert len(ran.runs("early")) == 4
    assert ran.run("term-to-all")["verdict"] == "informational"
    assert ran.run("grace-too-short")["exit_code"] in (137, 143)  # it gets TERM half-way
    assert "cleaned" not in (ran.keep / "grace-too-short" / "output.log").read_text()
    assert ran.run("kill-child")["reasons"] == ["the agent has no child"]
    assert "cleaned" in (ran.keep / "term" / "output.log").read_text()
    assert "agent-init -e 143" in [advice["line"] for advice in ran.report["advice"]]
    assert any("--work" in note for note in ran.report["notes"])


@pytest.mark.parametrize(("up", "is_told"), [((), True), (("--up=1s",), False)], ids=["automatic", "--up"])
def test_agent_that_is_only_quiet_is_told_so(rehearse: Rehearse, up: tuple[str, ...], is_told: bool) -> None:
    """One that listens after some seconds is taken to be up before that."""
    ran = rehearse("import time; time.sleep(1000)", "--scenarios=term", *up)
    assert ran.code == 0, ran.errors
    note = "The agent was taken to be up after 6s of quiet, with neither READY=1 nor a port: use --up if it was not."
    assert (note in ran.report["notes"]) == is_told


@pytest.mark.parametrize("how", NAMESPACE, ids=IDS)
def test_server_that_drains_keeps_the_request_in_hand(rehearse: Rehearse, tmp_path: Path, how: tuple[str, ...]) -> None:
    command, work = server(tmp_path, agents.GOOD_SERVER)
    ran = rehearse(command, "--scenarios=term,int,term-twice,stdout-full,sh-c-stays", f"--work={work}", *how)
    assert ran.code == 0, (lost(ran), ran.errors)
    assert [run["work_kept"] for run in ran.report["runs"]] == [True] * 5
    assert "a listening port" in ran.report["up"]
    assert "done" in (ran.keep / "term" / "work.log").read_text()


# As in the documentation of http.server: without SO_REUSEADDR. HTTP/1.0 is closed by the server.
WITHOUT_REUSE = """
import http.server, socketserver, sys
with socketserver.TCPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler) as server:
    server.serve_forever()
"""


def test_port_that_is_still_in_time_wait_is_no_loss(rehearse: Rehearse, tmp_path: Path) -> None:
    command, _ = server(tmp_path, WITHOUT_REUSE)
    fetch = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{command[-1]}/').read()"
    ran = rehearse(command, "--scenarios=term,int", f'--work={sys.executable} -S -c "{fetch}"; sleep 2')
    assert ran.code == 0, (lost(ran), ran.errors)
    assert [run["verdict"] for run in ran.report["runs"]] == ["held", "held"]


def test_fixed_port_and_parallel_runs_are_named(rehearse: Rehearse, tmp_path: Path) -> None:
    command, _ = server(tmp_path, WITHOUT_REUSE)
    ran = rehearse(command, "--scenarios=int,hup", "--parallel=2", "--work=sleep 4")
    reasons = [run["reasons"][0] for run in ran.report["runs"] if run["verdict"] == "skipped"]
    assert not lost(ran)
    assert reasons
    assert all(reason.startswith("an agent with a fixed port needs runs without --parallel") for reason in reasons)


def test_work_that_starts_slowly_has_begun_before_the_stop(rehearse: Rehearse, tmp_path: Path) -> None:
    """As on a loaded machine: it prints something, computes, and only then asks."""
    command, work = server(tmp_path, agents.GOOD_SERVER)
    slow = f"echo begins; {sys.executable} -S -c 'sum(range(2 * 10**7))'; exec {work}"
    ran = rehearse(command, "--scenarios=term", f"--work={slow}")
    assert ran.code == 0, (lost(ran), ran.errors)
    assert ran.run("term")["work_kept"] is True


def test_work_that_is_too_short_is_named_and_not_kept(rehearse: Rehearse, tmp_path: Path) -> None:
    command, _ = server(tmp_path, agents.GOOD_SERVER)
    ran = rehearse(command, "--scenarios=term,int", "--work=true")
    assert [run["work_kept"] for run in ran.report["runs"]] == [None, None]
    assert any(note.startswith("In some runs the work had ended before") for note in ran.report["notes"])


def test_stop_waits_until_the_work_is_in_hand(rehearse: Rehearse) -> None:
    """Work that begins slowly, as the import of a client's library, is no work in hand yet."""
    work = "sleep 2; echo begun; sleep 0.2; echo done"
    ran = rehearse(agents.PLAIN, "--scenarios=term", f"--work={work}", "--work-up=begun")
    assert ran.code == 0, (lost(ran), ran.errors)
    (run,) = ran.report["runs"]
    assert run["request_at"] - run["up_after"] >= 2
    assert run["work_kept"]


def test_work_that_never_begins_is_an_error(rehearse: Rehearse) -> None:
    ran = rehearse(agents.PLAIN, "--scenarios=term", "--work=sleep 60", "--work-up=begun", "--up=1s", "--up-timeout=2s")
    assert ran.code == 125
    assert "the work did not print 'begun' within 2s" in ran.errors


def test_server_that_drops_its_request_has_lost_work_and_a_delay_helps(rehearse: Rehearse, tmp_path: Path) -> None:
    command, work = server(tmp_path, agents.BAD_SERVER)
    ran = rehearse(command, "--scenarios=term", f"--work={work}")
    assert ran.code == 1
    assert not ran.run("term")["work_kept"]
    assert "the work failed" in ran.run("term")["reasons"][0]
    assert next(advice["line"] for advice in ran.report["advice"]) == "AGENT_INIT_STOP_DELAY=3s"


def test_work_that_ended_before_the_stop_shows_nothing(rehearse: Rehearse) -> None:
    ran = rehearse(agents.PLAIN, "--scenarios=term", "--up=up", "--work=true")
    assert ran.code == 0, (lost(ran), ran.errors)
    assert ran.run("term")["work_kept"] is None
    assert any("work had ended" in note for note in ran.report["notes"])


def test_stop_signal_that_helps_is_recommended(rehearse: Rehearse, tmp_path: Path) -> None:
    command, work = server(tmp_path, agents.NEEDS_INT)
    ran = rehearse(command, "--scenarios=term", f"--work={work}")
    assert ran.code == 1
    assert next(advice["line"] for advice in ran.report["advice"]) == "AGENT_INIT_STOP_SIGNAL=INT"


def test_longer_grace_that_helps_is_recommended(rehearse: Rehearse) -> None:
    ran = rehearse(agents.NEEDS_THREE_SECONDS, "--scenarios=term", "--grace=2500ms", "--up=up")
    assert ran.code == 1
    assert ran.run("term")["killed"]
    assert ran.run("term --grace 5s")["reasons"] == []
    lines = [advice["line"] for advice in ran.report["advice"]]
    assert lines[0] == "terminationGracePeriodSeconds: 30"
    assert not any("rehearse" in line for line in lines)


@pytest.mark.parametrize("how", NAMESPACE, ids=IDS)
def test_deaf_agent_is_killed_at_the_deadline(rehearse: Rehearse, how: tuple[str, ...]) -> None:
    ran = rehearse(agents.DEAF, "--scenarios=term,hup", "--grace=3s", *how)
    assert ran.code == 1
    for run in (ran.run("term"), ran.run("hup")):
        assert run["killed"]
        assert run["exit_code"] == 137
        assert "agent.py" in run["reasons"][0]
        assert "agent.py" in run["held_up_by"]
    assert any("--grace 12s" in advice["line"] for advice in ran.report["advice"])


@pytest.mark.parametrize("how", NAMESPACE, ids=IDS)
def test_child_that_stays_is_left_over(rehearse: Rehearse, how: tuple[str, ...]) -> None:
    ran = rehearse(agents.LEAVES_A_CHILD, "--up=up", "--scenarios=term", *how, AGENT_INIT_LINGER="1s")
    assert ran.code == 1
    run = ran.run("term")
    assert any(name.startswith("sh -c") for name in run["left_over"])
    assert not run["killed"]
    assert "behind" in run["reasons"][0]


def test_loop_that_is_closed_too_early_is_found_in_the_output(rehearse: Rehearse) -> None:
    ran = rehearse(agents.LOOP_CLOSED_TOO_EARLY, "--scenarios=term")
    assert ran.code == 1
    rules = {line["rule"] for line in ran.run("term")["broken_lines"]}
    assert rules & {"no running event loop", "Task was destroyed but it is pending"}
    assert ran.run("term")["exit_code"] == 0


def test_agent_that_starts_slowly_is_up_with_its_line(rehearse: Rehearse) -> None:
    ran = rehearse(agents.SLOW_START, "--up=agent registered", "--scenarios=term,early")
    assert ran.code == 0, (lost(ran), ran.errors)
    assert ran.run("term")["up_after"] >= 1.5
    requests = [run["request_at"] for run in ran.runs("early")]
    assert requests == sorted(requests)
    assert requests[-1] >= 0.5 * ran.run("term")["up_after"] - 0.05
    assert all(run["up_after"] is None for run in ran.runs("early"))


def test_ready_is_preferred_to_output(rehearse: Rehearse) -> None:
    ran = rehearse(agents.NOTIFIES, "--scenarios=term")
    assert ran.code == 0, (lost(ran), ran.errors)
    assert ran.report["up"] == "READY=1"
    assert ran.run("term")["up_after"] >= 0.5


def test_worker_is_killed_and_the_agent_ends(rehearse: Rehearse) -> None:
    ran = rehearse(agents.WITH_WORKERS, "--scenarios=kill-child")
    assert ran.code == 0, (lost(ran), ran.errors)
    run = ran.run("kill-child")
    assert any(event["kind"] == "kill" and "agent.py" in event["text"] for event in run["events"])
    assert len(run["lives"]) == 3


def test_agent_that_reloads_at_hup_is_stopped_after_it(rehearse: Rehearse) -> None:
    ran = rehearse(agents.RELOADS, "--scenarios=hup")
    assert ran.code == 0, (lost(ran), ran.errors)
    assert [event["text"] for event in ran.run("hup")["events"] if event["kind"] == "request"] == [
        "HUP to agent-init",
        "TERM to agent-init",
    ]
    assert "reloaded" in (ran.keep / "hup" / "output.log").read_text()


def test_agent_that_begins_anew_at_hup_is_stopped_when_it_has(rehearse: Rehearse) -> None:
    """As Celery does: it finishes its work, ignores a TERM meanwhile, and executes itself again."""
    ran = rehearse(agents.BEGINS_ANEW, "--scenarios=hup", "--up=up", "--work=sleep 1.5")
    assert ran.code == 0, (lost(ran), ran.errors)
    output = (ran.keep / "hup" / "output.log").read_text()
    assert output.count("out up") == 2
    assert "a TERM is lost" not in output


def test_dependency_is_broken_before_the_stop_and_mended_after_it(rehearse: Rehearse, tmp_path: Path) -> None:
    log = tmp_path / "dependency"
    ran = rehearse(
        agents.PLAIN,
        *("--scenarios=dependency-gone,term", "--runs=2"),
        *(f"--break=echo break >> {log}", f"--mend=echo mend >> {log}"),
    )
    assert ran.code == 0, (lost(ran), ran.errors)
    assert log.read_text().split() == ["break", "mend", "break", "mend"]
    assert [run["verdict"] for run in ran.runs("dependency-gone")] == ["held", "held"]


def test_break_that_fails_is_a_reason_to_skip(rehearse: Rehearse) -> None:
    ran = rehearse(agents.PLAIN, "--scenarios=dependency-gone", "--break=echo no such thing; exit 3")
    assert ran.run("dependency-gone")["verdict"] == "skipped"
    assert ran.run("dependency-gone")["reasons"] == ["--break failed with exit code 3: no such thing"]


@pytest.mark.skipif(os.getuid() != 0, reason="control groups need root")
def test_without_memory_the_agent_is_killed(rehearse: Rehearse) -> None:
    ran = rehearse(agents.PLAIN, "--scenarios=oom")
    run = ran.run("oom")
    if run["verdict"] == "skipped":
        pytest.skip(run["reasons"][0])
    assert run["verdict"] == "informational"
    assert run["exit_code"] == 137
    assert not run["killed"]  # not by agent-init


@pytest.mark.skipif(os.getuid() != 0, reason="gives up a capability")
def test_without_the_capability_a_user_namespace_is_made(rehearse: Rehearse) -> None:
    without = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    ran = rehearse(agents.PLAIN, "--scenarios=term", before=without)
    assert ran.code == 0, (lost(ran), ran.errors)
    assert ran.run("term")["mode"] == "process 1"


def test_runs_go_in_parallel(rehearse: Rehearse) -> None:
    ran = rehearse(agents.PLAIN, "--scenarios=term,int,hup", "--runs=2", "--parallel=3")
    assert ran.code == 0, (lost(ran), ran.errors)
    assert [run["number"] for run in ran.runs("int")] == [1, 2]
