"""What agent-init does not do yet: each must fail, and is to be removed from here once it holds."""

from __future__ import annotations

HOME = "the interpreter of process 1 does not start"

# Wrappers behind which an agent does not drain, and why.
WRAPPERS: dict[str, str] = {}

# Trials whose outcome is not right, and why.
TRIALS: dict[str, str] = {
    "around: PYTHONHOME of another Python": HOME,
    "around: PYTHONHOME of another Python, behind env --block-signal": HOME,
}
