"""What became of a call, told by its records: those of the caller and those of the agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

DEAD_AIR = 15.0  # seconds; between two answers there are 2.6, up to 13 on a busy machine; after a SIGKILL 20


@dataclass(frozen=True)
class Outcome:
    """`begun`: the caller has heard the agent. `cut`: it talked on and heard nothing for `silence` seconds at the end.

    `left`: the agent has left the room before the caller. `saved`: the shutdown callback was run to its end, once.
    """

    begun: bool
    cut: bool
    left: bool
    saved: bool
    silence: float


def of(caller: Sequence[dict[str, Any]], agent: Sequence[dict[str, Any]]) -> Outcome:
    """Return the outcome of a call that the caller has ended, or has found ended."""
    heard = [record["at"] for record in caller if record["event"] == "heard"]
    (ended,) = (record for record in caller if record["event"] == "hung up")
    silence = ended["at"] - heard[-1] if heard else 0.0
    return Outcome(
        begun=bool(heard),
        cut=silence > DEAD_AIR,
        left=ended["by"] == "agent",
        saved=[record["event"] for record in agent].count("saved") == 1,
        silence=silence,
    )
