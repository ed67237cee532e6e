"""Docker swarm, with one node: rolling updates, `stop_grace_period`, and what swarm shows of an end.

The engine is a private one with a network of its own: a swarm makes bridges, and would change an engine that is in use.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml

from . import images
from .conftest import skip_or_fail
from .container import RECORDER, TOLERANCE, Container, as_options, wait_until
from .engine import Engine, NotAvailable, private_engine
from .images import EXAMPLE, PROBE, PROJECT

DEFAULT_GRACE = 10.0  # seconds, of swarm
HOSTS_NETWORK = ("--network", "host")  # the engine's, which is isolated
BEHIND_SH = f"{' '.join(RECORDER)} --cleanup=3; exit $?"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The manager of a swarm with one node."""
    try:
        with private_engine(isolated=True) as made:
            images.build_all(made)
            made("swarm", "init", "--advertise-addr", "127.0.0.1")
            try:
                yield made
            finally:
                made("swarm", "leave", "--force")
    except NotAvailable as error:
        skip_or_fail(str(error))


@dataclass(frozen=True)
class Task:
    """What `docker service ps` shows of a container, and the container."""

    id: str
    desired: str
    state: str
    error: str
    container: Container

    @property
    def started_at(self) -> float:
        return seconds(self.container.inspect()["State"]["StartedAt"])


class Service:
    """A service with one replica."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name

    def tasks(self) -> list[Task]:
        """Its tasks that have a container, the newest one first."""
        lines = self.engine("service", "ps", "--no-trunc", "--format", "{{json .}}", self.name).stdout.splitlines()
        found = []
        for shown in map(json.loads, lines):
            label = f"label=com.docker.swarm.task.id={shown['ID']}"
            if name := self.engine("ps", "--all", "--quiet", "--filter", label).stdout.strip():
                state = shown["CurrentState"].split()[0]
                error = shown["Error"].strip('"')
                container = Container(self.engine, name)
                found.append(Task(shown["ID"], shown["DesiredState"], state, error, container))
        return found

    def task(self, number: str) -> Task:
        """The task with this ID, as it is shown now."""
        (found,) = [task for task in self.tasks() if task.id == number]
        return found

    def update(self, *options: str) -> tuple[Task, Task]:
        """`docker service update --force`. Return the new task and the old one, once that is shown as over."""
        (old,) = [task for task in self.tasks() if task.desired == "Running"]
        self.engine("service", "update", "--quiet", "--detach", "--force", *options, self.name)
        wait_until(lambda: self.task(old.id).state not in ("Running", "Ready"), "the old task is over", within=120)
        wait_until(lambda: any(task.desired == "Running" for task in self.tasks()), "there is a new task")
        (new,) = [task for task in self.tasks() if task.desired == "Running"]
        return new, self.task(old.id)


class Services:
    """Creates services and removes them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.created: list[Service] = []

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        settings: Mapping[str, str] = MappingProxyType({}),
        ready: bool = True,
    ) -> Service:
        """`docker service create`; wait for the agent's line `ready`. `settings` are agent-init's."""
        service = Service(self.engine, f"agent-{len(self.created)}")
        self.created.append(service)
        variables = as_options({"LOG_FORMAT": "json", **settings})
        words = ("--detach", "--quiet", "--no-resolve-image", *HOSTS_NETWORK, "--name", service.name, *variables)
        self.engine("service", "create", *words, *options, PROBE, *command)
        wait_until(service.tasks, "there is a container")
        if ready:
            service.tasks()[0].container.wait_for_line("ready")
        return service


@pytest.fixture
def services(engine: Engine) -> Iterator[Services]:
    made = Services(engine)
    try:
        yield made
    finally:
        for service in made.created:
            for task in service.tasks():
                logs = engine("logs", task.container.name, check=False)
                print(f"--- {task} stdout:\n{logs.stdout[-3000:]}--- stderr:\n{logs.stderr[-9000:]}")
                engine("kill", task.container.name, check=False)  # those that ignore TERM: nobody waits for them
            engine("service", "rm", service.name)
        wait_until(lambda: not engine("ps", "--all", "--quiet").stdout.split(), "all containers are removed")


