"""The answers of process 1 to agent-initctl, by a supervisor in a simulated world. The real thing: tests/process1."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import __version__, notify
from entrypoint.init import control_answers, control_socket, request_origin, stall_report
from entrypoint.init.stop_plan import INSIDE
from tests.support.world import AGENT, OWN_PID, TERM, USR1, Harness, exited

if TYPE_CHECKING:
    from collections.abc import Callable


class Control:
    """A supervisor, and a client of it."""

    def __init__(self, harness: Harness) -> None:
        self.harness, self.supervisor = harness, harness.supervisor
        self.client: Any = Client()
        self.now = self.supervisor.loop.time()

    def ask(self, command: str, **fields: str) -> list[bytes]:
        return self.supervisor._answer(self.client, {"COMMAND": command, **fields})

    def status(self) -> dict[str, str]:
        [packet] = self.ask("status")
        assert packet[:1] == b"="
        return notify.parse(packet[1:])

    def refusal(self, command: str, **fields: str) -> str:
        [packet] = self.ask(command, **fields)
        assert packet[:1] == b"!"
        return packet[1:].decode()

    def answer(self, command: str, **fields: str) -> str:
        [packet] = self.ask(command, **fields)
        assert packet[:1] == b">"
        return packet[1:].decode()


class Client(SimpleNamespace):
    """In the place of a connection."""

    def __init__(self) -> None:
        super().__init__(pid=500, may_command=True, render=None)

    def __str__(self) -> str:
        return "a client"


@pytest.fixture
def control(supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Control]:
    monkeypatch.setattr(request_origin, "of_process", lambda pid: INSIDE)
    monkeypatch.setattr(stall_report.Reporter, "start", lambda *_: None)  # it would be a process that nobody reaps

    def make(*flags: str, **more: Any) -> Control:
        return Control(supervise(*flags, **more))

    return make


# --- status. --------------------------------------------------------------------------------------------------------


def test_status_of_an_agent_that_has_sent_nothing(control: Callable[..., Control]) -> None:
    made = control("-t", "5s")
    fields = made.status()
    assert 0 <= float(fields.pop("SINCE")) < 60
    assert 0 <= float(fields.pop("UPTIME")) < 60
    fields.pop("OOM_KILLS", None)
    assert fields == {
        "PROTOCOL": "1",
        "VERSION": __version__,
        "PID": str(OWN_PID),
        "STATE": "starting",
        "READY": "0",
        "AGENT": str(AGENT),
        "NAME": "agent",
        "REAPED": "0",
        "REFUSED": "0",
    }


def test_status_has_what_the_agent_has_sent(control: Callable[..., Control]) -> None:
    made = control("-t", "5s", "--watchdog", "30s")
    made.harness.notify(made.harness.world.processes[AGENT], READY="1", STATUS="3 calls\nor so")
    fields = made.status()
    assert (fields["STATE"], fields["READY"], fields["STATUS"]) == ("ready", "1", "3 calls or so")
    assert fields["WATCHDOG"] == "30.000"
    assert 0 <= float(fields["LAST_PING"]) < 60


def test_status_names_our_helper_processes(control: Callable[..., Control]) -> None:
    made = control()
    made.supervisor.helper_pids.update({43, 42})
    assert made.status()["HELPERS"] == "42,43"


def test_status_counts_signals_and_orphans(control: Callable[..., Control]) -> None:
    made = control("-t", "5s")
    made.harness.world.handled[AGENT] = {USR1}
    made.harness.receive(USR1, USR1, 12)
    made.harness.world.wait_results = [(600, exited(0))]
    made.harness.receive()
    fields = made.status()
    assert (fields["FORWARDED"], fields["DROPPED"], fields["REAPED"]) == ("USR1:2", "USR2:1", "1")


def test_status_counts_the_clients_that_were_refused(control: Callable[..., Control]) -> None:
    made = control()
    made.supervisor.control = SimpleNamespace(refused=3)  # type: ignore[assignment]
    assert made.status()["REFUSED"] == "3"


def test_status_of_a_stop(control: Callable[..., Control]) -> None:
    made = control("--stop-schedule", "TERM/20s/INT/5s/KILL")
    made.harness.receive(TERM)
    fields = made.status()
    assert (fields["STATE"], fields["READY"]) == ("stopping", "0")
    assert 0 <= float(fields["STOPPING_FOR"]) < 10
    steps = [step.partition(":")[::2] for step in fields["NEXT"].split(",")]
    assert [name for name, _ in steps] == ["INT", "KILL"]
    seconds = [float(text) for _, text in steps]
    assert 10 < seconds[0] <= 20
    assert seconds[1] - seconds[0] == pytest.approx(5)
    assert float(fields["LEFT"]) == pytest.approx(seconds[1], abs=0.1)
    assert "PLATFORM" not in fields


def test_status_of_a_stop_that_the_platform_ends(control: Callable[..., Control]) -> None:
    made = control("--stop-schedule", "TERM")
    made.supervisor.plan.platform = "Kubernetes (30s unless raised)"
    made.harness.receive(TERM)
    fields = made.status()
    assert fields["PLATFORM"] == "Kubernetes (30s unless raised)"
    assert not {"LEFT", "NEXT"} & fields.keys()


def test_status_of_leftover_processes(control: Callable[..., Control]) -> None:
    made = control("--linger", "5s", "-t", "60s")
    made.harness.world.add(600, OWN_PID, "child", TERM)
    made.harness.world.wait_results = [(AGENT, exited(3))]
    made.harness.receive()
    fields = made.status()
    assert (fields["STATE"], fields["AGENT"]) == ("lingering", "0")
    assert fields["NEXT"].startswith("KILL:")
    assert 0 < float(fields["LEFT"]) <= 5


def test_status_of_a_hang_and_of_its_end(control: Callable[..., Control]) -> None:
    made = control("-t", "60s")
    made.harness.notify(made.harness.world.processes[AGENT], WATCHDOG="trigger")
    assert made.status()["HUNG"] == "watchdog"
    made.harness.supervisor.execution.event(lambda now: made.supervisor.lifecycle._kill(now, "deadline"))
    fields = made.status()
    assert fields["STATE"] == "killing"
    assert not {"LEFT", "NEXT"} & fields.keys()


# --- Commands. ------------------------------------------------------------------------------------------------------


def test_an_unknown_command_is_refused(control: Callable[..., Control]) -> None:
    assert control().refusal("dance\n") == rf"'dance\n' is no command of agent-init {__version__}"
    assert control().refusal("") == f"'' is no command of agent-init {__version__}"


@pytest.mark.parametrize("command", ["stop", "extend", "signal"])
def test_who_may_only_read_commands_nothing(control: Callable[..., Control], command: str) -> None:
    made = control()
    made.client.may_command = False
    assert made.refusal(command, SECONDS="5", SIGNAL="USR1").startswith("permission denied: ")
    assert made.supervisor.lifecycle.state == "running"
    assert made.status()["STATE"] == "starting"
    assert made.ask("report")[0][:1] == b"="
    assert made.ask("events")[0][:1] == b">"


def test_stop_is_a_stop_request(control: Callable[..., Control]) -> None:
    made = control("-t", "5s")
    made.harness.world.handled[AGENT] = {TERM}
    assert made.answer("stop") == ""
    assert made.client.render is None
    assert (AGENT, TERM) in made.harness.world.sent
    assert made.harness.lines("stop requested by TERM from a client: TERM to the agent, KILL after 5s")
    assert made.answer("stop", GRACE="3") == "the stop has begun already: --grace has no effect\n"
    assert made.supervisor._timer is not None  # the deadline is kept even if nothing else happens


def test_stop_with_a_grace(control: Callable[..., Control]) -> None:
    made = control("-t", "5s")
    assert made.answer("stop", GRACE="50") == ""
    assert made.harness.lines("KILL after 50s")
    assert made.supervisor.lifecycle.kill_due - made.supervisor.loop.time() == pytest.approx(50, abs=5)


def test_stop_with_a_grace_that_is_bounded(control: Callable[..., Control]) -> None:
    made = control("-t", "5s", "--max-grace", "8s")
    assert made.answer("stop", GRACE="50") == "the grace is 8s, no more: --max-grace comes first\n"
    assert made.supervisor.lifecycle.kill_due - made.supervisor.loop.time() == pytest.approx(8, abs=5)


def test_a_client_that_waits_follows_the_log_to_the_end(control: Callable[..., Control]) -> None:
    made = control("-t", "5s")
    made.answer("stop", WAIT="1")
    render = made.client.render
    assert render((0.0, 1, "stopping", "still stopping", {})) == [b">agent-init: still stopping\n"]
    assert render((0.0, 2, "forwarded", "a detail", {})) == []
    assert render((0.0, 1, "ended", "ended: well", {})) == [b">agent-init: ended: well\n", b"."]


@pytest.mark.parametrize("text", ["", "x", "-1", "infinity"])
def test_a_bad_duration_is_refused(control: Callable[..., Control], text: str) -> None:
    made = control()
    assert "accepted: " in made.refusal("stop", GRACE=text)
    assert "accepted: " in made.refusal("extend", SECONDS=text)
    assert made.supervisor.lifecycle.state == "running"


def test_extend_moves_the_deadline(control: Callable[..., Control]) -> None:
    made = control("-t", "60s", "--max-grace", "100s")
    assert made.refusal("extend", SECONDS="5") == "there is no stop to extend: none was requested"
    made.harness.receive(TERM)
    before = made.supervisor.lifecycle.kill_due
    assert made.answer("extend", SECONDS="5").startswith("5s more: ")
    assert made.supervisor.lifecycle.kill_due == before + 5
    assert made.supervisor._timer is not None
    assert made.supervisor._timer.when == made.supervisor.lifecycle.due
    assert made.answer("extend", SECONDS="80").endswith("left, no more: --max-grace comes first\n")
    assert made.supervisor.lifecycle.kill_due == before + 40
    assert made.refusal("extend", SECONDS="5") == "the stop lasts as long as --max-grace allows"


def test_extend_is_refused_where_the_platform_comes_first(control: Callable[..., Control]) -> None:
    made = control("--platform-grace", "60s")
    made.harness.receive(TERM)
    assert made.refusal("extend", SECONDS="5") == "the platform ends the container after 1m (--platform-grace)"
    made = control("--stop-schedule", "TERM")
    made.harness.receive(TERM)
    assert made.refusal("extend", SECONDS="5") == "this stop has no deadline"
    made.supervisor.plan.platform = "Docker (10s unless raised)"
    assert made.refusal("extend", SECONDS="5") == (
        "the end of this stop is not agent-init's: it is that of Docker (10s unless raised)"
    )


def test_extend_is_refused_where_all_has_been_killed(control: Callable[..., Control]) -> None:
    made = control("--stop-schedule", "KILL")
    assert made.refusal("extend", SECONDS="5") == "there is no stop to extend: none was requested"
    made.harness.receive(TERM)
    assert made.status()["STATE"] == "killing"
    assert made.refusal("extend", SECONDS="5") == "it is too late: all has ended, or was sent SIGKILL"


def test_signal_is_treated_as_if_it_had_been_received(control: Callable[..., Control]) -> None:
    made = control("-t", "5s")
    made.harness.world.handled[AGENT] = {USR1}
    assert made.answer("signal", SIGNAL="USR1") == ""
    assert made.harness.world.sent == [(AGENT, USR1)]
    assert "accepted: " in made.refusal("signal", SIGNAL="KILL")
    assert "accepted: " in made.refusal("signal")
    made.answer("signal", SIGNAL=str(TERM))
    assert made.status()["STATE"] == "stopping"


def test_report_returns_what_a_reporter_gets(control: Callable[..., Control]) -> None:
    made = control("--stacks")
    [packet] = made.ask("report")
    fields = notify.parse(packet[1:])
    request = json.loads(fields["REQUEST"])
    assert (request["root"], request["agent"], request["stacks"]) == (OWN_PID, AGENT, True)
    assert made.supervisor.reporter.pids == set()


def test_events_returns_the_last_lines(control: Callable[..., Control], monkeypatch: pytest.MonkeyPatch) -> None:
    made = control("-t", "5s")
    made.harness.receive(TERM)
    packets = made.ask("events")
    lines = b"".join(packet[1:] for packet in packets).splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "stop-requested"]
    assert made.client.render is None
    monkeypatch.setattr(control_answers, "MAX_EVENT_BYTES", len(lines[1]) + 5)
    packets = made.ask("events", FOLLOW="1")
    assert b"".join(packet[1:] for packet in packets).splitlines() == lines[1:]
    render: Any = made.client.render
    [packet] = render((0.0, 2, "forwarded", "a detail", {"pid": 3}))
    assert json.loads(packet[1:])["pid"] == 3


# --- The socket of a supervisor. ------------------------------------------------------------------------------------


def test_the_socket_is_opened_unless_told_otherwise(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert supervise().supervisor.control is None
    made = supervise(variables={"AGENT_INIT_CONTROL": "on"}).supervisor.control
    assert made is not None
    made._listener.close()

    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(control_socket, "_open", fail)
    harness = supervise(variables={"AGENT_INIT_CONTROL": "on"})
    assert harness.supervisor.control is None
    assert harness.lines("warning: agent-initctl cannot be answered: Too many open files")


def test_elsewhere_there_is_no_socket(supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrypoint.init.supervisor.sys", SimpleNamespace(platform="darwin"))
    assert supervise(variables={"AGENT_INIT_CONTROL": "on"}).supervisor.control is None
