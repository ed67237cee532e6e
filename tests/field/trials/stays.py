"""Wrappers that stay when the agent behind them has ended: programs that stay, and loops that start it again."""

from __future__ import annotations

from tests.field.place import Place
from tests.field.running import Run
from tests.field.trial import DRAINED, SLACK, Right, Trial, actor, drain, drained, script, send, shell
from tests.field.wrappers import python

KEEP_ALIVE = "anthropics/anthropic-quickstarts, computer-use-demo's entrypoint"
LOOP = "infiniflow/ragflow, entrypoint.sh"
UPLOAD = actor("log('up'); time.sleep(1.5); log('end')", "upload")
STOPPED_AT_START = ("up",), ("up", "TERM")
LOOPS = "while true; do ONE; sleep 1; done & while true; do TWO; sleep 1; done & wait"


def _before_the_exec(run: Run) -> None:
    """A stop while the shell still sleeps."""
    run.send("TERM")


def _stays(name: str, source: str, text: str, *programs: str, shell_name: str = "bash", variation: bool = True,
           codes: tuple[int, ...] = (0, 143)) -> Trial:  # fmt: skip
    build = shell(shell_name, text)
    return Trial(name, source, build, drained(1, codes=codes), drain=1, programs=programs, variation=variation)


def _busybox_loop(place: Place) -> list[str]:
    return ["busybox", "sh", "-c", f"while true; do {place.line}; sleep 1; done"]


TRIALS = [
    _stays("tail -f /dev/null", KEEP_ALIVE, "AGENT & tail -f /dev/null", variation=False),
    _stays("sleep infinity", "google/moodle-on-gcp#24", "AGENT & sleep infinity", variation=False),
    _stays("exec tail -f /dev/null", KEEP_ALIVE, "AGENT & exec tail -f /dev/null"),
    _stays("tail -f of a log", KEEP_ALIVE, "AGENT > log & tail -F log"),
    _stays("tail -f /dev/null, dash", KEEP_ALIVE, "AGENT & tail -f /dev/null", "dash", shell_name="dash"),
    _stays("loop around sleep", KEEP_ALIVE, "AGENT & while true; do sleep 5; done"),
    _stays("wait for another process", KEEP_ALIVE, "sleep 60 & other=$!; AGENT & wait $other"),
    Trial("two services and tail -f /dev/null", KEEP_ALIVE,
          shell("bash", "ONE & TWO & tail -f /dev/null", ONE=drain(1, "one"), TWO=drain(2, "two")),
          Right("both drained", {"one": DRAINED, "two": DRAINED}, codes=(0, 143)), up=("one", "two"), variation=True),
    _stays("restart loop", LOOP, "while true; do AGENT; sleep 1; done", variation=False),
    _stays("restart loop, as a script", "OpenHands/OpenHands#16677", "until AGENT && false; do sleep 1; done",
           variation=False),
    _stays("restart loop that reports", LOOP, "while :; do AGENT || true; echo again; sleep 1; done"),
    _stays("restart loop, dash", LOOP, "while true; do AGENT; sleep 1; done", "dash", shell_name="dash"),
    _stays("restart loop, yash", LOOP, "while true; do AGENT; sleep 1; done", "yash", shell_name="yash"),
    Trial("restart loop, busybox sh", LOOP, _busybox_loop, drained(1, codes=(0, 143)), drain=1, programs=("busybox",),
          variation=True),
    Trial("restart loop in Python", LOOP,
          python("import subprocess, time\nwhile True:\n    subprocess.run(agent)\n    time.sleep(1)"),
          # Between two looks, 0.2 s, the new one may get as far as that; the loop kills it when it gets INT itself.
          (drained(1, codes=(0, 130, 143)),
           *(Right("drained, the new one stopped at its start",
                   {"agent": (*DRAINED, *new)}, codes=(0, 130, 143), within=1 + SLACK) for new in STOPPED_AT_START)),
          drain=1, variation=True),
    Trial("restart loops in the background, and wait", LOOP,
          script("bash", LOOPS, ONE=drain(1, "one"), TWO=drain(1, "two")),
          Right("both drained", {"one": DRAINED, "two": DRAINED}, codes=(0, 143), within=1 + SLACK), up=("one", "two"),
          variation=True),
    Trial("restart loop without a pause", LOOP, shell("bash", "while true; do AGENT; done"),
          (drained(1, codes=(0, 143)),
           Right("drained, the new one stopped too",
                 {"agent": ("up", "TERM", "drained", "up", "TERM", "drained")}, codes=(0, 143), within=2 + SLACK),
           Right("drained, the new one stopped at its start",
                 {"agent": ("up", "TERM", "drained", "up")}, codes=(0, 143), within=2 + SLACK)),
          drain=1, variation=True),
    Trial("the wrapper's code", "own", shell("sh", "AGENT; exit 7"), drained(0.3, codes=(7,)), drain=0.3),
    Trial("clean-up after the agent", "own", shell("sh", "AGENT; UPLOAD; exit 5", UPLOAD=UPLOAD),
          drained(2.5, codes=(5,), events={"upload": ("up", "end")}, also="uploaded"), drain=1),
    Trial("clean-up in a trap", "own",
          script("bash", "clean_up() { UPLOAD; exit 5; }\ntrap clean_up EXIT\nAGENT & wait $!", UPLOAD=UPLOAD),
          drained(3.5, codes=(5, 143), events={"upload": ("up", "end")}, also="uploaded"), drain=1),
    Trial("late exec, a stop before it", "own",
          shell("sh", "LOADS; sleep 1; exec AGENT", LOADS=actor("log('up')", "loads")),
          Right("over at once", {"agent": ()}, codes=(143,), within=3), _before_the_exec, up=("loads",)),
    Trial("late exec, a stop after it", "own", shell("sh", "sleep 0.5; exec AGENT"), drained(1), drain=1),
    Trial("tee", "jupyterhub/repo2docker#987", shell("bash", "AGENT 2>&1 | tee log; echo last line: $(tail -n 1 log)"),
          drained(1, codes=(0,), printed={"last line in the log": "last line: agent: drained"}), drain=1),
    Trial("tee, by a process substitution", "jupyterhub/repo2docker#987",
          shell("bash", "AGENT > >(tee log) 2>&1; wait $!; echo last line: $(tail -n 1 log)"),
          drained(1, codes=(0,), printed={"last line in the log": "last line: agent: drained"}), drain=1,
          variation=True),
    Trial("a second stop request during the drain", "own", shell("sh", "AGENT; exit $?"), drained(codes=(0,)),
          send("TERM", "TERM", after=0.5)),
]  # fmt: skip
