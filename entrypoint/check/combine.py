"""Files together: what each is, and which containers they describe.

A Compose service that is built from a Dockerfile at hand runs its image. So does a container of another file, if there
is one Dockerfile and one container that may be meant, or if the image's name is that of a service or of the
Dockerfile's directory. A Dockerfile that no other file runs is a container of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import dockerfile, from_dockerfile, from_fly, from_yaml, tree
from .model import COMPOSE, KUBERNETES, Container
from .source import Place, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .dockerfile import Dockerfile
    from .tree import Node

ACCEPTED = "a Dockerfile, a Compose file, Kubernetes objects, an ECS task definition, or a fly.toml"
READERS: dict[str, Callable[[Node], Iterator[Container]]] = {
    "compose": from_yaml.compose,
    "kubernetes": from_yaml.kubernetes,
    "ecs": from_yaml.ecs,
}
# Images that nobody's own Dockerfile makes.
OTHERS = frozenset(
    "redis postgres postgresql mysql mariadb mongo mongodb nginx rabbitmq memcached traefik caddy busybox alpine "
    "debian ubuntu elasticsearch qdrant minio kafka zookeeper grafana prometheus envoy istio-proxy livekit-server "
    "valkey adminer pgadmin4 pgvector ollama cloud-sql-proxy cloudflared fluent-bit otel-collector "
    "opentelemetry-collector-contrib".split()
)
OF_A_FRAGMENT = (
    "entrypoint command user grace stop_signal hook init restart shared_processes dropped_capabilities readiness "
    "liveness startup".split()
)

Source = tuple[str, str | None]  # a Dockerfile, and the stage


@dataclass
class Builds:
    """How a Compose service is built. `file`: the path of its Dockerfile."""

    service: Container
    file: str
    target: str | None
    image: str


@dataclass
class Files:
    """All that was read. `ignored`: files that are none of the kinds, with a line about each."""

    dockerfiles: dict[str, Dockerfile] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    builds: list[Builds] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def add(self, file: str, text: str) -> None:
        """Read a file; its kind is that of its content. Raises Unreadable."""
        name = os.path.basename(file).lower()
        if dockerfile.looks_like_one(text) or _is_named_dockerfile(name):
            self.dockerfiles[file] = dockerfile.read(file, text)
        elif name.endswith(".toml"):
            document = tree.read_toml(file, text)
            if from_fly.is_one(document, name):
                self.containers += from_fly.containers(document)
            else:
                self._ignore(file)
        else:
            self._add_yaml(file, text)

    def _add_yaml(self, file: str, text: str) -> None:
        known = False
        for document in tree.read_yaml(file, text):
            kind = from_yaml.kind_of(document)
            known = known or bool(kind)
            if kind:
                made = list(READERS[kind](document))
                self.containers += made
                if kind == "compose":
                    self._add_builds(file, document, made)
        if not known:
            self._ignore(file)

    def _ignore(self, file: str) -> None:
        self.ignored.append(f"{file}: not checked; accepted: {ACCEPTED}")

    def _add_builds(self, file: str, document: Node, made: Sequence[Container]) -> None:
        for container in made:
            build = from_yaml.extended(document, container.name)["build"]
            if not build:
                continue
            context = build.text if build.text is not None else (build["context"].text or ".")
            name = build["dockerfile"].text or "Dockerfile"
            path = os.path.normpath(os.path.join(os.path.dirname(file), context, name))
            path = "" if build["dockerfile_inline"] else path  # no file has it
            self.builds.append(Builds(container, path, build["target"].text, container.image))

    def all(self) -> list[Container]:
        """Return the containers, each with its image where the Dockerfile is at hand."""
        used: set[str] = set()
        by_path = {os.path.normpath(file): read for file, read in self.dockerfiles.items()}
        by_image: dict[str, set[Source]] = {}
        for build in self.builds:
            read = by_path.get(build.file)
            if read is None:
                continue
            used.add(read.file)
            build.service.image_of = from_dockerfile.image(read, build.target)
            name = from_dockerfile.name_of(build.image) or build.service.name
            by_image.setdefault(name, set()).add((read.file, build.target))
        self._name_images(by_image, used)
        alone = [from_dockerfile.container(read) for file, read in self.dockerfiles.items() if file not in used]
        return _merged([*alone, *self.containers])

    def _name_images(self, by_image: dict[str, set[Source]], used: set[str]) -> None:
        """Give their images to the containers that are not built by a Compose file at hand."""
        built = {id(build.service) for build in self.builds}
        others = [made for made in self.containers if id(made) not in built and made.image_of is None]
        others = [made for made in others if from_dockerfile.name_of(made.image) not in OTHERS]
        directories: dict[str, set[Source]] = {}
        for file in self.dockerfiles:
            directory = os.path.basename(os.path.dirname(os.path.abspath(file)))
            directories.setdefault(directory, set()).add((file, None))
        for made in others:
            name = from_dockerfile.name_of(made.image)
            found = by_image.get(name) or directories.get(name) or set()
            if not found and len(others) == len(self.dockerfiles) == 1:
                found = {(next(iter(self.dockerfiles)), None)}
            if len(found) == 1:  # else it may be any of them
                ((file, target),) = found
                made.image_of = from_dockerfile.image(self.dockerfiles[file], target)
                used.add(file)


def read(files: Sequence[tuple[str, str]]) -> Files:
    """Return what files say: each is its name and its text. Raises Unreadable."""
    found = Files()
    for file, text in files:
        if not text.strip():
            raise Unreadable(Place(file, 0), f"it is empty; accepted: {ACCEPTED}")
        found.add(file, text)
    return found


def _is_named_dockerfile(name: str) -> bool:
    return name in ("dockerfile", "containerfile") or name.startswith("dockerfile.") or name.endswith(".dockerfile")


def _merged(containers: Sequence[Container]) -> list[Container]:
    """Put a fragment over the container that it completes: `compose.override.yaml`, or a patch of Kustomize."""
    whole = {_identity(made): made for made in containers if not made.is_fragment}
    over: dict[int, list[Container]] = {}
    result = []
    for made in containers:
        base = whole.get(_identity(made)) if made.is_fragment and made.platform in (COMPOSE, KUBERNETES) else None
        if base is None:
            result.append(made)
        else:
            over.setdefault(id(base), []).append(made)
    for base in result:
        fragments = over.get(id(base), [])
        if base.platform is KUBERNETES and len(fragments) > 1:  # each is that of another overlay
            base.is_fragment = True
            result = [one for one in result if one is not base]
            continue
        for fragment in fragments:
            _put_over(base, fragment)
    return result


def _identity(made: Container) -> tuple[str, ...]:
    """Return what a container and its fragments have in common."""
    directory = os.path.dirname(made.place.file) if made.platform is COMPOSE else ""
    return (made.platform.name, directory, made.kind, made.owner, made.name)


def _put_over(base: Container, made: Container) -> None:
    for name in OF_A_FRAGMENT:
        if getattr(made, name) is not None:
            setattr(base, name, getattr(made, name))
    base.environment = {**base.environment, **made.environment}
    base.environment_is_known = base.environment_is_known and made.environment_is_known
    base.ports = base.ports or made.ports
    if made.grace_is_unknown:
        base.grace, base.grace_is_unknown = None, True
