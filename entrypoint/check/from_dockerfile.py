"""An image, from its Dockerfile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import dockerfile
from .model import IMAGE, Container, Image, Words
from .source import Given

if TYPE_CHECKING:
    from .dockerfile import Dockerfile, Instruction

DASH = re.compile(r"bookworm|bullseye|buster|trixie|slim|jammy|focal|noble|bionic|\b(debian|ubuntu)\b")
BUSYBOX = re.compile(r"alpine|busybox")
BASH = re.compile(r"\b(ubi\d*|centos|fedora|rockylinux|almalinux|amazonlinux|oraclelinux)\b|redhat|ubi-?minimal")
WINDOWS = re.compile(r"\b(windows|nanoserver|servercore)\b")
OF_DEBIAN = frozenset("python node golang ruby php perl openjdk redis postgres nginx".split())
# Images without an entrypoint, or with one that ends with exec "$@".
WITHOUT_ENTRYPOINT = OF_DEBIAN | frozenset(
    "debian ubuntu alpine busybox pypy rust gcc buildpack-deps eclipse-temurin centos fedora amazonlinux rockylinux "
    "almalinux scratch uv cuda".split()
)
PUBLISHERS = re.compile(
    r"(docker\.io/|public\.ecr\.aws/docker/)?(library/)?[^/]+|ghcr\.io/astral-sh/[^/]+|nvidia/[^/]+"
)


def image(read: Dockerfile, target: str | None = None) -> Image:
    """Return what the image of a stage has, the last one without a target."""
    chain = read.chain(target)
    last = chain[-1]
    shell: Words = dockerfile.SHELL if not WINDOWS.search(read.image_of(chain[0])) else ("cmd", "/S", "/C")
    entrypoint = command = None
    environment: dict[str, Given[str]] = {}
    user = signal = None
    for below, stage in zip((None, *chain), chain, strict=False):
        set_here = False
        for made in stage.run_on(below):
            if made.name == "SHELL":
                shell = made.array or shell
            elif made.name == "ENTRYPOINT":
                entrypoint = _words(made, shell)
                command = command if set_here else None
            elif made.name == "CMD":
                command, set_here = _words(made, shell), True
            elif made.name == "ENV":
                environment.update({k: Given(v, made.place) for k, v in dockerfile.variables(made).items()})
            elif made.name == "USER":
                user = Given(made.word, made.place)
            elif made.name == "STOPSIGNAL":
                signal = Given(made.word, made.place)
    base = read.image_of(chain[0])
    return Image(
        place=last.place,
        base=base,
        entrypoint=entrypoint,
        command=command,
        environment=environment,
        user=user,
        stop_signal=signal,
        shell=shell_of(base),
        mentions="\n".join(
            made.text for stage in chain for made in stage.instructions if made.name in ("RUN", "LABEL")
        ),
    )


def container(read: Dockerfile) -> Container:
    """Return the container of a Dockerfile of which no other file says how it is run."""
    made = image(read)
    return Container(IMAGE, "", made.place, image_of=made, image=made.base)


def name_of(image: str) -> str:
    """Return the last part of an image's name, without its tag."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def shell_of(image: str) -> str:
    """Return what /bin/sh is in an image, by its name: dash, bash, busybox; empty if that is not known."""
    if BUSYBOX.search(image):
        return "busybox"
    if BASH.search(image):
        return "bash"
    if DASH.search(image):
        return "dash"
    repository, _, tag = image.rpartition("/")[2].partition(":")
    official = "/" not in image.removeprefix("docker.io/").removeprefix("library/")
    return "dash" if official and repository in OF_DEBIAN and "$" not in tag else ""


def has_no_entrypoint(image: str) -> bool:
    """Whether an image of that name is known to run a command as it is given."""
    return name_of(image) in WITHOUT_ENTRYPOINT and PUBLISHERS.fullmatch(image) is not None


def _words(made: Instruction, shell: Words) -> Given[Words]:
    """Return the words that an instruction runs: those of the shell before the text of the shell form."""
    if made.array is not None:
        return Given(made.array, made.place)
    if not made.text or made.text.startswith("["):  # an array that is none, such as ['a', 'b'], cannot be run
        return Given((), made.place)
    return Given((*shell, made.text), made.place)
