"""Wrappers that end at the stop signal, while the agent behind them still works."""

from __future__ import annotations

import json

from tests.field import install
from tests.field.place import PYTHON, Place
from tests.field.running import Build
from tests.field.trial import DRAINED, Right, Trial, drain, drained, script, send, shell
from tests.field.wrappers import PNPM_10, node, node_tool, npx, package_run, pnpm_10, python

SPAWN = (
    "const child = require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'});\n"
    "child.on('exit', code => process.exit(code));"
)
WAIT_N = "ONE & TWO & wait -n; exit $?"
BOTH = {"one": DRAINED, "two": DRAINED}


def _node_fork() -> Build:
    """A module run by `fork`, which runs the agent: two Node programs above it."""

    def build(place: Place) -> list[str]:
        inner = f"require('child_process').spawnSync('{PYTHON}', {json.dumps(place.arguments)}, {{stdio: 'inherit'}});"
        place.file("worker.js", inner)
        return ["node", place.file("main.js", "require('child_process').fork('./worker.js');")]

    return build


def _runsvdir(place: Place) -> list[str]:
    place.file("service/agent/run", f"#!/bin/sh\nexec {place.line}\n", 0o755)
    return ["runsvdir", str(place.folder / "service")]


def _ignores_behind_node(place: Place) -> list[str]:
    run = "require('child_process').spawn(process.argv[1], process.argv.slice(2), {stdio: 'inherit'})"
    return ["node", "-e", run, "--", *place.actor("agent", "ignore('TERM'); log('up'); forever()")]


def _sleeping(build: Build) -> Build:
    """The same with an agent that only a signal wakes: one that polls may seem to have been signalled."""

    def build_with_it(place: Place) -> list[str]:
        place.agent = place.actor("agent", "on('TERM', lambda: leave(0, after=2)); log('up'); forever()")
        return build(place)

    return build_with_it


ENDED = Right("cleaned up", {"agent": ("up", "TERM", "end")}, codes=(0,))
SU = ("su", "-s", "/bin/sh", "nobody", "-c")