def seconds(stamp: str) -> float:
    """A time that Docker shows, in seconds since the epoch."""
    return datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00").timestamp()


def time_of(container: Container, event: str) -> float:
    return datetime.fromisoformat(container.event(event)["time"]).timestamp()


# --- Rolling updates. -----------------------------------------------------------------------------------------------


def test_agent_finishes_its_work_in_a_rolling_update(services: Services) -> None:
    """`start-first`: the new agent runs before the old one gets TERM, and the old one has its 10 s."""
    service = services.run(*RECORDER, "--cleanup=6", options=("--update-order", "start-first"))
    new, old = service.update()
    ended = old.container.wait_for_exit()
    assert (ended.code, old.state, old.error) == (0, "Shutdown", "")
    assert old.container.signals() == ["TERM"]
    assert old.container.output()[-1] == "cleaned up"
    assert [line["event"] for line in old.container.events()] == ["started", "stop-requested", "ended"]
    assert new.started_at < time_of(old.container, "stop-requested")
    assert new.container.running()


@pytest.mark.parametrize(("init", "code"), [("agent-init", 0), ("tini", 143)])
def test_agent_behind_a_shell_in_a_rolling_update(services: Services, init: str, code: int) -> None:
    """tini's TERM ends the shell, and that the agent. Swarm shows the two ends alike."""
    peer = ("--init", "--entrypoint", "sh")
    options, command = (peer, ("-c", BEHIND_SH)) if init == "tini" else ((), ("sh", "-c", BEHIND_SH))
    service = services.run(*command, options=options)
    _, old = service.update()
    assert old.container.wait_for_exit().code == code
    assert ("cleaned up" in old.container.output()) is (init == "agent-init")
    assert (old.state, old.error) == ("Shutdown", "")


# --- The grace period. ----------------------------------------------------------------------------------------------


def test_default_grace_is_10s(services: Services) -> None:
    """Nobody has set anything; the agent needs longer. There is a report 2 s before swarm's SIGKILL."""
    service = services.run(*RECORDER, "--cleanup=60")
    _, old = service.update()
    ended = old.container.wait_for_exit()
    requested_at = time_of(old.container, "stop-requested")
    assert (ended.code, old.state, old.error) == (137, "Shutdown", "")
    assert DEFAULT_GRACE - 0.5 <= ended.at - requested_at < DEFAULT_GRACE + TOLERANCE
    assert old.container.events()[-1]["event"] != "ended"
    assert DEFAULT_GRACE - 2.5 <= time_of(old.container, "limit-near") - requested_at < DEFAULT_GRACE


def test_stop_grace_period_of_3s_is_seen_in_the_termination_log_only(services: Services, tmp_path: Path) -> None:
    """Swarm's SIGKILL comes without a word; what agent-init wrote at the stop request is still there."""
    tmp_path.chmod(0o777)
    mount = ("--mount", f"type=bind,src={tmp_path},dst=/messages")
    options = ("--stop-grace-period", "3s", *mount)
    settings = {"TERMINATION_LOG": "/messages/{{.Task.ID}}"}
    service = services.run(*RECORDER, "--stop-on=", options=options, settings=settings)
    _, old = service.update()
    ended = old.container.wait_for_exit()
    assert (ended.code, old.state, old.error) == (137, "Shutdown", "")
    assert 2.5 <= ended.at - time_of(old.container, "stop-requested") < 3 + TOLERANCE
    assert old.container.signals() == ["TERM"]
    assert old.container.events()[-1]["event"] == "stop-requested"
    message = (tmp_path / old.id).read_text()
    assert message.startswith("stopping since ")
    assert "python" in message


