"""What runs in a container, and how the platform stops it. Each value has the place where it was written.

A value that is None was not written in the files at hand. Whether it may have been written elsewhere (the image's
Dockerfile is not at hand, an `env_file`) is said by `image_is_known` and `environment_is_known`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from . import launch
from .source import Given, Place

Words = tuple[str, ...]


@dataclass(frozen=True)
class Platform:
    """What stops the container. `wait`: seconds by default, None: not known. `setting`: what sets it."""

    name: str
    wait: float | None = None
    setting: str = ""
    maximum: float | None = None


IMAGE = Platform("the platform")
COMPOSE = Platform("Compose", 10.0, "stop_grace_period")
KUBERNETES = Platform("Kubernetes", 30.0, "terminationGracePeriodSeconds")
ECS = Platform("ECS", 30.0, "stopTimeout")
FARGATE = Platform("ECS on Fargate", 30.0, "stopTimeout", 120.0)
FLY = Platform("Fly.io", 5.0, "kill_timeout", 300.0)


@dataclass
class Hook:
    """A preStop hook. `seconds`: how long it takes at least. `is_all`: it takes no longer than that."""

    place: Place
    seconds: float
    is_all: bool
    text: str


@dataclass
class Probe:
    """A probe of the kubelet: the words of its command, or the port that it asks, and the path on that.

    `host`: the address that it asks, if that is not the pod's.
    """

    place: Place
    command: Words = ()
    path: str = ""
    port: str = ""
    host: str = ""


@dataclass
class Rollout:
    """How a Deployment replaces its pods. `unavailable` and `surge` as they are written."""

    replicas: Given[float] | None = None
    strategy: Given[str] | None = None
    unavailable: Given[str] | None = None
    surge: Given[str] | None = None


@dataclass
class Image:
    """What an image has: its Dockerfile's last stage, with what that is built on."""

    place: Place
    base: str
    entrypoint: Given[Words] | None
    command: Given[Words] | None
    environment: dict[str, Given[str]]
    user: Given[str] | None
    stop_signal: Given[str] | None
    shell: str  # dash, bash or busybox; empty if it is not known
    mentions: str  # the words of the file, to find what it installs


@dataclass
class Container:
    """A container: `entrypoint` and `command` are what its own file sets, over those of the image."""

    platform: Platform
    name: str
    place: Place
    kind: str = ""  # of the Kubernetes object
    owner: str = ""  # the name of that
    image: str = ""
    image_of: Image | None = None
    entrypoint: Given[Words] | None = None
    command: Given[Words] | None = None
    environment: dict[str, Given[str]] = field(default_factory=dict)
    environment_is_known: bool = True
    is_fragment: bool = False  # what is not known from this file may be set elsewhere
    user: Given[str] | None = None
    grace: Given[float] | None = None
    grace_is_unknown: bool = False  # it is given, and has a variable in it
    is_dedicated: bool = False  # the machine's processors are not shared: Fly.io waits as long as it is told to
    stop_signal: Given[str] | None = None
    hook: Hook | None = None
    init: Given[bool] | None = None
    restart: Given[str] | None = None
    restart_is_of_swarm: bool = False  # `deploy.restart_policy` of Compose
    shared_processes: Given[str] | None = None  # the setting that shares the PID namespace
    dropped_capabilities: Given[frozenset[str]] | None = None
    added_capabilities: Words = ()
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup: Probe | None = None
    ports: bool = False
    port: str = ""  # the first one
    rollout: Rollout | None = None

    @property
    def image_is_known(self) -> bool:
        """Whether the image's Dockerfile is at hand."""
        return self.image_of is not None

    @property
    def replaced_entrypoint(self) -> Given[Words] | None:
        """Return the image's entrypoint if this container does not run it."""
        return self.image_of.entrypoint if self.image_of and self.entrypoint else None

    @property
    def words(self) -> Words | None:
        """Return the command line that process 1 gets; None if it is not known."""
        image = self.image_of
        entrypoint = self.entrypoint or (image.entrypoint if image else None)
        command = self.command
        if command is None and self.entrypoint is None and image:  # an entrypoint of its own drops the image's command
            command = image.command
        if entrypoint is None and command is None:
            return None
        return (*(entrypoint.value if entrypoint else ()), *(command.value if command else ()))

    @property
    def words_place(self) -> Place:
        """Return where the command line was written: the part that comes last."""
        image = self.image_of
        for given in (self.command, self.entrypoint):
            if given is not None and given.value:
                return given.place
        for given in (image.command, image.entrypoint) if image else ():
            if given is not None and given.value:
                return given.place
        return self.place

    @cached_property
    def launch(self) -> launch.Launch:
        """Return the program that runs."""
        return launch.find(self.words or ())

    @cached_property
    def variables(self) -> dict[str, Given[str]]:
        """Return the environment, the image's included."""
        return {**(self.image_of.environment if self.image_of else {}), **self.environment}

    @property
    def signal(self) -> Given[str] | None:
        """Return the stop signal that was written, the image's included."""
        return self.stop_signal or (self.image_of.stop_signal if self.image_of else None)

    @property
    def effective_user(self) -> Given[str] | None:
        """Return the user, the image's included."""
        return self.user or (self.image_of.user if self.image_of else None)

    @property
    def seconds(self) -> float | None:
        """Return how long the platform waits, from the beginning of the stop; None: not known."""
        if self.grace is not None:
            return self.grace.value
        return self.platform.wait if self.grace_is_default else None

    @property
    def grace_is_default(self) -> bool:
        """Whether the platform waits as long as it does by default."""
        return self.grace is None and not self.grace_is_unknown and not self.is_fragment

    @property
    def maximum(self) -> float | None:
        """Return how long the platform waits at most, whatever is set; None: it has no maximum."""
        return None if self.is_dedicated else self.platform.maximum

    @property
    def seconds_after_hook(self) -> float | None:
        """Return how long the platform waits at most after the stop signal; None: not known."""
        whole = self.seconds
        return whole if whole is None else max(0.0, whole - self.hook_seconds)

    @property
    def hook_seconds(self) -> float:
        """Return how long the preStop hook takes at least: the stop signal comes after it."""
        return self.hook.seconds if self.hook else 0.0

    @property
    def hook_is_known(self) -> bool:
        """Whether it is known how long the preStop hook takes."""
        return self.hook is None or self.hook.is_all
