"""What people put in front of an agent: a row for each wrapper, with the command that an init gets.

A wrapper is *genuine*: the program that people run, with the options they use. `install.py` gets what is missing.
`failing.py` names those behind which a stop does not end as it should, today.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from tests.field import install
from tests.field.place import PYTHON, Place
from tests.field.running import Build
from tests.field.trial import DRAINED, Right, Trial

# More than the 2 s of su and script. The time to linger is shorter, see `OPTIONS` in trial.py.
DRAIN = 2.5
FULL_DRAIN = 7.0  # longer than the timeouts of wrappers, shorter than Docker's 10 s
SLACK = 5.0  # how much later than the drain a container may be over


@dataclass(frozen=True)
class Wrapper:
    """`build` returns the command; `programs` are what it needs, each a name on PATH or a path.

    `ends_its_child` is empty, or how the wrapper ends the agent whatever process 1 does. `full`: with a timeout of its
    own, which only a full drain shows.
    """

    name: str
    build: Build
    programs: tuple[str, ...]
    ends_its_child: str = ""
    full: bool = False

    @property
    def trial(self) -> Trial:
        """The agent gets exactly one TERM, drains, and the container is over soon afterwards."""
        drain = FULL_DRAIN if self.full else DRAIN
        right = Right("drained", {"agent": DRAINED}, within=drain + SLACK)
        return Trial(self.name, "", self.build, right, drain=drain, programs=self.programs)


WRAPPERS: dict[str, Wrapper] = {}


def _add(name: str, build: Build, *programs: str, full: bool = False) -> None:
    assert name not in WRAPPERS
    WRAPPERS[name] = Wrapper(name, build, programs, full=full)


def _ends(name: str, how: str, build: Build, *programs: str) -> None:
    assert name not in WRAPPERS
    WRAPPERS[name] = Wrapper(name, build, programs, ends_its_child=how)


def in_front(*words: str) -> Build:
    """The wrapper's words, then the agent's."""
    return lambda place: [*words, *place.agent]


def shell(shell: str, script: str, option: str = "-c") -> Build:
    """A shell's script, with `AGENT` for the agent's command line."""
    return lambda place: [shell, option, script.replace("AGENT", place.line)]


def python(code: str) -> Build:
    """A Python launcher, which has the agent's command as `agent`."""
    return lambda place: [PYTHON, place.file("launcher.py", f"import sys\nagent = {place.agent!r}\n{code}")]


def node(code: str) -> Build:
    """A Node launcher, which has the agent's command as `agent`."""
    return lambda place: ["node", place.file("launcher.js", f"const agent = {json.dumps(place.agent)};\n{code}")]


def tool(name: str) -> str:
    return str(install.tools() / "bin" / name)


def node_tool(name: str) -> str:
    return str(install.node_modules() / ".bin" / name)


# --- Shells. With `; exit $?` a shell cannot replace itself by its only command. ---

_add("sh", shell("sh", "AGENT; exit $?"), "sh")
_add("bash", shell("bash", "AGENT; exit $?"), "bash")
_add("bash -l", shell("bash", "AGENT; exit $?", "-lc"), "bash")
_add("bash, tee", shell("bash", "AGENT 2>&1 | tee log"), "bash")
_add("bash, sed", shell("bash", "AGENT 2>&1 | sed -u 's/^/agent> /'"), "bash")
_add("bash, process substitution", shell("bash", "AGENT > >(tee log) 2>&1; exit $?"), "bash")
_add("bash, background job and wait", shell("bash", "AGENT & wait $!"), "bash")
_add("bash, forwarding trap", shell("bash", "trap 'kill -TERM $c' TERM; AGENT & c=$!; wait $c; wait $c"), "bash")
_add("bash, EXIT trap", shell("bash", "trap 'echo bye' EXIT; AGENT"),
       "bash")  # fmt: skip
_add("bash, exiting trap",
       shell("bash", "trap 'exit 0' TERM; AGENT"), "bash")  # fmt: skip
_add("bash, forwarder exits first",
       shell("bash", "set -e; AGENT & c=$!; trap 'kill -TERM $c' TERM; wait $c"), "bash")  # fmt: skip
