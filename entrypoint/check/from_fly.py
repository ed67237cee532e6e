"""Containers, from the fly.toml of Fly.io (https://fly.io/docs/reference/configuration/)."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from .from_yaml import duration
from .model import FLY, Container, Words
from .source import Given

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tree import Node

KNOWN = "app build env http_service services processes mounts vm primary_region kill_signal kill_timeout".split()


def is_one(document: Node, name: str) -> bool:
    """Whether a TOML file is a fly.toml: an app, or that file's name, and one more table or setting of that file."""
    is_named = document["app"].text is not None or name.startswith("fly.")
    return is_named and any(document[key] for key in KNOWN[1:])


def containers(document: Node) -> Iterator[Container]:
    """Yield a container for each process; one without a name if the image's own command runs."""
    processes = document["processes"].items()
    experimental = document["experimental"]
    for name, command in processes or [("", experimental["cmd"])]:
        made = Container(FLY, name, command.place if processes else document.place)
        made.command = _words(command)
        made.entrypoint = _words(experimental["entrypoint"])
        made.environment = {
            name: given for name, value in document["env"].items() if (given := value.given) is not None
        }
        made.grace = _seconds(document["kill_timeout"])
        made.grace_is_unknown = bool(document["kill_timeout"]) and made.grace is None
        made.is_dedicated = any(_is_dedicated(machine) for machine in document["vm"])
        made.restart = next((policy for item in document["restart"] if (policy := item["policy"].given)), None)
        made.stop_signal = document["kill_signal"].given
        made.image = document["build"]["image"].text or ""
        made.ports = bool(document["http_service"] or document["services"])
        yield made


def _is_dedicated(machine: Node) -> bool:
    return machine["cpu_kind"].text == "performance" or (machine["size"].text or "").startswith("performance")


def _words(node: Node) -> Given[Words] | None:
    if node.text is None:
        return node.words
    try:
        return Given(tuple(shlex.split(node.text)), node.place) if node.text.strip() else None
    except ValueError:
        return None


def _seconds(node: Node) -> Given[float] | None:
    if node.text is None:
        return None
    if (number := node.number) is not None:
        return number
    seconds = duration(node.text)
    return None if seconds is None else Given(seconds, node.place)
