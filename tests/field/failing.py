"""What agent-init does not do yet: each must fail, and is to be removed from here once it holds."""

from __future__ import annotations

LINGER = "the wrapper has ended, and what is behind it has only the time to linger"
CODE = "a process that was killed below a wrapper does not change the exit code"
SECOND = "process 1 signals again what the wrapper has signalled"
CAUGHT = "the wrapper catches or ignores the signal, and nobody signals the agent"
RELAY = "what a relay catches is taken for what the agent handles"
PASSED = "the relay gets TERM and passes it on to a program that prefers INT"
SPEAKS = "a helper may speak for the agent"
EVERYBODY = "the agent gets TERM from the platform and from process 1"
LEFTOVERS = "all leftover processes are signalled, not the topmost ones that handle the signal"
INJECTED = "children of injected code are waited for"
HOME = "the interpreter of process 1 does not start"
NO_DEADLINE = "no deadline, although no platform is going to end the container"

# Wrappers behind which an agent does not drain, and why.
WRAPPERS: dict[str, str] = {
    "bash, exiting trap": CAUGHT,
    "su -c": "su ends its child after 2 s of its own",
    "su -c exec": "su ends its child after 2 s of its own",
    "runuser": "su ends its child after 2 s of its own",
    "watch": LINGER,
    "strace -f": CAUGHT,
    "proot": CAUGHT,
    "go-task": CAUGHT,
}

# Trials whose outcome is not right, and why.
TRIALS: dict[str, str] = {
    "stop_signal: asyncio behind uv run": PASSED,
    "stop_signal: asyncio behind tini": PASSED,
    "stop_signal: everybody signalled, the agent first": EVERYBODY,
    "stop_signal: everybody signalled, process 1 first": EVERYBODY,
    "stop_signal: everybody signalled, agent behind bash": LINGER,
    "look_through: bash, exiting trap": CAUGHT,
    "look_through: bash, exiting trap, as a script": CAUGHT,
    "look_through: bash, trap that cleans up": CAUGHT,
    "look_through: bash, trap that does nothing": CAUGHT,
    "look_through: bash, trap for TERM and EXIT": CAUGHT,
    "look_through: bash, exiting trap, pipeline in the foreground": CAUGHT,
    "look_through: bash, exiting trap, subshell": CAUGHT,
    "look_through: bash, exiting trap, a function": CAUGHT,
    "look_through: bash, exiting trap, behind sh": CAUGHT,
    "look_through: bash, a helper in the background, exiting trap": CAUGHT,
    "look_through: bash, exiting trap, STOPSIGNAL SIGINT": CAUGHT,
    "look_through: dash, exiting trap": CAUGHT,
    "look_through: ksh, exiting trap": CAUGHT,
    "look_through: zsh, exiting trap": CAUGHT,
    "look_through: busybox sh, exiting trap": CAUGHT,
    "look_through: sh that ignores TERM": CAUGHT,
    "look_through: bash, exiting trap, asyncio without a handler": CAUGHT,
    "look_through: bash, exiting trap, two agents one after the other": CAUGHT,
    "look_through: go-task": CAUGHT,
    "look_through: strace -f": CAUGHT,
    "look_through: proot": CAUGHT,
    "relays: uv run, HUP": RELAY,
    "relays: uv run, QUIT": RELAY,
    "relays: uv run, USR1": RELAY,
    "relays: uv run, USR2": RELAY,
    "relays: uv run behind sh, HUP": RELAY,
    "relays: npm start, HUP": RELAY,
    "relays: npm start, USR2": RELAY,
    "relays: npm start, HUP to an agent that handles it": RELAY,
    "relays: pnpm, HUP": RELAY,
    "relays: cross-env, HUP": RELAY,
    "relays: dotenv-cli, HUP": RELAY,
    "relays: concurrently, HUP": RELAY,
    "relays: tini, HUP": RELAY,
    "relays: tini, USR1": RELAY,
    "relays: dumb-init, HUP": RELAY,
    "relays: dumb-init, USR1": RELAY,
    "relays: catatonit, QUIT": RELAY,
    "relays: sudo, HUP": RELAY,
    "relays: timeout, HUP": RELAY,
    "helpers: asyncio with an MCP server, behind uv run": PASSED,
    "helpers: asyncio with an MCP server, behind an exiting trap": CAUGHT,
    "notify: a helper's MAINPID": SPEAKS,
    "notify: MAINPID of a helper that handles TERM": SPEAKS,
    "notify: a helper's MAINPID, agent behind sh": SPEAKS,
    "notify: a helper's READY=1": SPEAKS,
    "notify: a helper's READY=1, agent behind sh": SPEAKS,
    "sandboxes: unshare --pid --fork": CAUGHT,
    "around: sitecustomize that starts a process, behind env --block-signal": INJECTED,
    "around: sitecustomize that starts a session of its own": INJECTED,
    "around: PYTHONHOME of another Python": HOME,
    "around: PYTHONHOME of another Python, behind env --block-signal": HOME,
    "around: a stop from inside, on Railway": NO_DEADLINE,
    "around: a stop by a child, on Railway": NO_DEADLINE,
    "around: a stop from inside, on Nomad": NO_DEADLINE,
    "agents: an agent that restarts itself": "no line names the pattern",
    "agents: an agent that restarts itself after 1.5 s": "no line names the pattern",
    "agents: an agent that goes into the background": "no line names the pattern",
    "agents: an agent that exits when its parent is pid 1": "no hint",
    "agents: an agent that watches its parent": "no hint",
    "agents: -g, a signal that another process of the group handles": "dropped: only the agent's own handlers count",
}