_add("bash, keep-alive", shell("bash", "AGENT & tail -f /dev/null"), "bash")
_add("bash, restart loop",
       shell("bash", "while true; do AGENT; sleep 1; done"), "bash")  # fmt: skip
_add("ksh", shell("ksh", "AGENT; exit $?"), "ksh")
_add("zsh", shell("zsh", "AGENT; exit $?"), "zsh")
_add("fish", shell("fish", "AGENT; exit $status"), "fish")
_add("busybox sh", lambda place: ["busybox", "sh", "-c", f"{place.line}; exit $?"], "busybox")

# --- Launchers in other languages. ---

_add("perl system", lambda place: ["perl", "-e", "exit(system(@ARGV) >> 8)", *place.agent], "perl")
_add("ruby system", lambda place: ["ruby", "-e", "system(*ARGV); exit $?.exitstatus || 1", *place.agent],
       "ruby")  # fmt: skip
_add("python subprocess.run", python("import subprocess\nsys.exit(subprocess.run(agent).returncode)"))
_add("python Popen, poll", python(
    "import subprocess, time\np = subprocess.Popen(agent)\nwhile p.poll() is None: time.sleep(0.1)\n"
    "sys.exit(p.returncode)"
))  # fmt: skip
_add("python Popen, pipe", python(
    "import subprocess\np = subprocess.Popen(agent, stdout=subprocess.PIPE, text=True)\n"
    "for line in p.stdout: print(line, end='', flush=True)\nsys.exit(p.wait())"
))  # fmt: skip
_add("python os.system", python(
    "import os, shlex\nsys.exit(os.waitstatus_to_exitcode(os.system(shlex.join(agent))))"
))  # fmt: skip
_add("python asyncio subprocess", python(
    "import asyncio\nasync def main():\n    p = await asyncio.create_subprocess_exec(*agent)\n"
    "    return await p.wait()\nsys.exit(asyncio.run(main()))"
))  # fmt: skip
_add("python multiprocessing", python(
    "import multiprocessing, runpy\ndef work():\n    sys.argv = agent[1:]\n    runpy.run_path(agent[1])\n"
    "if __name__ == '__main__':\n    p = multiprocessing.Process(target=work)\n    p.start()\n    p.join()\n"
    "    sys.exit(p.exitcode)"
))  # fmt: skip
_add("node spawn", node(
    "require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'})"
    ".on('exit', code => process.exit(code ?? 1));"
), "node")  # fmt: skip
_add("node spawnSync", node(
    "process.exit(require('child_process').spawnSync(agent[0], agent.slice(1), {stdio: 'inherit'}).status ?? 1);"
), "node")  # fmt: skip
_add("node, forwarding handler", node(
    "const child = require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'});\n"
    "for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => child.kill(name));\n"
    "child.on('exit', code => process.exit(code ?? 1));"
), "node")  # fmt: skip
_add("go os/exec", lambda place: [str(install.go_program()), *place.agent], str(install.go_program()))

# --- Another user. ---

_add("su -c", lambda place: ["su", "-s", "/bin/sh", "nobody", "-c", f"{place.line}; exit $?"], "su")
_add("su -c exec", lambda place: ["su", "-s", "/bin/sh", "nobody", "-c", f"exec {place.line}"], "su")
_add("runuser", lambda place: ["runuser", "-s", "/bin/sh", "nobody", "-c", f"exec {place.line}"], "runuser")
_add("sudo", in_front("sudo", "-u", "nobody", "--"), "sudo")
_add("gosu", in_front("gosu", "nobody"), "gosu")
_add("setpriv", in_front("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"), "setpriv")
_add("setuidgid", in_front("setuidgid", "nobody"), "setuidgid")

# --- Small tools. ---

