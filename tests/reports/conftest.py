"""Fixtures: Python programs that are ended after the test, and every Python version of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from .running import PYTHONS, Program

if TYPE_CHECKING:
    from collections.abc import Iterator


class Run(Protocol):
    """Run Python with `arguments`; see Program."""

    def __call__(self, *arguments: str, python: str = ..., stacks: bool = ..., **variables: str) -> Program: ...


@pytest.fixture
def run() -> Iterator[Run]:
    programs: list[Program] = []

    def start(
        *arguments: str, python: str = PYTHONS[next(iter(PYTHONS))], stacks: bool = True, **variables: str
    ) -> Program:
        programs.append(Program(list(arguments), python=python, stacks=stacks, **variables))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    """Return the interpreter of each Python version on this machine, one per test."""
    return PYTHONS[request.param]
