"""Wrappers that pass the stop signal on and end before the agent does: it must not get it again."""

from __future__ import annotations

from tests.field.running import Build
from tests.field.trial import DRAINED, Right, Trial, actor, drain, drained, script, send, shell
from tests.field.wrappers import PNPM, node, package_run, python, supervisord

FORWARDER = "set -e; AGENT & c=$!; trap 'kill -TERM $c' TERM; wait $c"
# Handles INT, and would lose its work at a TERM after it.
TAKES_INT = (
    "stopping = []\non('INT', lambda: stopping.append(1))\non('TERM', lambda: (log('work lost'), os._exit(1)))\n"
    "log('up')\nwhile not stopping: time.sleep(0.02)\ntime.sleep(2)\nlog('drained')"
)
DAEMON = (
    "orphan('daemon', \"on('TERM', lambda: leave(0, after=0.3)); log('up'); forever()\")\n"
    "on('TERM', lambda: leave(0)); log('up'); forever()"
)


def _forwarder(name: str, source: str, build: Build, *programs: str, variation: bool = True,
               codes: tuple[int, ...] = (0, 1, 143)) -> Trial:  # fmt: skip
    return Trial(name, source, build, drained(codes=codes), programs=programs, variation=variation)


TRIALS = [
    _forwarder("bash, set -e", "felddy/foundryvtt-docker#1523", shell("bash", FORWARDER), variation=False),
    _forwarder("bash, set -e, as a script", "browserless/browserless#2353", script("bash", FORWARDER), variation=False),
    _forwarder("dash, set -e", "felddy/foundryvtt-docker#1523", shell("dash", FORWARDER), "dash"),
    _forwarder("ksh, set -e", "felddy/foundryvtt-docker#1523", shell("ksh", FORWARDER), "ksh"),
    _forwarder("zsh, set -e", "felddy/foundryvtt-docker#1523", shell("zsh", FORWARDER), "zsh"),
    _forwarder("busybox sh, set -e", "felddy/foundryvtt-docker#1523",
               lambda place: ["busybox", "sh", "-c", FORWARDER.replace("AGENT", place.line)], "busybox"),
    _forwarder("mksh, set -e", "felddy/foundryvtt-docker#1523", shell("mksh", FORWARDER), "mksh"),
    _forwarder("mksh, background job and wait", "own", shell("mksh", "AGENT & wait"), "mksh"),
    _forwarder("yash, set -e", "felddy/foundryvtt-docker#1523", shell("yash", FORWARDER), "yash"),
    _forwarder("bash, forwards and exits", "felddy/foundryvtt-docker#1523",
               shell("bash", "AGENT & c=$!; trap 'kill -TERM $c; exit 0' TERM; wait $c"), codes=(0,)),
    _forwarder("bash, forwards 0.3 s later and exits", "felddy/foundryvtt-docker#1523",
               shell("bash", "AGENT & c=$!; trap 'sleep 0.3; kill -TERM $c; exit 0' TERM; wait $c"), codes=(0,)),
    _forwarder("bash, forwards and waits only once", "browserless/browserless#2353",
               shell("bash", "AGENT & c=$!; trap 'kill -TERM $c' TERM; wait $c")),
    _forwarder("bash, forwards and waits as it should", "own",
               shell("bash", "AGENT & c=$!; trap 'kill -TERM $c' TERM; wait $c; wait $c"), variation=False),
    _forwarder("bash, signals its whole group", "browserless/browserless#2353",
               shell("bash", "trap 'trap - TERM && kill -- -$$' TERM; AGENT & wait")),
    _forwarder("bash, signals its whole group, as a script", "browserless/browserless#2353",
               script("bash", "trap 'trap - TERM; kill 0; wait' TERM\nAGENT &\nwait")),
    _forwarder("bash, signals its jobs", "browserless/browserless#2353",
               shell("bash", "trap 'kill $(jobs -p); exit 0' TERM; AGENT & wait")),
    _forwarder("bash, pkill -P", "browserless/browserless#2353",
               shell("bash", "trap 'pkill -TERM -P $$; exit 0' TERM; AGENT & wait"), "pkill"),
    Trial("bash, forwards to two agents and exits", "felddy/foundryvtt-docker#1523",
          shell("bash", "ONE & a=$!; TWO & b=$!; trap 'kill $a $b; exit 0' TERM; wait", ONE=drain(1, "one"),
                TWO=drain(2, "two")),
          Right("both drained", {"one": DRAINED, "two": DRAINED}, codes=(0,)), up=("one", "two"), variation=True),
    Trial("bash, forwards INT and exits", "browserless/browserless#2353",
          shell("bash", "TAKES_INT & c=$!; trap 'kill -INT $c; exit 0' TERM; wait $c", TAKES_INT=actor(TAKES_INT)),
          Right("drained, by the wrapper's INT alone", {"agent": ("up", "INT", "drained")}, codes=(0,)),
          variation=True),
    Trial("bash, forwards and exits, STOPSIGNAL SIGINT", "felddy/foundryvtt-docker#1523",
          shell("bash", "AGENT & c=$!; trap 'kill -TERM $c; exit 0' TERM INT; wait $c"), drained(codes=(0,)),
          send("INT"), variation=True),
    _forwarder("Node, forwards and exits", "browserless/browserless#2353", node(
        "const child = require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'});\n"
        "process.on('SIGTERM', () => { child.kill('SIGTERM'); process.exit(0); });"), "node", codes=(0,)),
    _forwarder("Node, forwards to a detached group and exits", "browserless/browserless#2353", node(
        "const child = require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit', detached: true});\n"
        "process.on('SIGTERM', () => { process.kill(-child.pid, 'SIGTERM'); process.exit(0); });"), "node", codes=(0,)),
    _forwarder("Python, forwards and exits", "browserless/browserless#2353", python(
        "import signal, subprocess\np = subprocess.Popen(agent)\n"
        "signal.signal(signal.SIGTERM, lambda *_: (p.terminate(), sys.exit(0)))\np.wait()"), codes=(0,)),
    _forwarder("pnpm", "pnpm/pnpm#2653", package_run(PNPM, "start"), PNPM, variation=False),
    _forwarder("supervisord", "own", supervisord, "supervisord", variation=False),
    _forwarder("Node, forwards and waits", "own", node(
        "const child = require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'});\n"
        "process.on('SIGTERM', () => child.kill('SIGTERM'));\nchild.on('exit', code => process.exit(code));"), "node",
        variation=False, codes=(0,)),
    Trial("a daemon that an agent leaves behind", "own", actor(DAEMON),
          Right("daemon gets TERM at once", {"agent": ("up", "TERM", "end"), "daemon": ("up", "TERM", "end")},
                codes=(0,), within=3, at_most={("daemon", "TERM"): 1}), up=("agent", "daemon")),
    Trial("a daemon that a forwarder leaves behind", "own",
          shell("bash", "(setsid DAEMON &); AGENT & c=$!; trap 'kill -TERM $c; exit 0' TERM; wait $c",
                DAEMON=drain(0.3, "daemon")),
          drained(codes=(0,), also="as is the daemon", events={"daemon": DRAINED}), up=("agent", "daemon")),
]  # fmt: skip
