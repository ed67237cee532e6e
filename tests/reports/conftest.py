"""Programs that are looked after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from .running import PYTHONS, Program

if TYPE_CHECKING:
    from collections.abc import Iterator


class Run(Protocol):
    """Start Python with `words`; see Program."""

    def __call__(self, *words: str, python: str = ..., stacks: bool = ..., **variables: str) -> Program: ...


@pytest.fixture
def run() -> Iterator[Run]:
    programs: list[Program] = []

    def start(
        *words: str, python: str = PYTHONS[next(iter(PYTHONS))], stacks: bool = True, **variables: str
    ) -> Program:
        programs.append(Program(list(words), python=python, stacks=stacks, **variables))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    """Each version of Python that the machine has."""
    return PYTHONS[request.param]
