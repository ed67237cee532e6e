"""What is answered on each path, as the agent starts, works, hangs and stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from entrypoint.serve.metrics import FROM_ZERO
from tests.http.serving import LEAVES, READY, Served
from tests.support.control import ask, status
from tests.support.init import clean_environment, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

    from tests.conftest import Start

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PATHS = ("/readyz", "/livez", "/startupz", "/status", "/metrics")
# What it means is the same as in the answer of /status; the names are what dashboards depend on.
ALWAYS = {
    "agent_init_build",
    "agent_init_state",
    "agent_init_start_time_seconds",
    "agent_init_hung",
    "agent_init_processes",
    "agent_init_cpu_seconds",
    "agent_init_resident_memory_bytes",
    "agent_init_signals",
    "agent_init_orphans_reaped",
    "agent_init_control_clients_refused",
}
IN_A_STOP = {"agent_init_stop_requested_time_seconds", "agent_init_stop_remaining_seconds"}
WITH_A_WATCHDOG = {"agent_init_watchdog_timeout_seconds", "agent_init_watchdog_age_seconds"}


def test_probes_follow_the_agent_from_its_start_to_the_stop_request(start_in_role: Start) -> None:
    agent = "on('USR1', lambda: notify('READY=1')); " + LEAVES + "ready()"
    served = Served(start_in_role, "--stop-delay", "60s", "-t", "90s", "--repeat", "escalate", agent=agent)
    served.wait_until("/livez", 200)
    assert served.ask("/startupz") == (503, "the agent has not sent READY=1\n")
    assert served.ask("/readyz") == (503, "not ready: starting\n")
    served.init.wait_for_event("ready")
    served.init.signal("USR1")
    served.wait_until("/readyz", 200)
    assert served.ask("/startupz")[0] == 200
    served.init.signal("TERM")
    served.wait_until("/readyz", 503)
    assert served.ask("/readyz") == (503, "not ready: stopping\n")
    assert served.ask("/livez")[0] == served.ask("/startupz")[0] == 200
    assert "TERM" not in served.init.events()  # --stop-delay is not over
    served.init.signal("TERM")  # it is now
    assert served.init.wait() == 0


def test_a_hang_ends_liveness_and_readiness(start: Start) -> None:
    agent = "on('ABRT'); on('TERM'); on('USR1', lambda: leave(0)); " + READY + "ready()"
    served = Served(start, "-t", "60s", "--watchdog", "2s", agent=agent)
    served.wait_until("/livez", 503)
    assert served.ask("/livez") == (503, "the agent hangs (watchdog)\n")
    assert served.ask("/readyz")[0] == 503
    assert served.state()["hung"] == "watchdog"
    served.init.signal("USR1")
    assert served.init.wait() == 134


def test_status_counts_what_has_happened(start: Start) -> None:
    agent = "on('USR1', lambda: orphan('child', 'leave(3)')); " + LEAVES + READY + "ready()"
    served = Served(start, "-t", "90s", "--stop-delay", "60s", "--repeat", "escalate", agent=agent)
    served.init.wait_for_event("ready")
    served.wait_until("/readyz", 200)
    served.init.signal("USR1")
    served.init.wait_for_event("end", "child")
    served.init.signal("USR2")  # nobody handles it
    until(lambda: served.state()["orphans_reaped"], "a reaped orphan")
    until(lambda: served.state()["signals"]["dropped"], "a dropped signal")
    found = served.state()
    assert found["format"] == 1
    assert found["signals"] == {"forwarded": {"USR1": 1}, "dropped": {"USR2": 1}}
    assert found["processes"] == 1
    assert found["stop"]["seconds"] is None
    served.init.signal("TERM")
    served.wait_until("/readyz", 503)
    found = served.state()
    assert found["state"] == "stopping"
    assert 0 <= found["stop"]["seconds"] <= found["uptime_seconds"]
    assert 0 < found["stop"]["seconds_left"] <= 90
    assert [step["signal"] for step in found["stop"]["next"]] == ["TERM", "KILL"]
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_agent_initctl_counts_and_reports_the_agents_processes_only(start_in_role: Start) -> None:
    served = Served(start_in_role, agent=LEAVES + READY + "ready()")
    served.init.wait_for_event("ready")
    served.wait_until("/readyz", 200)
    assert status(served.init)["processes"] == served.state()["processes"] == 1
    lines = ask(served.init, "report").stdout.splitlines()
    assert [line for line in lines if ", child of agent-init" in line] == []
    assert [line for line in lines if "__main__.py" in line] == []
    served.init.signal("TERM")
    assert served.init.wait() == 0


@pytest.mark.parametrize(
    ("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)], ids=["text", "OpenMetrics"]
)
def test_metrics_are_valid(start: Start, accept: str, parse: Callable[[str], Iterable[Metric]]) -> None:
    agent = "on('USR1'); " + LEAVES + READY + "ready()"
    served = Served(start, "-t", "90s", "--watchdog", "90s", "--stop-delay", "60s", agent=agent)
    served.wait_until("/readyz", 200)
    served.init.wait_for_event("ready")
    served.init.signal("USR1")

    def families() -> dict[str, Metric]:
        headers = {"Accept": accept} if accept else {}
        response, text = served.response("/metrics", **headers)
        assert response.status == 200
        assert ("openmetrics" in str(response.getheader("Content-Type"))) is bool(accept)
        return {family.name: family for family in parse(text)}

    def forwarded() -> dict[str, float]:
        """The signals that were forwarded, once there is one."""
        samples = families()["agent_init_signals"].samples
        assert {sample.name for sample in samples} == {"agent_init_signals_total"}
        assert {sample.labels["fate"] for sample in samples} == {"forwarded", "dropped"}
        counts = {sample.labels["signal"]: sample.value for sample in samples if sample.labels["fate"] == "forwarded"}
        return counts if any(counts.values()) else {}

    counts = until(forwarded, "a signal's count")
    assert counts == dict.fromkeys(FROM_ZERO, 0.0) | {"USR1": 1.0}
    found = families()
    names = {name.removesuffix("_info") for name in found}
    assert names >= ALWAYS | WITH_A_WATCHDOG
    assert not IN_A_STOP & names
    states = {s.labels["agent_init_state"] for s in found["agent_init_state"].samples if s.value}
    assert states == {"ready"}
    served.init.signal("TERM")
    served.wait_until("/readyz", 503)
    assert families().keys() >= IN_A_STOP
    served.init.close()


@pytest.mark.parametrize("accept", ["text/plain;version=x", "application/openmetrics-text;version=x", ";;;,,,\x9f"])
def test_metrics_for_an_accept_header_that_makes_no_sense(start: Start, accept: str) -> None:
    served = Served(start, agent=LEAVES + READY + "ready()")
    served.wait_until("/livez", 200)
    status, text = served.ask("/metrics", Accept=accept)
    assert status == 200
    assert "agent_init_hung" in {family.name for family in parse_text(text)}
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_processor_time_goes_on_when_processes_exit(start: Start) -> None:
    """It is a counter: what a process has used is its parent's when that has waited for it."""
    burn = "end = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass\nleave(0)"
    agent = LEAVES + READY + f"os.waitpid(child('child', {burn!r}), 0); ready()"
    served = Served(start, agent=agent)
    served.init.wait_for_event("ready")
    served.wait_until("/livez", 200)
    until(lambda: served.state()["processes"] == 1, "the child's end to be seen")
    used = served.state()["cpu_seconds"]
    assert used > 0.1  # of half a second, on a busy machine
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_nothing_that_may_be_secret_is_shown(start: Start) -> None:
    secret = "hunter2"
    agent = f"notify('STATUS={secret}'); log('{secret}'); " + LEAVES + READY + "ready()"
    served = Served(start, agent=agent, env=clean_environment(SECRET=secret))
    served.wait_until("/readyz", 200)
    for path in (*PATHS, f"/{secret}x", "/"):
        _, text = served.ask(path)
        assert secret not in text
        assert "actor.py" not in text
        assert "python" not in text
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_only_get_and_head_are_accepted(start: Start) -> None:
    served = Served(start, agent=LEAVES + READY + "ready()")
    served.wait_until("/readyz", 200)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "STOP"):
        response, _ = served.response("/readyz", method)
        assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")
    for path in PATHS:
        response, text = served.response(path, "HEAD")
        assert (response.status, text) == (200, "")
        assert int(str(response.getheader("Content-Length"))) > 0
        assert response.getheader("Cache-Control") == "no-store"
    assert served.ask("/readyz?verbose")[0] == 200
    assert served.ask("/nowhere")[0] == 404
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_process_1_sleeps_while_it_is_asked(start: Start) -> None:
    served = Served(start, agent=LEAVES + READY + "ready()")
    served.wait_until("/readyz", 200)

    last = [-1]

    def is_at_rest() -> bool:
        last.append(served.wakings_of_process_1())
        for path in PATHS:
            served.ask(path)
        return last[-1] == last[-2]

    until(is_at_rest, "process 1 to come to rest")
    before = served.wakings_of_process_1()
    for path in PATHS * 10:
        served.ask(path)
    assert served.wakings_of_process_1() == before
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_every_signal_of_many_is_counted(start_in_role: Start) -> None:
    """Those that process 1 forwards without an event too."""
    agent = "on('USR1'); " + LEAVES + READY + "ready()"
    served = Served(start_in_role, agent=agent)
    served.wait_until("/readyz", 200)
    served.init.wait_for_event("ready")
    for number in range(1, 5):
        served.init.signal("USR1")
        known = {"USR1": number}
        until(lambda known=known: served.state()["signals"]["forwarded"] == known, f"{number} counted", 10)  # type: ignore[misc]
    served.init.signal("TERM")
    assert served.init.wait() == 0
