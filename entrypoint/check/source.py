"""What each part of the package uses: a place in a file, and the error for a file that cannot be read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Given(Generic[T]):
    """A value, and where it was written."""

    value: T
    place: Place


class Unreadable(Exception):
    """A file cannot be read. The message is one line that names the file and, where there is one, the line."""

    def __init__(self, place: Place, problem: str) -> None:
        text = " ".join(problem.split())
        super().__init__(f"{place}: {text}" if place.line else f"{place.file}: {text}")
        self.place = place


def number(text: str) -> float | None:
    """Return the finite number that a text is; None if it is none."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
