"""Calls that fail with an error of the system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tests.support import world

if TYPE_CHECKING:
    from collections.abc import Callable


def failing(real: Callable[..., Any], *numbers: int) -> Callable[..., Any]:
    """Return `real`, failing at first: once with each of these errors."""
    return world.failing(real, *(OSError(number, os.strerror(number)) for number in numbers))


def always(number: int) -> Callable[..., Any]:
    return failing(os.getpid, *[number] * 100)