# Without --foreground it signals its child twice, once by pid and once by group: a race that nobody else decides.
_add("timeout", in_front("timeout", "--foreground", "60"), "timeout")
_add("nice", in_front("nice"), "nice")
_add("stdbuf", in_front("stdbuf", "-oL"), "stdbuf")
_add("setsid -w", in_front("setsid", "-w"), "setsid")
_add("flock", lambda place: ["flock", str(place.folder / "lock"), *place.agent], "flock")
_add("time", in_front("/usr/bin/time"), "/usr/bin/time")
_add("nohup", in_front("nohup"), "nohup")
_add("unbuffer", in_front("unbuffer"), "unbuffer")
_add("xvfb-run", lambda place: ["xvfb-run", f"--server-num={place.display}", *place.agent],
     "xvfb-run", "Xvfb")  # fmt: skip
_add("dbus-run-session", in_front("dbus-run-session", "--"), "dbus-run-session")
_add("xargs", lambda place: ["xargs", "-a", place.file("words", shlex.join(place.agent[1:])), PYTHON], "xargs")
_add("find -exec", lambda place: ["find", "/dev/null", "-exec", *place.agent, ";"], "find")
_add("make", lambda place: ["make", "-f", place.file("Makefile", f"agent:\n\t{place.line}\n")], "make")
_add("entr", lambda place: ["sh", "-c", f"echo {place.file('watched/file', '')} | exec entr -nr {place.line}"], "entr")
_add("chronic", in_front("chronic"), "chronic")
_add("ts", shell("sh", "AGENT | ts"), "ts")
_add("watch", lambda place: ["watch", "-n", "60", place.line], "watch")
_add("script", lambda place: ["script", "-qec", place.line, "/dev/null"],
      "script")  # fmt: skip
_ends("parallel", "sends TERM twice", lambda place: ["parallel", place.line, ":::", ""], "parallel")
_add("strace -f", in_front("strace", "-f", "-o", "/dev/null"), "strace")
_ends("gdb -batch", "kills the program it runs", in_front("gdb", "-batch", "-ex", "run", "--args"), "gdb")

# --- Sandboxes. ---

_add("bwrap", in_front("bwrap", "--dev-bind", "/", "/", "--"), "bwrap")
_add("bwrap --unshare-pid", in_front("bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--"),
     "bwrap")  # fmt: skip
_add("firejail", in_front("firejail", "--noprofile", "--quiet"), "firejail")
_add("proot", in_front("proot"), "proot")

# --- Inits and supervisors. ---


def supervisord(place: Place) -> list[str]:
    text = (
        f"[supervisord]\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={place.folder}/pid\n[program:agent]\n"
        f"command={place.line}\nstdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\nredirect_stderr=true\n"
    )
    return ["supervisord", "-n", "-c", place.file("supervisord.conf", text)]


_add("tini", in_front("tini", "-s", "--"), "tini")
_add("dumb-init", in_front("dumb-init", "--"), "dumb-init")
_add("catatonit", in_front("catatonit", "--"), "catatonit")
_add("supervisord", supervisord, "supervisord")
_add("circusd", lambda place: [tool("circusd"), place.file("circus.ini", (
    f"[circus]\nendpoint=ipc://{place.folder}/endpoint\npubsub_endpoint=ipc://{place.folder}/pubsub\n"
    f"[watcher:agent]\ncmd={place.line}\ncopy_env=true\nstdout_stream.class=StdoutStream\n"
))], tool("circusd"))  # fmt: skip
_add("honcho", lambda place: [tool("honcho"), "-f", place.file("Procfile", f"agent: {place.line}\n"), "start"],
     tool("honcho"), full=True)  # fmt: skip

# --- Python's runners. ---


def uv(place: Place) -> list[str]:
    return [tool("uv"), "run", "--no-project", "--python", PYTHON, "python", *place.arguments]


def hatch(place: Place) -> list[str]:
    place.python_project("[tool.hatch.envs.default]\nskip-install = true\n")
    return [tool("hatch"), "run", *place.agent]


def project_run(name: str) -> Build:
    def build(place: Place) -> list[str]:
        place.python_project()
        return [tool(name), "run", *place.agent]

    return build


def pipenv(place: Place) -> list[str]:
    place.file("Pipfile", "[packages]\n")
    return [tool("pipenv"), "run", *place.agent]


def invoke(place: Place) -> list[str]:
    place.file("tasks.py", f"from invoke import task\n@task\ndef agent(c):\n    c.run({place.line!r})\n")
    return [tool("invoke"), "agent"]


