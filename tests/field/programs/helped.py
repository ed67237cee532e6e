"""An agent with a helper: `helped.py KIND HELPER`. It has no handler for TERM.

KIND is how the agent works: `asyncio`, `uvloop` or `sync` (a loop around `time.sleep`). HELPER is what it starts and
does not wait for. `ready` and `cleaned` (its `finally` ran to the end) are appended to the file `$EVENTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from typing import Any

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL

# Reads requests from stdin, as an MCP server over stdio does. Node handles TERM and INT from birth.
MCP_SERVER = ["node", "-e", "process.stdin.resume(); setInterval(() => {}, 1000); console.log('{}')"]
# Writes raw audio to stdout, and ends gracefully at TERM and INT, as ffmpeg does.
TRANSCODER = ["node", "-e", (
    "for (const name of ['SIGTERM', 'SIGINT']) process.on(name, () => process.exit(255));"
    "process.stdout.write('x'); setInterval(() => process.stdout.write(Buffer.alloc(640)), 20)"
)]  # fmt: skip
# Handles TERM and INT, and never ends because of them.
STUBBORN = ["node", "-e", (
    "for (const name of ['SIGTERM', 'SIGINT']) process.on(name, () => {});"
    "require('fs').writeFileSync(process.argv[1], ''); setInterval(() => {}, 1000)"
)]  # fmt: skip

# The command, and where its stdin and stdout lead; None: where the agent's own lead.
HELPERS: dict[str, tuple[list[str], int | None, int | None]] = {
    "mcp server": (MCP_SERVER, PIPE, PIPE),
    "mcp server behind a shell": (["sh", "-c", f'{MCP_SERVER[0]} -e "$0"; exit $?', MCP_SERVER[2]], PIPE, PIPE),
    "transcoder": (TRANSCODER, DEVNULL, PIPE),
    "transcoder, stdin inherited": (TRANSCODER, None, PIPE),
    "redis": (["redis-server", "--port", "0", "--unixsocket", "redis.socket", "--save", ""], DEVNULL, DEVNULL),
    "redis, inherited": (["redis-server", "--port", "0", "--unixsocket", "redis.socket", "--save", ""], None, None),
    "xvfb": (["Xvfb", os.environ.get("FIELD_DISPLAY", ":99"), "-nolisten", "tcp"], DEVNULL, DEVNULL),
    "xvfb, inherited": (["Xvfb", os.environ.get("FIELD_DISPLAY", ":99"), "-nolisten", "tcp"], None, None),
    "stubborn": ([*STUBBORN, "stubborn.ready"], None, None),
}


def log(event: str) -> None:
    record = {"pid": os.getpid(), "name": "agent", "event": event, "t": time.monotonic()}
    with open(os.environ["EVENTS"], "ab", buffering=0) as file:
        file.write(json.dumps(record).encode() + b"\n")


def up(name: str) -> bool:
    """Whether a helper without a pipe to us is up: by then it has its signal handlers."""
    if name.startswith("redis"):
        return os.path.exists("redis.socket")
    if name.startswith("xvfb"):
        display = os.environ["FIELD_DISPLAY"].removeprefix(":")
        return os.path.exists(f"/tmp/.X11-unix/X{display}")
    return os.path.exists("stubborn.ready")


async def start(name: str) -> object:
    """Start the helper and wait until it is up. The result must be kept."""
    if name == "playwright":
        playwright = importlib.import_module("playwright.async_api")  # another environment has it
        return await playwright.async_playwright().start()
    command, stdin, stdout = HELPERS[name]
    helper = await asyncio.create_subprocess_exec(*command, stdin=stdin, stdout=stdout)
    if helper.stdout is not None:
        await helper.stdout.read(1)
    else:
        while not up(name):
            await asyncio.sleep(0.02)
    return helper


async def drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(4096):
        pass


async def work(name: str) -> None:
    helper: Any = await start(name)
    reading = asyncio.create_task(drain(helper.stdout)) if getattr(helper, "stdout", None) else None
    log("ready")
    log("up")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.3)
        log("cleaned")
        if reading:
            reading.cancel()


def work_sync(name: str) -> None:
    helper: Any
    if name == "playwright":
        helper = importlib.import_module("playwright.sync_api").sync_playwright().start()
    else:
        command, stdin, stdout = HELPERS[name]
        helper = subprocess.Popen(command, stdin=stdin, stdout=stdout)
        if helper.stdout is not None:
            helper.stdout.read(1)
            os.set_blocking(helper.stdout.fileno(), False)
        else:
            while not up(name):
                time.sleep(0.02)
    log("ready")
    log("up")
    try:
        while True:
            time.sleep(0.1)
            if getattr(helper, "stdout", None) is not None:
                with contextlib.suppress(BlockingIOError):
                    os.read(helper.stdout.fileno(), 65536)
    finally:
        time.sleep(0.3)
        log("cleaned")


def main() -> None:
    kind, name = sys.argv[1:]
    if kind == "sync":
        work_sync(name)
    elif kind == "uvloop":
        import uvloop

        uvloop.run(work(name))
    else:
        asyncio.run(work(name))


if __name__ == "__main__":
    main()
