"""What an agent reports: to a socket of ours, and to agent-init itself."""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.agent.stopping import granted_seconds
from entrypoint.notify import HANDLES

from .agents import PROGRAM, Agent, Listener
from .pythons import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Start


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    with contextlib.closing(Listener(tmp_path / "notify", request.param == "abstract")) as made:
        yield made


def alone(start: Start, directory: Path, listener: Listener, kind: str, grace: float | None = 20, **more: str) -> Agent:
    return Agent(start, directory, kind, grace, "alone", NOTIFY_SOCKET=listener.variable, **more)


def test_ready_is_sent_when_main_waits_and_stopping_when_a_stop_is_requested(
    start: Start, tmp_path: Path, listener: Listener
) -> None:
    agent = alone(start, tmp_path, listener, "watches", None)
    listener.receive("READY")
    agent.stop()
    assert agent.init.wait() == 0
    assert listener.reports() == [{"READY": "1"}, {"STOPPING": "1"}]


def test_an_agent_reports_its_handlers_to_agent_init(start: Start, tmp_path: Path, listener: Listener) -> None:
    agent = alone(start, tmp_path, listener, "sets_handlers", None, AGENT_INIT_RESPONDERS="@none")
    agent.stop()
    assert agent.init.wait() == 0
    found = [set(message.fields[HANDLES].split(",")) for message in listener.messages(HANDLES)]
    changes = [{"10", "12", "2", "15"} & each for each in found]
    assert changes == [{"2", "15"}, {"2", "15", "10"}, {"2", "15", "10", "12"}, {"2", "15", "12"}]
    assert not any({"1", "9", "37"} & each for each in found)
    assert [message.fields.get("STATUS") for message in listener.messages(HANDLES)][2:] == ["one more", "one less"]


def test_other_supervisors_get_no_report_of_handlers(start: Start, tmp_path: Path, listener: Listener) -> None:
    agent = alone(start, tmp_path, listener, "sets_handlers", None)
    agent.stop()
    assert agent.init.wait() == 0
    assert listener.messages("STATUS")
    assert not listener.messages(HANDLES)


def test_stopping_is_sent_when_main_returns(start: Start, tmp_path: Path, listener: Listener) -> None:
    assert alone(start, tmp_path, listener, "work_in_a_thread").init.wait() == 0
    assert listener.reports() == [{"STOPPING": "1"}]  # it never waited


def test_without_auto_ready_the_agent_reports_ready_itself(start: Start, tmp_path: Path, listener: Listener) -> None:
    agent = alone(start, tmp_path, listener, "reports_its_status", None)
    agent.stop()
    assert agent.init.wait() == 0
    reports = listener.reports()
    assert reports[0] == {"READY": "1", "STATUS": "two calls"}
    assert reports[1:-1] == [{"STATUS": "three calls"}, {"STATUS": "from a thread"}]
    assert reports[-1] == {"STOPPING": "1"}


def test_extensions_reach_up_to_the_agents_own_limit(start: Start, tmp_path: Path, listener: Listener) -> None:
    limits = {"AGENT_INIT_STOP_SECONDS": "1.0", "AGENT_INIT_RESPONDERS": "@none"}
    agent = alone(start, tmp_path, listener, "drains_without_end", 5, **limits)
    agent.until_printed("ready")
    requested = agent.stop()
    assert agent.init.wait() == 0
    messages = listener.messages("EXTEND_TIMEOUT_USEC")
    assert messages[0].fields == {"EXTEND_TIMEOUT_USEC": messages[0].fields["EXTEND_TIMEOUT_USEC"]}
    extensions = [int(message.fields["EXTEND_TIMEOUT_USEC"]) / 1e6 for message in messages]
    assert len(extensions) == 2  # at once, and 3 s later
    assert extensions[0] == pytest.approx(5, abs=0.01)
    assert extensions[1] == pytest.approx(2, abs=0.9)
    assert all(left < 5 for left in extensions)
    assert time.monotonic() - requested > 4


@pytest.mark.parametrize("grace", [None, 20])
def test_no_extension_within_the_granted_time(
    start: Start, tmp_path: Path, listener: Listener, grace: float | None
) -> None:
    limits = {"AGENT_INIT_STOP_SECONDS": "20", "AGENT_INIT_RESPONDERS": "@none"}
    agent = alone(start, tmp_path, listener, "drains", grace, **limits)
    agent.stop()
    assert agent.init.wait() == 0
    assert "drain: 18s" in agent.lines
    assert not listener.messages("EXTEND_TIMEOUT_USEC")


def test_systemd_is_always_asked_for_the_agents_time(start: Start, tmp_path: Path, listener: Listener) -> None:
    """It does not pass its own limit on."""
    agent = alone(start, tmp_path, listener, "drains", 20)
    agent.stop()
    assert agent.init.wait() == 0
    assert listener.messages("EXTEND_TIMEOUT_USEC")[0].fields == {"EXTEND_TIMEOUT_USEC": "8000000"}


def test_pings_come_from_the_loop(start: Start, tmp_path: Path, listener: Listener) -> None:
    block = tmp_path / "block"
    block.touch()
    agent = alone(start, tmp_path, listener, "blocks", WATCHDOG_USEC="400000", WHILE=str(block))
    agent.until_printed("blocking")
    count = len(listener.messages("WATCHDOG"))
    assert count >= 1
    time.sleep(1)
    assert len(listener.messages("WATCHDOG")) == count
    block.unlink()
    listener.receive("WATCHDOG", count + 5)
    ats = [message.at for message in listener.messages("WATCHDOG")[count:]]
    assert min(later - at for at, later in itertools.pairwise(ats)) < 0.4
    agent.stop()
    assert agent.init.wait() == 0


