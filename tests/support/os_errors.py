"""Calls that fail with an error of the system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def failing(real: Callable[..., Any], *numbers: int) -> Callable[..., Any]:
    """Return `real`, failing at first: once with each of these errors."""
    left = list(numbers)

    def call(*arguments: Any) -> Any:
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    return call


def always(number: int) -> Callable[..., Any]:
    return failing(os.getpid, *[number] * 100)
