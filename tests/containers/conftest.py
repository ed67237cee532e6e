"""Fixtures: an engine that runs, images on it, and containers that are gone after each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from . import images
from .container import Containers
from .engine import Engine, NoEngine, any_engine

HERE = Path(__file__).parent
LONGEST = 1800  # seconds for a test with all that has to be made for the first one, on a machine with much else to do


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(LONGEST))


def without(why: str) -> NoReturn:
    """Something that these tests run on is not there: a skip for a person, a failure on CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine with the images on it."""
    try:
        with any_engine() as engine:
            images.build_all(engine)
            yield engine
    except NoEngine as error:
        without(str(error))


@pytest.fixture
def containers(engine: Engine) -> Iterator[Containers]:
    """Runs containers, and removes them after the test."""
    with Containers(engine) as made:
        yield made
