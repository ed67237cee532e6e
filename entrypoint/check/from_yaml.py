"""Containers, from Compose files, Kubernetes objects and ECS task definitions."""

from __future__ import annotations

import math
import re
import shlex
from typing import TYPE_CHECKING

from .. import parsed
from . import sleep
from .model import COMPOSE, ECS, FARGATE, KUBERNETES, Container, Hook, Probe, Rollout, Words
from .source import Given
from .tree import Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


GO_DURATION = re.compile(r"(?:(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))")
SECONDS_IN = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
POD_OF = {
    "Pod": (),
    "Deployment": ("template",),
    "StatefulSet": ("template",),
    "DaemonSet": ("template",),
    "ReplicaSet": ("template",),
    "ReplicationController": ("template",),
    "Job": ("template",),
    "CronJob": ("jobTemplate", "spec", "template"),
}
OF_A_SERVICE = (
    "image build command entrypoint environment env_file extends deploy ports volumes depends_on healthcheck init "
    "restart stop_grace_period stop_signal user".split()
)


def kind_of(document: Node) -> str:
    """Return `compose`, `kubernetes` or `ecs`, by the content; empty if it is none of them."""
    if document["apiVersion"].text and document["kind"].text:
        return "kubernetes"
    definitions = document["containerDefinitions"] or document["taskDefinition"]["containerDefinitions"]
    if isinstance(definitions.value, list):
        return "ecs"
    services = [node for _, node in document["services"].items()]
    if any(node.is_mapping and any(node[key] for key in OF_A_SERVICE) for node in services):
        return "compose"
    return ""


def duration(text: str) -> float | None:
    """Return the seconds in a duration as Go writes it (`1m30s`, `0`); None if it is none."""
    if text == "0":
        return 0.0
    parts = GO_DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    seconds = sum(float(number) * SECONDS_IN[unit] for number, unit in parts)
    return seconds if math.isfinite(seconds) else None


# --- Compose. ---------------------------------------------------------------------------------------------------------


def compose(document: Node) -> Iterator[Container]:
    """Yield a container for each service."""
    for name, service in document["services"].items():
        if service.is_mapping:
            yield _service(name, extended(document, name))


def extended(document: Node, name: str, seen: tuple[str, ...] = ()) -> Node:
    """Return a service with what it has from the one that it extends, if that is in the same file."""
    service = document["services"][name]
    extends = service["extends"]
    other = extends.text or extends["service"].text
    if not other or extends["file"] or other in (*seen, name) or not document["services"][other].is_mapping:
        return service
    base = extended(document, other, (*seen, name))
    merged = {**dict(base.items()), **dict(service.items())}
    if base["environment"] and service["environment"]:
        merged["environment"] = Node(service["environment"].place, {**_pairs(base), **_pairs(service)})
    del merged["extends"]
    if base["extends"]:
        merged["extends"] = base["extends"]
    return Node(service.place, merged)


def _pairs(service: Node) -> dict[str, Node]:
    """Return the environment as a mapping; a variable without a value is a node that is nothing."""
    found = dict(service["environment"].items())
    for item in service["environment"]:
        name, equals, value = (item.text or "").partition("=")
        found[name] = Node(item.place, value if equals else None)
    return found


def _service(name: str, service: Node) -> Container:
    made = Container(COMPOSE, name, service.place, image=service["image"].text or "")
    made.is_fragment = bool(service["extends"]) or not (service["image"] or service["build"])
    made.entrypoint = _compose_words(service["entrypoint"])
    made.command = _compose_words(service["command"])
    variables = _pairs(service)
    made.environment = {key: given for key, value in variables.items() if (given := value.given) is not None}
    # One without a value has that of the shell in which Compose runs.
    alone = [key for key, value in variables.items() if not value]
    made.environment_is_known = not service["env_file"] and not _matters(alone)
    grace = service["stop_grace_period"]
    if grace.text is not None:
        seconds = duration(grace.text)
        made.grace = None if seconds is None else Given(seconds, grace.place)
        made.grace_is_unknown = seconds is None
    made.stop_signal = service["stop_signal"].given
    made.init, made.restart, made.user = service["init"].switch, service["restart"].given, service["user"].given
    policy = service["deploy"]["restart_policy"]["condition"].given
    made.restart, made.restart_is_of_swarm = policy or made.restart, policy is not None
    if (mode := service["pid"].given) and mode.value:
        made.shared_processes = Given(f"pid: {mode.value}", mode.place)
    made.dropped_capabilities, made.added_capabilities = _capabilities(service["cap_drop"], service["cap_add"])
    made.ports = bool(service["ports"])
    return made


def _compose_words(node: Node) -> Given[Words] | None:
    """Return a command: a sequence, or a text that Compose splits as a shell would, without running one.

    `$$` stays, so that a line to write has it too.
    """
    try:
        return node.words if node.text is None else Given(tuple(shlex.split(node.text)), node.place)
    except ValueError:
        return None


def _matters(names: Iterable[str]) -> bool:
    """Whether a rule speaks of one of these variables, whose values are elsewhere."""
    return any(name.startswith(parsed.PREFIX) or name == "PYTHONUNBUFFERED" for name in names)


def _capabilities(dropped: Node, added: Node) -> tuple[Given[frozenset[str]] | None, Words]:
    def names(node: Node) -> Words:
        return tuple((item.text or "").upper().removeprefix("CAP_") for item in node)

    return (Given(frozenset(names(dropped)), dropped.place) if dropped else None), names(added)


# --- Kubernetes. ------------------------------------------------------------------------------------------------------


