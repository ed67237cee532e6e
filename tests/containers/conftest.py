"""Fixtures: a running engine with the images, and containers that are removed after each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from . import images
from .container import Containers
from .engine import Engine, NotAvailable, available_engine

HERE = Path(__file__).parent
TEST_TIMEOUT = 1800  # seconds, including everything that the first test has to create, on a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


def skip_or_fail(why: str) -> NoReturn:
    """Skip the test because it lacks something; on CI fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine with the images."""
    try:
        with available_engine() as engine:
            images.build_all(engine)
            yield engine
    except NotAvailable as error:
        skip_or_fail(str(error))


@pytest.fixture
def containers(engine: Engine) -> Iterator[Containers]:
    """Runs containers and removes them after the test."""
    with Containers(engine) as made:
        yield made
