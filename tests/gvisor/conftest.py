"""agent-init as process 1 of a gVisor sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.init import AGENT_INIT

from .sandbox import NotAvailable, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Sandboxed(Protocol):
    """Start agent-init, or another `init`, in a sandbox, with these options, and `--` and a command."""

    def __call__(self, *arguments: str, init: str = "", **variables: str) -> Sandbox: ...


@pytest.fixture(scope="session")
def runsc(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make sure that a sandbox can be started here."""
    try:
        probe = Sandbox(tmp_path_factory.mktemp("probe"), "/bin/true")
    except NotAvailable as error:
        pytest.skip(str(error))
    code = probe.wait()
    probe.close()
    if code != 0:
        pytest.skip(f"runsc cannot start a sandbox: {probe.lines}")


@pytest.fixture
def sandboxed(runsc: None, tmp_path: Path) -> Iterator[Sandboxed]:
    started: list[Sandbox] = []

    def start(*arguments: str, init: str = "", **variables: str) -> Sandbox:
        started.append(Sandbox(tmp_path, init or str(AGENT_INIT), *arguments, **variables))
        return started[-1]

    yield start
    for sandbox in started:
        sandbox.close()
