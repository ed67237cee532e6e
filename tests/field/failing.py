"""What agent-init does not do yet: each must fail, and is to be removed from here once it holds."""

from __future__ import annotations

# Wrappers behind which an agent does not drain, and why.
WRAPPERS: dict[str, str] = {}

# Trials whose outcome is not right, and why.
TRIALS: dict[str, str] = {}
