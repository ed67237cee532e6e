"""Which signal comes in, and which one the agent can act on."""

from __future__ import annotations

import contextlib
import time

import psutil

from tests.field.place import PYTHON
from tests.field.running import Build, Run
from tests.field.trial import SLACK, Right, Stop, Trial, actor, drained, send, shell
from tests.field.trials.look_through import ASYNCIO
from tests.field.wrappers import tool

SLEEPS = "log('up')\ntry:\n    while True: time.sleep(0.1)\nfinally:\n    time.sleep(0.3)\n    log('cleaned')"
THREADS = (
    "import threading\nthreading.Thread(target=time.sleep, args=(90,), daemon=True).start()\nlog('up')\n"
    "try: threading.Event().wait()\nfinally: log('cleaned')"
)
SWALLOWS = "log('up')\nwhile True:\n    try: time.sleep(90)\n    except KeyboardInterrupt: log('swallowed')"
CATCHES = "log('up')\ntry: time.sleep(90)\nexcept KeyboardInterrupt: time.sleep(0.3); log('cleaned')"
HANDLES_HUP = (
    "stopping = []\non('HUP'); on('TERM', lambda: stopping.append(1))\nlog('up')\n"
    "while not stopping: time.sleep(0.02)\ntime.sleep(1)\nlog('drained')"
)


def _everybody(*words: str, process1_first: bool = False) -> Stop:
    """TERM to the processes whose command lines begin with these words, and to process 1, 10 ms apart."""

    def stop(run: Run) -> None:
        processes = [run.find(word) for word in words]
        if process1_first:
            run.send("TERM")
            time.sleep(0.01)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
                process.terminate()
        if not process1_first:
            time.sleep(0.01)
            run.send("TERM")

    return stop


def _cleaned(name: str, build: Build, *programs: str, code: int = 130, signal: str = "TERM",
             options: tuple[str, ...] = ("-t", "20s"), variation: bool = True) -> Trial:  # fmt: skip
    right = Right("cleaned", {"agent": ("up", "cleaned")}, codes=(code,), within=SLACK)
    return Trial(name, "own", build, right, send(signal), options=options, variation=variation, programs=programs)


def _signal(name: str, *signals: str, source: str = "own", build: Build = lambda place: place.agent, say: str = "",
            variation: bool = True) -> Trial:  # fmt: skip
    """Each signal half a second after the one before; the agent drains once."""
    right = drained(1.5, printed={"line that names the remedy": say} if say else {})
    return Trial(name, source, build, right, send(*signals, after=0.5), drain=1, options=("-t", "20s"),
                 variation=variation)  # fmt: skip


HEROKU = {"DYNO": "web.1"}

TRIALS = [
    _cleaned("asyncio without a handler", actor(ASYNCIO), variation=False),
    _cleaned("asyncio, STOPSIGNAL SIGINT", actor(ASYNCIO), signal="INT", variation=False),
    _cleaned("asyncio behind sh", shell("sh", "CODE; exit $?", CODE=actor(ASYNCIO)), variation=False),
    _cleaned("asyncio behind sh, STOPSIGNAL SIGINT", shell("sh", "CODE; exit $?", CODE=actor(ASYNCIO)), signal="INT"),
    _cleaned("asyncio with --ok-exit 143", actor(ASYNCIO), code=0, options=("-t", "20s", "-e", "143"), variation=False),
    _cleaned("asyncio behind uv run", lambda place: (
        [tool("uv"), "run", "--no-project", "--python", (words := place.actor("agent", ASYNCIO))[0], "python",
         *words[1:]]), tool("uv")),
    _cleaned("asyncio behind tini", lambda place: ["tini", "-s", "--", *place.actor("agent", ASYNCIO)], "tini"),
    Trial("asyncio as a background job of fish, which blocks INT", "own",
          shell("fish", "CODE & wait", CODE=actor(ASYNCIO)),
          Right("over at once", {"agent": ("up",)}, codes=(143,), within=2), programs=("fish",)),
    _cleaned("a loop around sleep", actor(SLEEPS)),
    _cleaned("a program with threads", actor(THREADS)),
    _cleaned("an agent that catches KeyboardInterrupt", actor(CATCHES), code=0),
    Trial("an agent that swallows KeyboardInterrupt", "own", actor(SWALLOWS),
          (Right("ended before the deadline", {"agent": ("up", "swallowed")}, codes=(143,), within=4.5),
           Right("ended at once", {"agent": ("up",)}, codes=(143,), within=SLACK)),
          options=("-t", "4s")),
    Trial("Node without a handler", "own",
          lambda place: ["node", "-e", f"require('fs').appendFileSync({str(place.log)!r}, '"
                         '{"pid": 0, "name": "agent", "event": "up", "t": 0}\\n'
                         "'); setInterval(() => {}, 1000)"],
          Right("over at once", codes=(143,), within=2), programs=("node",)),
    _signal("PWR", "PWR", source="LXC's halt signal", variation=False),
    _signal("PWR behind sh", "PWR", source="LXC's halt signal", build=shell("sh", "AGENT; exit $?")),
    _signal("RTMIN+3, then TERM", "RTMIN+3", "TERM", source="systemd's stop signal, inherited by an image",
            say=r"--stop-on \S*RTMIN\+3", variation=False),
    _signal("RTMIN+4, then TERM", "RTMIN+4", "TERM", source="systemd's stop signal, inherited by an image",
            say=r"--stop-on \S*RTMIN\+4"),
    _signal("HUP", "HUP"),
    _signal("QUIT", "QUIT"),
    _signal("USR1, then TERM", "USR1", "TERM"),
    _signal("TERM twice", "TERM", "TERM"),
    _signal("INT, then TERM", "INT", "TERM"),
    Trial("HUP to an agent that handles it", "own", actor(HANDLES_HUP),
          Right("HUP handled, then drained", {"agent": ("up", "HUP", "TERM", "drained")}, codes=(0,)),
          send("HUP", "TERM", after=0.5)),
    Trial("HUP to an agent that handles it, behind sh", "own", shell("sh", "CODE; exit $?", CODE=actor(HANDLES_HUP)),
          Right("HUP handled, then drained", {"agent": ("up", "HUP", "TERM", "drained")}, codes=(0,)),
          send("HUP", "TERM", after=0.5)),
    Trial("everybody signalled, the agent first", "Heroku's documentation, \"Dynos: shutdown\"",
          lambda place: place.agent, drained(1), _everybody(PYTHON), drain=1, environment=HEROKU),
    Trial("everybody signalled, process 1 first", "Heroku's documentation, \"Dynos: shutdown\"",
          lambda place: place.agent, drained(1), _everybody(PYTHON, process1_first=True), drain=1, environment=HEROKU,
          variation=True),
    Trial("everybody signalled, agent behind bash", "Heroku's documentation, \"Dynos: shutdown\"",
          shell("bash", "AGENT; exit $?"), drained(1, codes=(0, 143)), _everybody("bash", PYTHON), drain=1,
          environment=HEROKU, variation=True),
]  # fmt: skip
