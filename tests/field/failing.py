"""What agent-init does not do yet: each must fail, and is to be removed from here once it holds."""

from __future__ import annotations

LINGER = "the wrapper has ended, and what is behind it has only the time to linger"
CODE = "a process that was killed below a wrapper does not change the exit code"
SECOND = "process 1 signals again what the wrapper has signalled"
HOME = "the interpreter of process 1 does not start"

# Wrappers behind which an agent does not drain, and why.
WRAPPERS: dict[str, str] = {}

# Trials whose outcome is not right, and why.
TRIALS: dict[str, str] = {
    "stop_signal: everybody signalled, agent behind bash": LINGER,
    "exits_first: Node, handler that exits": LINGER,
    "exits_first: Python, handler that exits": LINGER,
    "exits_first: an agent that ignores TERM behind Node": CODE,
    "forwards: Node, forwards and exits": LINGER,
    "forwards: Node, forwards to a detached group and exits": SECOND,
    "stays: clean-up in a trap": LINGER,
    "around: PYTHONHOME of another Python": HOME,
    "around: PYTHONHOME of another Python, behind env --block-signal": HOME,
}
