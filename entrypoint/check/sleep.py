"""How long a command sleeps, such as that of a preStop hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import shell
from .source import number

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
AT_ONCE = frozenset("echo printf true : date".split())  # they take no time, and do not fail


def slept(words: Sequence[str]) -> tuple[float, bool]:
    """Return how many seconds a command sleeps at least, and whether it does nothing else that takes time."""
    commands = _commands(words)
    seconds, is_all, last = 0.0, bool(commands), ""
    for made in commands:
        last = made.after
        if made.after in ("&", "|", "|&"):  # nothing waits for it
            is_all = False
            continue
        if made.name == "sleep":
            found = _seconds(made.argv[1:])
            seconds += found or 0.0
            is_all = is_all and found is not None
        elif made.name not in AT_ONCE:
            is_all = False
        may_fail = made.name != "sleep" and made.name not in AT_ONCE
        if made.name == "exit" or made.is_exec or made.after == "||" or (made.after == "&&" and may_fail):
            break  # whether the next command runs is not known
    return seconds, is_all and last != "||"


def _commands(words: Sequence[str]) -> list[shell.Command]:
    """Return the commands of a shell's line, or the one that is run without a shell; none if they are not known."""
    if words and words[0].rpartition("/")[2] in shell.SHELLS:
        behind = [index for index, word in enumerate(words[1:-1], 1) if word[:1] == "-" and word.endswith("c")]
        made = shell.split(words[behind[0] + 1]) if behind else None
        if not made or any(one.after in ("(", ")", ";;") or one.is_compound for one in made):
            return []
        return made
    return [shell.Command(list(words))] if words else []


def _seconds(arguments: Sequence[str]) -> float | None:
    found = 0.0
    for text in arguments:
        unit = UNITS.get(text[-1:])
        value = number(text[:-1] if unit else text)
        if value is None or value < 0:
            return None
        found += value * (unit or 1.0)
    return found
