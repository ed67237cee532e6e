"""Programs that catch every signal and pass it on: what they catch says nothing about the agent behind them."""

from __future__ import annotations

from tests.field.place import Place
from tests.field.running import Build
from tests.field.trial import Right, Trial, drained, send, shell
from tests.field.wrappers import PNPM, hatch, node_tool, package_run, project_run, tool, uv

# Handles HUP, as a server that reads its settings again.
RELOADS = (
    "stopping = []\non('HUP'); on('TERM', lambda: stopping.append(1))\nlog('up')\n"
    "while not stopping: time.sleep(0.02)\ntime.sleep(1)\nlog('drained')"
)


def uv_run(words: list[str]) -> list[str]:
    return [tool("uv"), "run", "--no-project", "--python", words[0], "python", *words[1:]]


def _uv_reloads(place: Place) -> list[str]:
    return uv_run(place.actor("agent", RELOADS))


def _npm_reloads(place: Place) -> list[str]:
    import shlex

    place.package_json(shlex.join(place.actor("agent", RELOADS)))
    return ["npm", "start"]


def _stop_request(name: str, signal: str, build: Build, *programs: str, variation: bool = True,
                  codes: tuple[int, ...] = (0,)) -> Trial:  # fmt: skip
    right = drained(1, codes=codes)
    return Trial(
        f"{name}, {signal}", "own", build, right, send(signal), drain=1, programs=programs, variation=variation
    )


def _dropped(name: str, signal: str, build: Build, *programs: str, codes: tuple[int, ...] = (0,)) -> Trial:
    """The signal is dropped, and half a second later a TERM stops the agent as ever."""
    stop = send(signal, "TERM", after=0.5)
    return Trial(f"{name}, {signal}", "own", build, drained(1.5, codes=codes), stop, drain=1, programs=programs,
                 variation=True)  # fmt: skip


def _forwards(name: str, source: str, build: Build, *programs: str) -> Trial:
    right = Right("HUP handled, then drained", {"agent": ("up", "HUP", "TERM", "drained")}, codes=(0,))
    return Trial(name, source, build, right, send("HUP", "TERM", after=0.5), programs=programs, variation=True)


NPM = package_run("npm", "start")
TINI = ("tini", "-s", "--")

TRIALS = [
    _stop_request("uv run", "HUP", uv, tool("uv"), variation=False),
    _stop_request("uv run", "QUIT", uv, tool("uv")),
    _dropped("uv run", "USR1", uv, tool("uv")),
    _dropped("uv run", "USR2", uv, tool("uv")),
    _stop_request("uv run behind sh", "HUP", lambda place: shell("sh", "UV; exit $?", UV=uv)(place), tool("uv")),
    _forwards("uv run, HUP to an agent that handles it", "own", _uv_reloads, tool("uv")),
    _stop_request("npm start", "HUP", NPM, "npm", codes=(0, 143)),
    _dropped("npm start", "USR2", NPM, "npm", codes=(0, 143)),
    _forwards("npm start, HUP to an agent that handles it", "own", _npm_reloads, "npm"),
    _stop_request("pnpm", "HUP", package_run(PNPM, "start"), PNPM, codes=(0, 1, 143)),
    _dropped("pnpm", "USR1", package_run(PNPM, "start"), PNPM, codes=(0, 1, 143)),
    _stop_request("pdm run", "HUP", project_run("pdm"), tool("pdm")),
    _stop_request("poetry run", "HUP", project_run("poetry"), tool("poetry")),
    _stop_request("hatch run", "HUP", hatch, tool("hatch")),
    _stop_request("cross-env", "HUP", lambda place: [node_tool("cross-env"), "A=1", *place.agent],
                  node_tool("cross-env")),
    _stop_request("dotenv-cli", "HUP", lambda place: [
        node_tool("dotenv"), "-e", place.file(".env", "A=1\n"), "--", *place.agent], node_tool("dotenv")),
    _stop_request("concurrently", "HUP", lambda place: [node_tool("concurrently"), place.line],
                  node_tool("concurrently"), codes=(0, 1)),
    _stop_request("tini", "HUP", lambda place: [*TINI, *place.agent], "tini"),
    _dropped("tini", "USR1", lambda place: [*TINI, *place.agent], "tini"),
    _stop_request("dumb-init", "HUP", lambda place: ["dumb-init", "--", *place.agent], "dumb-init"),
    _dropped("dumb-init", "USR1", lambda place: ["dumb-init", "--", *place.agent], "dumb-init"),
    _stop_request("catatonit", "QUIT", lambda place: ["catatonit", "--", *place.agent], "catatonit"),
    _stop_request("mksh", "HUP", shell("mksh", "AGENT; exit $?"), "mksh", codes=(0, 143)),
    _stop_request("sudo", "HUP", lambda place: ["sudo", "-u", "nobody", "--", *place.agent], "sudo"),
    _stop_request("timeout", "HUP", lambda place: ["timeout", "--foreground", "60", *place.agent], "timeout",
                  codes=(0, 124)),
]  # fmt: skip
