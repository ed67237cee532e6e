"""What agents do by themselves: start a successor, look at their parent, kill their own group, leave processes."""

from __future__ import annotations

from tests.field.place import PYTHON, Place
from tests.field.running import Build, Run
from tests.field.trial import SLACK, Right, Trial, actor, nothing, shell

# A line of process 1's that names the pattern and what helps.
SUCCESSOR = {"line about the successor": r"(?i)agent-init: .*(restart|replac|success|background|detach|daemon).*"}
REMEDY = {"remedy": r"(?i)agent-init: .*(MAINPID|exec|foreground)"}
PARENT = {"hint in the last line": r"(?i)agent-init: ended: .*(parent|getppid|pid 1|process 1)"}
RESTART = """
import os, subprocess, sys, time
if "AGAIN" in os.environ:
    time.sleep(60)
{wait}
subprocess.Popen([sys.executable, *sys.argv], env={{**os.environ, "AGAIN": "1"}}, start_new_session=True)
sys.exit(0)
"""
DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
time.sleep(60)
"""
PARENT_IS_1 = "import os, sys\nif os.getppid() == 1: sys.exit(0)\nimport time; time.sleep(60)"
WATCHES = """
import os, threading, time
def watch():
    while os.getppid() != 1: time.sleep(0.1)
    time.sleep(0.3); os._exit(0)
threading.Thread(target=watch, daemon=True).start()
time.sleep(60)
"""
TOOL = "log('up'); time.sleep(1); log('end')"
POOL = (
    "worker = child('worker', {worker!r})\non('TERM', lambda: (os.waitpid(worker, 0), log('drained'), os._exit(0)))\n"
    "log('up'); forever()"
)
# It works until its parent's end is near: no handler, so a TERM would end it at work.
WORKER = "log('up'); time.sleep(2.5); log('end')"


def _file(code: str) -> Build:
    return lambda place: [PYTHON, place.file("agent.py", code)]


def _successor(name: str, source: str, build: Build, *, variation: bool = True) -> Trial:
    right = Right("0, and a line that names it", codes=(0,), within=SLACK + 1, printed={**SUCCESSOR, **REMEDY})
    return Trial(name, source, build, right, nothing, up=(), variation=variation)


def _parent(name: str, source: str, build: Build, *, variation: bool = True) -> Trial:
    right = Right("0, and a hint", codes=(0,), within=SLACK, printed=PARENT)
    return Trial(name, source, build, right, nothing, up=(), variation=variation)


def _kills(name: str, line: str, *, variation: bool = True, build: Build | None = None) -> Trial:
    who = {"line that says who did it": "agent-init: ended: .*(neither by|did not send).*exit code 137"}
    right = Right("137, and who did it", codes=(137,), within=SLACK, printed=who)
    return Trial(name, "anthropics/claude-code#16135", build or actor(f"log('up'); {line}"), right, nothing,
                 variation=variation, up=())  # fmt: skip


def _user_signal_first(run: Run) -> None:
    run.send("USR1")
    run.wait_until(lambda: "USR1" in run.events("member"), 1)
    run.send("TERM")


def _behind_node(place: Place) -> list[str]:
    code = POOL.format(worker=WORKER)
    words = place.actor("agent", code)
    run = "require('child_process').spawn(process.argv[1], process.argv.slice(2), {stdio: 'inherit'})"
    return ["node", "-e", run, "--", *words]


TRIALS = [
    _successor("an agent that restarts itself", "openclaw/openclaw#73178", _file(RESTART.format(wait="")),
               variation=False),
    _successor("an agent that restarts itself after 1.5 s", "NousResearch/hermes-agent#25217",
               _file(RESTART.format(wait="time.sleep(1.5)")), variation=False),
    _successor("an agent that goes into the background", "openclaw/openclaw#73178", _file(DAEMON)),
    _parent("an agent that exits when its parent is pid 1", "topoteretes/cognee#2830", _file(PARENT_IS_1),
            variation=False),
    _parent("an agent that watches its parent", "codebase-memory-mcp#406", _file(WATCHES), variation=False),
    _kills("an agent that kills its group", "time.sleep(0.3); os.killpg(0, 9)", variation=False),
    _kills("an agent that kills its group, behind sh", "", build=shell("sh", "CODE; exit $?", CODE=actor(
        "log('up'); time.sleep(0.3); os.killpg(0, 9)"))),
    Trial("a tool that is started during the drain", "own",
          actor(f"import subprocess\non('TERM', lambda: (child('tool', {TOOL!r}), os.wait(), leave(0)))\n"
                "log('up'); forever()"),
          Right("tool finished", {"agent": ("up", "TERM", "end"), "tool": ("up", "end")}, codes=(0,))),
    Trial("a tool that is started during the drain, behind sh", "own",
          shell("sh", "CODE; exit $?", CODE=actor(
              f"on('TERM', lambda: (child('tool', {TOOL!r}), os.wait(), leave(0)))\nlog('up'); forever()")),
          Right("tool finished", {"agent": ("up", "TERM", "end"), "tool": ("up", "end")}, codes=(0,)), variation=True),
    Trial("a pool's worker, its parent behind Node", "own", _behind_node,
          Right("worker finished", {"agent": ("up", "TERM", "drained"), "worker": ("up", "end")}, codes=(0, 143)),
          up=("agent", "worker"), programs=("node",)),
    Trial("a pool's worker, its parent left behind", "own",
          actor(f"orphan('pool', {POOL.format(worker=WORKER)!r}); on('TERM', lambda: leave(0)); log('up'); forever()"),
          Right("worker finished", {"pool": ("up", "TERM", "drained"), "worker": ("up", "end")}, codes=(0,)),
          up=("agent", "pool", "worker"), options=("-t", "20s", "--linger", "4s")),
    Trial("a leftover that ignores TERM", "own",
          actor("orphan('daemon', \"ignore('TERM'); log('up'); forever()\"); on('TERM', lambda: leave(3))\n"
                "log('up'); forever()"),
          Right("killed after the time to linger, the agent's code", {"agent": ("up", "TERM", "end")}, codes=(3,),
                within=1 + SLACK), up=("agent", "daemon")),
    Trial("-g, a signal that another process of the group handles", "own",
          actor("child('member', \"on('USR1'); log('up'); forever()\"); log('up'); forever()"),
          Right("delivered", {"member": ("up", "USR1")}),
          stop=_user_signal_first,
          up=("agent", "member"), options=("-g", "-t", "20s")),
]  # fmt: skip