@pytest.mark.parametrize(
    ("settings", "after"), [({"GRACE": "2s"}, 2.0), ({"PLATFORM_GRACE": "4s"}, 3.0)], ids=["grace", "platform-grace"]
)
def test_deadline_of_agent_init_is_before_swarms(services: Services, settings: dict[str, str], after: float) -> None:
    """The same agent: agent-init ends it, and its log says so."""
    options = ("--stop-grace-period", "4s")
    service = services.run(*RECORDER, "--stop-on=", "--children=1", options=options, settings=settings)
    _, old = service.update()
    ended = old.container.wait_for_exit()
    assert (ended.code, old.state, old.error) == (137, "Shutdown", "")
    assert after <= ended.at - time_of(old.container, "stop-requested") < 4
    assert len(old.container.event("deadline")["processes"]) == 2
    assert old.container.event("ended")["how"] == "was killed by SIGKILL at the deadline"


# --- Ends that swarm does not ask for, and other stops. -------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "state", "error"),
    [
        (("sh", "-c", "exit 3"), 3, "Failed", "task: non-zero exit (3)"),
        (("true",), 0, "Complete", ""),
        (("no-such-program",), 127, "Failed", "task: non-zero exit (127)"),
    ],
    ids=["3", "0", "127"],
)
def test_exit_codes_of_agents_that_end_by_themselves(
    services: Services, command: tuple[str, ...], code: int, state: str, error: str
) -> None:
    service = services.run(*command, options=("--restart-condition", "none"), ready=False)
    (task,) = service.tasks()
    assert task.container.wait_for_exit().code == code
    wait_until(lambda: service.task(task.id).state in ("Failed", "Complete"), "swarm shows the end")
    shown = service.task(task.id)
    assert (shown.state, shown.error) == (state, error)


def test_drained_node_lets_the_agent_finish(services: Services) -> None:
    service = services.run(*RECORDER, "--cleanup=3", "--code=5")
    (task,) = service.tasks()
    (node,) = services.engine("node", "ls", "--quiet").stdout.split()
    services.engine("node", "update", "--availability", "drain", node)
    try:
        assert task.container.wait_for_exit().code == 5
    finally:
        services.engine("node", "update", "--availability", "active", node)
    assert task.container.output()[-1] == "cleaned up"


def test_stack_of_the_compose_example_finishes_its_calls(engine: Engine, tmp_path: Path) -> None:
    """`examples/compose.yaml` with `docker stack deploy`, which ignores `build`, `restart` and `security_opt`.

    `docker stack rm` returns at once; the agents have their `stop_grace_period` all the same.
    """
    stack = yaml.safe_load((PROJECT / "examples" / "compose.yaml").read_text())
    stack["version"] = "3.8"  # Docker 20.10 asks for it
    agent = stack["services"]["agent"]
    agent["networks"], agent["deploy"] = ["outside"], {"replicas": 2}
    agent["environment"]["WORK_SECONDS"] = "12"  # longer than swarm's default
    stack["networks"] = {"outside": {"external": True, "name": "host"}}
    file = tmp_path / "stack.yaml"
    file.write_text(yaml.safe_dump(stack))
    engine("tag", EXAMPLE, "my-agent")
    engine("stack", "deploy", "--resolve-image", "never", "--compose-file", str(file), "calls")
    label = ("--filter", "label=com.docker.stack.namespace=calls")

    def containers() -> list[Container]:
        return [Container(engine, name) for name in engine("ps", "--all", "--quiet", *label).stdout.split()]

    try:
        wait_until(lambda: len(containers()) == 2, "two agents run")
        wait_until(lambda: all(any("begins" in line for line in it.output()) for it in containers()), "calls go on")
        removed_at = time.time()
        engine("stack", "rm", "calls")
        assert len(containers()) == 2
    finally:
        engine("stack", "rm", "calls", check=False)
    wait_until(lambda: not containers(), "both are removed")
    span = ("--since", f"{removed_at:.3f}", "--until", f"{time.time():.3f}")
    lines = engine("events", *span, "--filter", "event=die", *label, "--format", "{{json .}}").stdout.splitlines()
    deaths = [json.loads(line) for line in lines]
    assert [death["Actor"]["Attributes"]["exitCode"] for death in deaths] == ["0", "0"]
    assert max(death["timeNano"] / 1e9 for death in deaths) > removed_at + DEFAULT_GRACE