def test_no_pings_when_the_watchdog_is_for_another_pid(start: Start, tmp_path: Path, listener: Listener) -> None:
    agent = alone(start, tmp_path, listener, "plain", WATCHDOG_USEC="40000", WATCHDOG_PID="1")
    listener.receive("READY")
    agent.until_printed("ready")
    time.sleep(0.3)
    agent.stop()
    assert agent.init.wait() == 0
    assert not listener.messages("WATCHDOG")


def test_a_report_is_sent_again_when_the_receiver_was_full(start: Start, tmp_path: Path, listener: Listener) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        address = listener.variable.replace("@", "\0", 1)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.sendto(b"X_FILLER=1", address)
    agent = alone(start, tmp_path, listener, "plain")
    agent.until_printed("ready")
    time.sleep(0.3)
    assert listener.messages("X_FILLER")  # makes room
    listener.receive("READY")
    agent.stop()
    assert agent.init.wait() == 0


def test_a_full_receiver_gets_only_the_latest_of_what_it_missed(
    start: Start, tmp_path: Path, listener: Listener
) -> None:
    """Nothing older than what it has. A long status does not crowd STOPPING out."""
    agent = alone(start, tmp_path, listener, "reports_much")
    agent.stop()  # while a status waits
    agent.until_printed("stopping")
    listener.messages()  # makes room
    listener.receive("STOPPING")
    assert agent.init.wait() == 0
    numbers = [int(message.fields["STATUS"].split()[0]) for message in listener.messages("STATUS")]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 39
    assert len(numbers) < 30


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@nobody", "vsock:2:1", "relative", "/" + "x" * 300, ""])
def test_an_unusable_notify_socket_is_ignored(start: Start, tmp_path: Path, address: str) -> None:
    variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "nonsense", "AGENT_INIT_STOP_SECONDS": "nonsense"}
    agent = Agent(start, tmp_path, "reports_its_status", 20, "alone", **variables)
    agent.stop()
    assert agent.init.wait() == 0
    assert not agent.stderr


# --- Under agent-init. ------------------------------------------------------------------------------------------------


def under_agent_init(start: Start, directory: Path, kind: str, *options: str, grace: str = "", **more: str) -> Agent:
    argv = [str(PROGRAM), kind, *([grace] if grace else [])]
    agent = Agent.__new__(Agent)
    agent.output = directory / "output"
    with agent.output.open("wb") as output:
        command = ["--", sys.executable, *argv]
        agent.init = start(*options, command=command, env=environment(**more), stdout=output)
    return agent


def test_agent_init_logs_ready_and_the_status(start: Start, tmp_path: Path) -> None:
    agent = under_agent_init(start, tmp_path, "reports_its_status", "-v", "--grace", "20s")
    agent.init.wait_for_line("the agent is ready")
    agent.init.wait_for_line('"from a thread"')
    agent.stop()
    assert agent.init.wait() == 0


def test_agent_init_extends_the_grace_period(start: Start, tmp_path: Path) -> None:
    """The drain takes longer than agent-init's grace period, which the agent's own limit allows."""
    agent = under_agent_init(start, tmp_path, "drains_long", "--grace", "1s", grace="20")
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "drained", "cleaned", "returned None"]


def test_the_drain_gets_agent_inits_grace_period(start: Start, tmp_path: Path) -> None:
    agent = under_agent_init(start, tmp_path, "drains", "--grace", "10s")
    agent.stop()
    assert agent.init.wait() == 0
    assert "drain: 8s" in agent.lines  # 10 s, less the time of a stall report and the time reserved for the end


def test_the_agent_ends_before_agent_init_escalates(start: Start, tmp_path: Path) -> None:
    agent = under_agent_init(start, tmp_path, "drains_without_end", "--grace", "10s")
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "drain", "drain cancelled", "cleaned", "returned None"]


def test_the_watchdog_accepts_a_loop_that_runs(start: Start, tmp_path: Path) -> None:
    agent = under_agent_init(start, tmp_path, "plain", "--watchdog", "1s", "--grace", "20s")
    agent.until_printed("ready")
    time.sleep(3)
    agent.stop()
    assert agent.init.wait() == 0


def test_the_watchdog_notices_a_blocked_loop(start: Start, tmp_path: Path) -> None:
    block = tmp_path / "block"
    block.touch()
    agent = under_agent_init(start, tmp_path, "blocks", "--watchdog", "1s", "--grace", "20s", WHILE=str(block))
    assert agent.init.wait() == 134
    assert "blocking" in agent.lines


# --- How long a stop may take. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "there", "granted"),
    [
        ({}, "", (10.0, True)),
        ({"AGENT_INIT_STOP_SECONDS": "25.5"}, "/.dockerenv", (25.5, True)),
        ({"AGENT_INIT_STOP_SECONDS": "inf"}, "", (math.inf, True)),
        ({"AGENT_INIT_STOP_SECONDS": "soon"}, "", (10.0, True)),
        ({"AGENT_INIT_STOP_SECONDS": "nan"}, "", (10.0, True)),
        ({}, "/.dockerenv", (math.inf, True)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "", (math.inf, True)),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, "", (math.inf, False)),
        ({"NOTIFY_SOCKET": "/run/n", "AGENT_INIT_RESPONDERS": "@a"}, "", (10.0, True)),
        ({"NOTIFY_SOCKET": "/run/n", "AGENT_INIT_RESPONDERS": "@a"}, "/.dockerenv", (math.inf, True)),
    ],
)
def test_the_limit_of_an_agent_without_a_grace(
    variables: dict[str, str], there: str, granted: tuple[float, bool]
) -> None:
    assert granted_seconds(variables, lambda path: path == there) == granted
