"""What agent-init does not do yet: each must fail, and is to be removed from here once it holds."""

from __future__ import annotations

# Wrappers behind which an agent does not drain, and why.
WRAPPERS: dict[str, str] = {
    "bash, EXIT trap": "the wrapper ends at TERM, and the agent has only the time to linger",
    "bash, exiting trap": "bash catches TERM and signals nobody",
    "bash, forwarder exits first": "a second TERM, from process 1",
    "ruby system": "the wrapper ends at TERM, and the agent has only the time to linger",
    "node spawn": "the wrapper ends at TERM, and the agent has only the time to linger",
    "node spawnSync": "the wrapper ends at TERM, and the agent has only the time to linger",
    "go os/exec": "the wrapper ends at TERM, and the agent has only the time to linger",
    "su -c": "su ends its child after 2 s of its own",
    "su -c exec": "su ends its child after 2 s of its own",
    "runuser": "su ends its child after 2 s of its own",
    "watch": "the wrapper ends at TERM, and the agent has only the time to linger",
    "strace -f": "ignores TERM, passes nothing on",
    "proot": "ignores TERM, passes nothing on",
    "go-task": "catches TERM, passes nothing on",
    "npx": "the wrapper ends at TERM, and the agent has only the time to linger",
    "npm start": "the wrapper ends at TERM, and the agent has only the time to linger",
    "npm run": "the wrapper ends at TERM, and the agent has only the time to linger",
    "yarn": "the wrapper ends at TERM, and the agent has only the time to linger",
    "pnpm 10": "passes TERM on and exits first",
}

# Trials whose outcome is not right, and what happens instead.
TRIALS: dict[str, str] = {}