TRIALS = [
    Trial("bash with an EXIT trap", "sonic-net/sonic-buildimage#11590",
          script("bash", "trap 'echo cleaning' EXIT\nAGENT"),
          drained(codes=(0, 143), printed={"clean-up": "cleaning"})),
    Trial("bash with an EXIT trap, as an option", "sonic-net/sonic-buildimage#11590",
          shell("bash", "trap 'echo cleaning' EXIT; AGENT"), drained(codes=(0, 143), printed={"clean-up": "cleaning"}),
          variation=True),
    Trial("dash with an EXIT trap", "sonic-net/sonic-buildimage#11590",
          shell("dash", "trap 'echo cleaning' EXIT; AGENT; true"), drained(codes=(0, 143)), variation=True,
          programs=("dash",)),
    Trial("bash, background job and EXIT trap", "sonic-net/sonic-buildimage#11590",
          shell("bash", "trap 'echo cleaning' EXIT; AGENT & wait $!"), drained(codes=(0, 143)), variation=True),
    Trial("bash, trap that exits, background job", "sonic-net/sonic-buildimage#11590",
          shell("bash", "trap 'exit 0' TERM; AGENT & wait $!"), drained(codes=(0,)), variation=True),
    Trial("bash, wait -n", "Docker's documentation, \"Run multiple processes in a container\"",
          script("bash", WAIT_N, ONE=drain(2, "one"), TWO=drain(2, "two")),
          Right("both drained", BOTH, codes=(0, 143)), up=("one", "two")),
    Trial("bash, wait -n, one service ends first", "Docker's documentation, \"Run multiple processes in a container\"",
          script("bash", WAIT_N, ONE=drain(0.3, "one"), TWO=drain(2, "two")),
          Right("both drained", BOTH, codes=(0, 143)), up=("one", "two"), variation=True),
    Trial("bash, two background jobs and wait", "own", script("bash", "ONE & TWO & wait", ONE=drain(1, "one"),
          TWO=drain(2, "two")), Right("both drained", BOTH, codes=(0, 143)), up=("one", "two")),
    Trial("Node, spawn", "sst/opencode#26259",
          node(SPAWN), drained(codes=(0, 143)), programs=("node",)),
    Trial("Node, spawn, STOPSIGNAL SIGINT", "sst/opencode#26259", node(SPAWN),
          drained(codes=(0, 130, 143)), send("INT"), programs=("node",), variation=True),
    Trial("Node, spawn, HUP", "sst/opencode#26259", node(SPAWN), drained(codes=(0, 129, 143)), send("HUP"),
          programs=("node",), variation=True),
    Trial("Node, spawnSync", "kimaki#144",
          node("const run = require('child_process').spawnSync(agent[0], agent.slice(1), {stdio: 'inherit'});\n"
               "process.exit(run.status);"),
          drained(codes=(0, 143)), programs=("node",)),
    Trial("Node, execSync", "kimaki#144",
          node("require('child_process').execSync(agent.join(' '), {stdio: 'inherit'});"),
          drained(codes=(0, 143)), programs=("node",), variation=True),
    Trial("Node, fork", "sst/opencode#26259", _node_fork(), drained(codes=(0, 143)), programs=("node",),
          variation=True),
    Trial("Node, handler that exits", "sst/opencode#26259",
          _sleeping(node("require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'});\n"
                         "process.on('SIGTERM', () => process.exit(0));")),
          ENDED, programs=("node",), variation=True),
    Trial("Python, handler that exits", "sst/opencode#26259",
          _sleeping(python("import signal, subprocess\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
                           "p = subprocess.Popen(agent)\np.wait()")), ENDED, variation=True),
    Trial("Go, os/exec", "own", lambda place: [str(install.go_program()), *place.agent], drained(codes=(0, 143)),
          programs=(str(install.go_program()),)),
    Trial("Ruby, system", "own", lambda place: ["ruby", "-e", "system(*ARGV)", *place.agent], drained(codes=(0, 143)),
          programs=("ruby",)),
    Trial("npm start", "derive#120", package_run("npm", "start"), drained(codes=(0, 143)), programs=("npm",)),
    Trial("npm run", "derive#120", package_run("npm", "run", "--silent", "start"), drained(codes=(0, 143)),
          programs=("npm",), variation=True),
    Trial("npx", "derive#120", npx, drained(codes=(0, 143)), programs=("npx",), variation=True),
    Trial("yarn", "derive#120", package_run(node_tool("yarn"), "start"), drained(codes=(0, 1, 143)),
          programs=(node_tool("yarn"),), variation=True),
    Trial("npm start behind bash", "derive#120",
          package_run("bash", "-c", "npm start; exit $?"), drained(codes=(0, 143)),
          programs=("npm",), variation=True),
    Trial("pnpm 10", "pnpm/pnpm#2653", pnpm_10, drained(codes=(0, 1, 143)), programs=(PNPM_10,)),
    Trial("su -c", "util-linux/util-linux#443",
          lambda place: [*SU, place.line], drained(3, codes=(0, 143)), drain=3, programs=("su",)),
    Trial("su -c, with a command after the agent", "kobotoolbox/kobo-docker#276",
          lambda place: [*SU, f"{place.line}; exit $?"], drained(3, codes=(0, 143)), drain=3, programs=("su",)),
    Trial("su -c, behind bash", "kobotoolbox/kobo-docker#276",
          lambda place: ["bash", "-c", f"su -s /bin/sh nobody -c '{place.line}'; exit $?"],
          drained(3, codes=(0, 143)), drain=3, programs=("su",), variation=True),
    Trial("su - with a login shell", "util-linux/util-linux#443",
          lambda place: ["su", "-", "root", "-c", f"exec {place.line}"], drained(3, codes=(0, 143)), drain=3,
          programs=("su",), variation=True),
    Trial("runuser", "util-linux/util-linux#443",
          lambda place: ["runuser", "-s", "/bin/sh", "nobody", "-c", place.line], drained(3, codes=(0, 143)), drain=3,
          programs=("runuser",), variation=True),
    Trial("runsvdir", "own", _runsvdir, drained(codes=(0,)), programs=("runsvdir",)),
    Trial("an agent that ignores TERM behind Node", "sst/opencode#26259", _ignores_behind_node,
          Right("killed at the deadline, 137", {"agent": ("up",)}, codes=(137,), within=5), options=("-t", "2s"),
          programs=("node",), variation=True),
    Trial("work that is cut behind Node", "sst/opencode#26259",
          node("require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'});"),
          Right("killed at the deadline, 137", {"agent": ("up", "TERM")}, codes=(137,), within=5), drain=9,
          options=("-t", "2s"), programs=("node",), variation=True),
    Trial("work that is cut behind a trap that exits with 0", "own",
          shell("bash", "trap 'exit 0' TERM; AGENT & wait $!"),
          Right("killed at the deadline, 137", {"agent": ("up", "TERM")}, codes=(137,), within=5), drain=9,
          options=("-t", "2s")),
]  # fmt: skip