def nox_session(place: Place) -> list[str]:
    place.file("noxfile.py", (
        f"import nox\n@nox.session(venv_backend='none')\ndef agent(session):\n    session.run(*{place.agent!r})\n"
    ))  # fmt: skip
    return [tool("nox"), "-s", "agent"]


def go_task(place: Place) -> list[str]:
    place.file("Taskfile.yml", f"version: '3'\ntasks:\n  agent: {json.dumps(place.line)}\n")
    return [tool("task"), "agent"]


_add("uv", uv, tool("uv"))
_add("hatch", hatch, tool("hatch"))
_add("pdm", project_run("pdm"), tool("pdm"))
_add("poetry", project_run("poetry"), tool("poetry"))
_add("pipenv", pipenv, tool("pipenv"))
_add("dotenv", lambda place: [tool("dotenv"), "-f", place.file(".env", "A=1\n"), "run", "--", *place.agent],
     tool("dotenv"))  # fmt: skip
_add("invoke", invoke, tool("invoke"))
_add("nox", nox_session, tool("nox"))
_add("py-spy", lambda place: [tool("py-spy"), "record", "-o", str(place.folder / "profile"), "--", *place.agent],
     tool("py-spy"))  # fmt: skip
_add("memray", lambda place: [tool("memray"), "run", "-o", str(place.folder / "profile"), *place.arguments],
     tool("memray"))  # fmt: skip
_add("coverage", lambda place: [tool("coverage"), "run", *place.arguments], tool("coverage"))
_add("debugpy", lambda place: [tool("debugpy"), "--listen", "127.0.0.1:0", *place.arguments], tool("debugpy"))
_add("watchfiles", lambda place: [tool("watchfiles"), place.line, str(place.folder / "watched")],
      tool("watchfiles"))  # fmt: skip
_ends("watchmedo", "sends INT", lambda place: [
    tool("watchmedo"), "auto-restart", "-d", str(place.folder / "watched"), "--", *place.agent,
], tool("watchmedo"))  # fmt: skip
_add("go-task", go_task, tool("task"))

# --- Node's runners. ---


def package_run(*command: str) -> Build:
    def build(place: Place) -> list[str]:
        place.package_json()
        return list(command)

    return build


def npx(place: Place) -> list[str]:
    place.package_json()
    place.file("node_modules/.bin/agent", f"#!/bin/sh\n{place.line}; exit $?\n", 0o755)
    return ["npx", "--no-install", "agent"]


def pm2(place: Place) -> list[str]:
    script, *arguments = place.arguments
    app = {"name": "agent", "script": script, "args": arguments, "interpreter": PYTHON, "autorestart": False}
    return [node_tool("pm2-runtime"), "start", place.file("apps.json", json.dumps({"apps": [app]}))]


PNPM = str(install.node_modules() / "pnpm" / "pnpm")  # since version 12 a program of its own, not one for Node
PNPM_10 = str(install.node_modules() / "pnpm-10" / "bin" / "pnpm.cjs")


def pnpm_10(place: Place) -> list[str]:
    place.package_json()
    link = place.folder / "bin" / "pnpm"
    link.parent.mkdir()
    link.symlink_to(PNPM_10)  # the name under which people have it
    return [str(link), "start"]


_add("npx", npx, "npx")
_add("npm start", package_run("npm", "start"), "npm")
_add("npm run", package_run("npm", "run", "start"), "npm")
_add("yarn", package_run(node_tool("yarn"), "start"), node_tool("yarn"))
_add("pnpm", package_run(PNPM, "start"), PNPM)
_add("pnpm 10", pnpm_10, PNPM_10)
_add("concurrently", lambda place: [node_tool("concurrently"), place.line], node_tool("concurrently"))
_add("dotenv-cli", lambda place: [node_tool("dotenv"), "-e", place.file(".env", "A=1\n"), "--", *place.agent],
     node_tool("dotenv"))  # fmt: skip
_add("cross-env", lambda place: [node_tool("cross-env"), "A=1", *place.agent], node_tool("cross-env"))
_ends("pm2-runtime", "sends INT, and KILL 1.6 s later", pm2, node_tool("pm2-runtime"))