def kubernetes(document: Node) -> Iterator[Container]:
    """Yield each container of an object, and of the objects in a list."""
    kind = document["kind"].text or ""
    if kind.endswith("List") and isinstance(document["items"].value, list):
        for item in document["items"]:
            yield from kubernetes(item)
        return
    if kind not in POD_OF or not document["spec"]:
        return
    pod = document["spec"]
    for key in POD_OF[kind]:
        pod = pod[key]
    spec = pod if kind == "Pod" else pod["spec"]
    containers = [node for node in spec["containers"] if node.is_mapping]
    helpers = [node for node in spec["initContainers"] if node["restartPolicy"].text == "Always"]
    for node in [*containers, *helpers]:
        made = _container(node, spec, kind)
        made.owner = document["metadata"]["name"].text or ""
        made.rollout = _rollout(document["spec"]) if kind == "Deployment" and node in containers else None
        yield made


def _container(node: Node, spec: Node, kind: str) -> Container:
    made = Container(KUBERNETES, node["name"].text or "", node.place, kind, image=node["image"].text or "")
    made.entrypoint, made.command = _words_if_any(node["command"]), _words_if_any(node["args"])
    made.environment = _values_by_name(node["env"])
    elsewhere = [item["name"].text or "" for item in node["env"] if item["valueFrom"]]
    made.environment_is_known = not node["envFrom"] and not _matters(elsewhere)
    made.grace = spec["terminationGracePeriodSeconds"].number
    made.grace_is_unknown = bool(spec["terminationGracePeriodSeconds"]) and made.grace is None
    made.is_fragment = not made.image  # a patch of Kustomize
    made.stop_signal = node["lifecycle"]["stopSignal"].given
    made.hook = _hook(node["lifecycle"]["preStop"])
    made.restart = spec["restartPolicy"].given
    ports = [(port["name"].text or "", port["containerPort"].text or "") for port in node["ports"]]
    made.readiness, made.liveness, made.startup = (
        _probe(node[key], dict(ports)) for key in ("readinessProbe", "livenessProbe", "startupProbe")
    )
    made.ports, made.port = bool(ports), ports[0][1] if ports else ""
    for key in ("shareProcessNamespace", "hostPID"):
        if (shared := spec[key].switch) and shared.value:
            made.shared_processes = Given(f"{key}: true", shared.place)
    own, pods = node["securityContext"], spec["securityContext"]
    made.user = own["runAsUser"].given or pods["runAsUser"].given
    capabilities = own["capabilities"]
    made.dropped_capabilities, made.added_capabilities = _capabilities(capabilities["drop"], capabilities["add"])
    return made


def _words_if_any(node: Node) -> Given[Words] | None:
    """Return the words of a sequence that is not empty: an empty one is as good as none."""
    words = node.words
    return words if words and words.value else None


def _values_by_name(node: Node) -> dict[str, Given[str]]:
    return {item["name"].text or "": given for item in node if (given := item["value"].given) is not None}


def _hook(node: Node) -> Hook | None:
    if not node:
        return None
    if node["sleep"]:
        seconds = node["sleep"]["seconds"].number
        return Hook(node.place, seconds.value if seconds else 0.0, seconds is not None, "sleep")
    words = node["exec"]["command"].words
    if words is None:
        return Hook(node.place, 0.0, is_all=False, text="request")
    return Hook(words.place, *sleep.slept(words.value), shlex.join(words.value))


def _probe(node: Node, ports: dict[str, str]) -> Probe | None:
    """Return a probe. `ports`: the number of each port that has a name."""
    if not node:
        return None
    words, request = node["exec"]["command"].words, node["httpGet"]
    port = (request or node["tcpSocket"] or node["grpc"])["port"].text or ""
    path = (request["path"].text or "/") if request else ""
    host = (request or node["tcpSocket"])["host"].text or ""
    return Probe(node.place, words.value if words else (), path, ports.get(port, port), host)


def _rollout(spec: Node) -> Rollout:
    rolling = spec["strategy"]["rollingUpdate"]
    return Rollout(
        spec["replicas"].number,
        spec["strategy"]["type"].given,
        rolling["maxUnavailable"].given,
        rolling["maxSurge"].given,
    )


# --- ECS. -------------------------------------------------------------------------------------------------------------


def ecs(document: Node) -> Iterator[Container]:
    """Yield the containers of a task definition, or of the answer that `describe-task-definition` prints."""
    task = document["taskDefinition"] if document["taskDefinition"]["containerDefinitions"] else document
    fargate = any(item.text == "FARGATE" for item in task["requiresCompatibilities"])
    definitions = [node for node in task["containerDefinitions"] if node.is_mapping]
    for node in definitions:
        place = node["name"].place if node["name"] else node.place
        made = Container(FARGATE if fargate else ECS, node["name"].text or "", place)
        made.image = node["image"].text or ""
        made.entrypoint, made.command = _words_if_any(node["entryPoint"]), _words_if_any(node["command"])
        made.environment = _values_by_name(node["environment"])
        secrets = [item["name"].text or "" for item in node["secrets"]]
        made.environment_is_known = not node["environmentFiles"] and not _matters(secrets)
        made.grace = node["stopTimeout"].number
        made.grace_is_unknown = bool(node["stopTimeout"]) and made.grace is None
        made.init = node["linuxParameters"]["initProcessEnabled"].switch
        made.user = node["user"].given
        made.ports = bool(node["portMappings"])
        if (mode := task["pidMode"].given) and mode.value:
            made.shared_processes = Given(f'"pidMode": "{mode.value}"', mode.place)
        capabilities = node["linuxParameters"]["capabilities"]
        made.dropped_capabilities, made.added_capabilities = _capabilities(capabilities["drop"], capabilities["add"])
        yield made
