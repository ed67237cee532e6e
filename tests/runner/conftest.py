"""Run as `pytest tests/runner`. The first run needs PyPI if the machine has more than one Python."""

from __future__ import annotations

import pytest

from .pythons import found, with_uvloop

FOUND = found()


@pytest.fixture(scope="session", params=list(FOUND.values()), ids=list(FOUND))
def python(request: pytest.FixtureRequest) -> str:
    """Each interpreter in turn, with uvloop."""
    return with_uvloop(request.param)
