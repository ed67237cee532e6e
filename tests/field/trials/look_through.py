"""Wrappers that catch or ignore the stop signal and signal nobody, while the agent runs in their foreground."""

from __future__ import annotations

from tests.field.running import Build
from tests.field.trial import DRAINED, SLACK, Right, Trial, actor, drain, drained, script, send, shell
from tests.field.wrappers import go_task, package_run, tool

ASYNCIO = (
    "import asyncio\nasync def main():\n    log('up')\n    try:\n        await asyncio.sleep(90)\n    finally:\n"
    "        await asyncio.sleep(0.3)\n        log('cleaned')\nasyncio.run(main())"
)


def _caught(name: str, build: Build, *programs: str, codes: tuple[int, ...] = (0, 143), printed: str = "",
            source: str = "own") -> Trial:  # fmt: skip
    lines = {"trap": printed} if printed else {}
    return Trial(name, source, build, drained(codes=codes, printed=lines), programs=programs)


TRIALS = [
    _caught("bash, exiting trap", shell("bash", "trap 'exit 0' TERM; AGENT"), codes=(0,)),
    _caught("bash, exiting trap, as a script", script("bash", "trap 'exit 0' TERM\nAGENT"), codes=(0,)),
    _caught("bash, trap that cleans up", shell("bash", "trap 'echo cleaning; exit 0' TERM; AGENT"), codes=(0,),
            printed="(?s)drained.*cleaning"),
    _caught("bash, trap that does nothing", shell("bash", "trap : TERM; AGENT; exit $?"), codes=(0, 143)),
    _caught("bash, trap for TERM and EXIT", shell("bash", "trap 'echo cleaning' TERM EXIT; AGENT"),
            printed="(?s)drained.*cleaning"),
    _caught("bash, exiting trap, pipeline in the foreground", shell("bash", "trap 'exit 0' TERM; AGENT | cat"),
            codes=(0,)),
    _caught("bash, exiting trap, subshell", shell("bash", "trap 'exit 0' TERM; (AGENT; true)"), codes=(0,)),
    _caught("bash, exiting trap, a function", script("bash", "run() { AGENT; }\ntrap 'exit 0' TERM\nrun"), codes=(0,)),
    _caught("bash, exiting trap, behind sh", shell("sh", "bash -c \"trap 'exit 0' TERM; AGENT\"; exit $?"), codes=(0,)),
    _caught("bash, a helper in the background, exiting trap",
            shell("bash", "tail -f /dev/null & trap 'exit 0' TERM; AGENT"), codes=(0,)),
    Trial("bash, exiting trap, STOPSIGNAL SIGINT", "own", shell("bash", "trap 'exit 0' TERM INT; AGENT"),
          drained(codes=(0,)), send("INT"), variation=True),
    _caught("dash, exiting trap", shell("dash", "trap 'exit 0' TERM; AGENT"), "dash", codes=(0,)),
    _caught("ksh, exiting trap", shell("ksh", "trap 'exit 0' TERM; AGENT; true"), "ksh", codes=(0,)),
    _caught("zsh, exiting trap", shell("zsh", "trap 'exit 0' TERM; AGENT; true"), "zsh", codes=(0,)),
    _caught("busybox sh, exiting trap",
            lambda place: ["busybox", "sh", "-c", f"trap 'exit 0' TERM; {place.line}"], "busybox", codes=(0,)),
    _caught("mksh, exiting trap", shell("mksh", "trap 'exit 0' TERM; AGENT; true"), "mksh", codes=(0,)),
    _caught("yash, exiting trap", shell("yash", "trap 'exit 0' TERM; AGENT; true"), "yash", codes=(0,)),
    _caught("fish, a handler that forwards, and wait",
            shell("fish", "function stop --on-signal TERM; kill $c; end; AGENT & set -g c $last_pid; wait $c"), "fish"),
    _caught("sh behind tini", lambda place: ["tini", "-s", "--", *shell("sh", "AGENT; exit $?")(place)], "tini",
            codes=(0,)),
    _caught("sh behind dumb-init", lambda place: ["dumb-init", "--", *shell("sh", "AGENT; exit $?")(place)],
            "dumb-init", codes=(0,)),
    _caught("sh behind catatonit", lambda place: ["catatonit", "--", *shell("sh", "AGENT; exit $?")(place)],
            "catatonit", codes=(0,)),
    _caught("bash, exiting trap, behind tini",
            lambda place: ["tini", "-s", "--", *shell("bash", "trap 'exit 0' TERM; AGENT")(place)], "tini", codes=(0,)),
    _caught("npm behind dumb-init", package_run("dumb-init", "--", "npm", "start"), "dumb-init", "npm"),
    _caught("cpulimit", lambda place: ["cpulimit", "-f", "-l", "90", "--", *place.agent], "cpulimit"),
    _caught("expect", lambda place: [
        "expect", "-c", f"set timeout -1; eval spawn {place.line}; expect eof; exit [lindex [wait] 3]"], "expect",
            codes=(0,)),
    _caught("sh that ignores TERM", shell("sh", "trap '' TERM; AGENT; exit $?"), codes=(0,)),
    Trial("bash, exiting trap, asyncio without a handler", "own",
          shell("bash", "trap 'exit 0' TERM; ASYNCIO", ASYNCIO=actor(ASYNCIO)),
          Right("cleaned", {"agent": ("up", "cleaned")}, codes=(0, 130, 143))),
    Trial("bash, exiting trap, two agents one after the other", "own",
          shell("bash", "trap 'exit 0' TERM; ONE; TWO", ONE=drain(1, "one"), TWO=drain(1, "two")),
          Right("drained, and the second one not started", {"one": DRAINED, "two": ()}, codes=(0,), within=1 + SLACK),
          up=("one",)),
    _caught("go-task", go_task, tool("task"), codes=(0, 1, 143, 201)),
    _caught("strace -f", lambda place: ["strace", "-f", "-o", "/dev/null", *place.agent], "strace"),
    _caught("proot", lambda place: ["proot", *place.agent], "proot"),
]  # fmt: skip
