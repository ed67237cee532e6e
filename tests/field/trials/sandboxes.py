"""Sandboxes: containers that only wait until they are used, and programs that confine an agent."""

from __future__ import annotations

from tests.field.running import Build
from tests.field.trial import DRAINED, Right, Trial, actor, drain, drained, shell

IDLE = "agentscope-ai/agentscope-java#2884"
UP = actor("log('up')", "start")


def _idle(name: str, line: str, *, shell_name: str = "sh", variation: bool = True, codes: tuple[int, ...] = (143,),
          programs: tuple[str, ...] = ()) -> Trial:  # fmt: skip
    """The line begins when a first program has run, so that the stop cannot come too early."""
    build = shell(shell_name, f"START; {line}", START=UP)
    right = Right("over at once", codes=codes, within=1.5)
    return Trial(name, IDLE, build, right, up=("start",), variation=variation, programs=programs)


def _confined(name: str, build: Build, *programs: str, codes: tuple[int, ...] = (0, 143)) -> Trial:
    return Trial(name, "own", build, drained(codes=codes), programs=programs)


BWRAP = ("bwrap", "--dev-bind", "/", "/")

TRIALS = [
    _idle("idle loop", "while :; do sleep 3600; done", variation=False),
    _idle("idle loop, bash", "while :; do sleep 3600; done", shell_name="bash"),
    _idle("sleep infinity", "exec sleep infinity"),
    _idle("sleep infinity behind sh", "sleep infinity; true"),
    _idle("tail -f /dev/null", "exec tail -f /dev/null"),
    _idle("sleep in the background, and a trap", "trap : TERM INT; sleep infinity & wait", codes=(0, 143)),
    _idle("sleep in the background, and an exiting trap", "trap 'exit 0' TERM; sleep infinity & wait $!", codes=(0,)),
    _idle("idle Node", "exec node -e 'setInterval(() => {}, 1000)'", programs=("node",)),
    Trial("idle loop with a tool at work", IDLE,
          shell("sh", "(setsid TOOL &); while :; do sleep 3600; done", TOOL=drain(0.5, "tool")),
          Right("tool drained", {"tool": DRAINED}, codes=(143,), within=3.5), up=("tool",), variation=True),
    _confined("bwrap", lambda place: [*BWRAP, "--", *place.agent], "bwrap"),
    _confined("bwrap --unshare-pid",
              lambda place: [*BWRAP, "--unshare-pid", "--proc", "/proc", "--", *place.agent], "bwrap"),
    _confined("bwrap --unshare-pid around bash", lambda place: [
        *BWRAP, "--unshare-pid", "--proc", "/proc", "--", "bash", "-c", f"{place.line}; exit $?"], "bwrap"),
    _confined("firejail", lambda place: ["firejail", "--noprofile", "--quiet", *place.agent], "firejail"),
    _confined("unshare --pid --fork", lambda place: ["unshare", "--pid", "--fork", *place.agent], "unshare"),
    _confined("nsenter", lambda place: ["nsenter", "--mount=/proc/self/ns/mnt", *place.agent], "nsenter"),
]  # fmt: skip
