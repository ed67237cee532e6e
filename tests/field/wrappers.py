"""What people put in front of an agent: a row for each wrapper, with the command that an init gets.

A wrapper is *genuine*: the program that people run, with the options they use. `install.py` gets what is missing.
The row also states how a stop ends today, see `Outcome`.
"""

from __future__ import annotations

import enum
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.field import display, install

DRAIN = Path(__file__).with_name("drain.py")
# Readable by any user, which the interpreter of a virtual environment below /root is not.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


class Outcome(enum.Enum):
    """How a stop ends with agent-init as process 1 and a grace period that is long enough."""

    HOLDS = "holds"  # the agent gets one TERM, drains, and the container ends promptly
    FALLS_SHORT = "falls short"  # the agent is cut, gets TERM twice, or the container does not end promptly
    ENDS_ITS_CHILD = "ends its child"  # whatever process 1 does: the wrapper sends the second signal itself


class Place:
    """A folder for one run: the agent, its log, and the files that the wrapper needs. It is the working directory."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        folder.chmod(0o777)  # some wrappers change the user
        self.log = folder / "agent.log"
        self.log.touch()
        self.log.chmod(0o666)
        script = folder / "drain.py"
        script.write_bytes(DRAIN.read_bytes())
        script.chmod(0o755)
        self.arguments = [str(script), f"{seconds:g}", "agent", str(self.log)]
        self.agent = [PYTHON, *self.arguments]
        self.line = shlex.join(self.agent)
        self.display = display.free()

    def file(self, name: str, text: str, mode: int = 0o644) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def package_json(self) -> None:
        self.file("package.json", json.dumps({"name": "x", "version": "1.0.0", "scripts": {"start": self.line}}))

    def python_project(self, more: str = "") -> None:
        self.file("pyproject.toml", f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\n{more}')

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the user's own configuration, nothing from the network."""
        return {
            "HOME": str(self.folder),
            "TERM": "xterm",
            "SHELL": "/bin/sh",
            "VIRTUAL_ENV": str(install.tools()),
            "UV_OFFLINE": "1",
            "UV_NO_CONFIG": "1",
            "POETRY_VIRTUALENVS_CREATE": "false",
            "PDM_CHECK_UPDATE": "false",
            "PIPENV_VERBOSITY": "-1",
            "HATCH_DATA_DIR": str(self.folder / "hatch"),
            "PM2_HOME": str(self.folder / "pm2"),
            "NO_UPDATE_NOTIFIER": "1",
        }


Build = Callable[[Place], list[str]]


@dataclass(frozen=True)
class Wrapper:
    """`build` returns the command; `programs` are what it needs, each a name on PATH or a path."""

    name: str
    build: Build
    programs: tuple[str, ...]
    outcome: Outcome
    why: str  # what happens, where it does not hold
    full: bool  # only a full drain shows it: the wrapper itself cuts a longer one, or our time to linger does

    def missing(self) -> str | None:
        """The program that is not installed, if any."""
        return next((program for program in self.programs if shutil.which(program) is None), None)


class _Table:
    def __init__(self) -> None:
        self.rows: dict[str, Wrapper] = {}

    def add(
        self,
        name: str,
        build: Build,
        *programs: str,
        outcome: Outcome = Outcome.HOLDS,
        why: str = "",
        full: bool = False,
    ) -> None:
        assert name not in self.rows
        self.rows[name] = Wrapper(name, build, programs, outcome, why, full)

    def short(self, name: str, why: str, build: Build, *programs: str) -> None:
        self.add(name, build, *programs, outcome=Outcome.FALLS_SHORT, why=why)

    def ends(self, name: str, why: str, build: Build, *programs: str) -> None:
        self.add(name, build, *programs, outcome=Outcome.ENDS_ITS_CHILD, why=why)


_table = _Table()
_add, _short, _ends = _table.add, _table.short, _table.ends


def _in_front(*words: str) -> Build:
    """The wrapper's words, then the agent's."""
    return lambda place: [*words, *place.agent]


def _shell(shell: str, script: str, option: str = "-c") -> Build:
    """A shell's script, with `AGENT` for the agent's command line."""
    return lambda place: [shell, option, script.replace("AGENT", place.line)]


def _python(code: str) -> Build:
    """A Python launcher, which has the agent's command as `agent`."""
    return lambda place: [PYTHON, place.file("launcher.py", f"import sys\nagent = {place.agent!r}\n{code}")]


def _node(code: str) -> Build:
    """A Node launcher, which has the agent's command as `agent`."""
    return lambda place: ["node", place.file("launcher.js", f"const agent = {json.dumps(place.agent)};\n{code}")]


def _tool(name: str) -> str:
    return str(install.tools() / "bin" / name)


def _node_tool(name: str) -> str:
    return str(install.node_modules() / ".bin" / name)


# --- Shells. With `; exit $?` a shell cannot replace itself by its only command. ---

_add("sh", _shell("sh", "AGENT; exit $?"), "sh")
_add("bash", _shell("bash", "AGENT; exit $?"), "bash")
_add("bash -l", _shell("bash", "AGENT; exit $?", "-lc"), "bash")
_add("bash, tee", _shell("bash", "AGENT 2>&1 | tee log"), "bash")
_add("bash, sed", _shell("bash", "AGENT 2>&1 | sed -u 's/^/agent> /'"), "bash")
_add("bash, process substitution", _shell("bash", "AGENT > >(tee log) 2>&1; exit $?"), "bash")
_add("bash, background job and wait", _shell("bash", "AGENT & wait $!"), "bash")
_add("bash, forwarding trap", _shell("bash", "trap 'kill -TERM $c' TERM; AGENT & c=$!; wait $c; wait $c"), "bash")
_add("bash, EXIT trap", _shell("bash", "trap 'echo bye' EXIT; AGENT"), "bash", full=True)
_add("bash, exiting trap", _shell("bash", "trap 'exit 0' TERM; AGENT"), "bash")
_add("bash, forwarder exits first",
     _shell("bash", "set -e; AGENT & c=$!; trap 'kill -TERM $c' TERM; wait $c"), "bash", full=True)  # fmt: skip
_add("bash, keep-alive", _shell("bash", "AGENT & tail -f /dev/null"), "bash")
_add("bash, restart loop",
       _shell("bash", "while true; do AGENT; sleep 1; done"), "bash")  # fmt: skip
_add("ksh", _shell("ksh", "AGENT; exit $?"), "ksh")
_add("zsh", _shell("zsh", "AGENT; exit $?"), "zsh")
_add("fish", _shell("fish", "AGENT; exit $status"), "fish")
_add("busybox sh", lambda place: ["busybox", "sh", "-c", f"{place.line}; exit $?"], "busybox")

# --- Launchers in other languages. ---

_add("perl system", lambda place: ["perl", "-e", "exit(system(@ARGV) >> 8)", *place.agent], "perl")
_add("ruby system", lambda place: ["ruby", "-e", "system(*ARGV); exit $?.exitstatus || 1", *place.agent],
     "ruby", full=True)  # fmt: skip
_add("python subprocess.run", _python("import subprocess\nsys.exit(subprocess.run(agent).returncode)"))
_add("python Popen, poll", _python(
    "import subprocess, time\np = subprocess.Popen(agent)\nwhile p.poll() is None: time.sleep(0.1)\n"
    "sys.exit(p.returncode)"
))  # fmt: skip
_add("python Popen, pipe", _python(
    "import subprocess\np = subprocess.Popen(agent, stdout=subprocess.PIPE, text=True)\n"
    "for line in p.stdout: print(line, end='', flush=True)\nsys.exit(p.wait())"
))  # fmt: skip
_add("python os.system", _python(
    "import os, shlex\nsys.exit(os.waitstatus_to_exitcode(os.system(shlex.join(agent))))"
))  # fmt: skip
_add("python asyncio subprocess", _python(
    "import asyncio\nasync def main():\n    p = await asyncio.create_subprocess_exec(*agent)\n"
    "    return await p.wait()\nsys.exit(asyncio.run(main()))"
))  # fmt: skip
_add("python multiprocessing", _python(
    "import multiprocessing, runpy\ndef work():\n    sys.argv = agent[1:]\n    runpy.run_path(agent[1])\n"
    "if __name__ == '__main__':\n    p = multiprocessing.Process(target=work)\n    p.start()\n    p.join()\n"
    "    sys.exit(p.exitcode)"
))  # fmt: skip
_add("node spawn", _node(
    "require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'})"
    ".on('exit', code => process.exit(code ?? 1));"
), "node", full=True)  # fmt: skip
_add("node spawnSync", _node(
    "process.exit(require('child_process').spawnSync(agent[0], agent.slice(1), {stdio: 'inherit'}).status ?? 1);"
), "node", full=True)  # fmt: skip
_add("node, forwarding handler", _node(
    "const child = require('child_process').spawn(agent[0], agent.slice(1), {stdio: 'inherit'});\n"
    "for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => child.kill(name));\n"
    "child.on('exit', code => process.exit(code ?? 1));"
), "node")  # fmt: skip
_add("go os/exec", lambda place: [str(install.go_program()), *place.agent], str(install.go_program()), full=True)

# --- Another user. ---

_add("su -c", lambda place: ["su", "-s", "/bin/sh", "nobody", "-c", f"{place.line}; exit $?"], "su")
_add("su -c exec", lambda place: ["su", "-s", "/bin/sh", "nobody", "-c", f"exec {place.line}"], "su")
_add("runuser", lambda place: ["runuser", "-s", "/bin/sh", "nobody", "-c", f"exec {place.line}"], "runuser")
_add("sudo", _in_front("sudo", "-u", "nobody", "--"), "sudo")
_add("gosu", _in_front("gosu", "nobody"), "gosu")
_add("setpriv", _in_front("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"), "setpriv")
_add("setuidgid", _in_front("setuidgid", "nobody"), "setuidgid")

# --- Small tools. ---

# Without --foreground it signals its child twice, once by pid and once by group: a race that nobody else decides.
_add("timeout", _in_front("timeout", "--foreground", "60"), "timeout")
_add("nice", _in_front("nice"), "nice")
_add("stdbuf", _in_front("stdbuf", "-oL"), "stdbuf")
_add("setsid -w", _in_front("setsid", "-w"), "setsid")
_add("flock", lambda place: ["flock", str(place.folder / "lock"), *place.agent], "flock")
_add("time", _in_front("/usr/bin/time"), "/usr/bin/time")
_add("nohup", _in_front("nohup"), "nohup")
_add("unbuffer", _in_front("unbuffer"), "unbuffer")
_add("xvfb-run", lambda place: ["xvfb-run", f"--server-num={place.display}", *place.agent],
     "xvfb-run", "Xvfb")  # fmt: skip
_add("dbus-run-session", _in_front("dbus-run-session", "--"), "dbus-run-session")
_add("xargs", lambda place: ["xargs", "-a", place.file("words", shlex.join(place.agent[1:])), PYTHON], "xargs")
_add("find -exec", lambda place: ["find", "/dev/null", "-exec", *place.agent, ";"], "find")
_add("make", lambda place: ["make", "-f", place.file("Makefile", f"agent:\n\t{place.line}\n")], "make")
_add("entr", lambda place: ["sh", "-c", f"echo {place.file('watched/file', '')} | exec entr -nr {place.line}"], "entr")
_add("chronic", _in_front("chronic"), "chronic")
_add("ts", _shell("sh", "AGENT | ts"), "ts")
_add("watch", lambda place: ["watch", "-n", "60", place.line], "watch")
_add("script", lambda place: ["script", "-qec", place.line, "/dev/null"], "script")
_ends("parallel", "sends TERM twice", lambda place: ["parallel", place.line, ":::", ""], "parallel")
_add("strace -f", _in_front("strace", "-f", "-o", "/dev/null"), "strace")
_ends("gdb -batch", "kills the program it runs", _in_front("gdb", "-batch", "-ex", "run", "--args"), "gdb")

# --- Sandboxes. ---

_add("bwrap", _in_front("bwrap", "--dev-bind", "/", "/", "--"), "bwrap")
_add("bwrap --unshare-pid", _in_front("bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--"),
     "bwrap")  # fmt: skip
_add("firejail", _in_front("firejail", "--noprofile", "--quiet"), "firejail")
_add("proot", _in_front("proot"), "proot")

# --- Inits and supervisors. ---

_add("tini", _in_front("tini", "-s", "--"), "tini")
_add("dumb-init", _in_front("dumb-init", "--"), "dumb-init")
_add("catatonit", _in_front("catatonit", "--"), "catatonit")
_add("supervisord", lambda place: ["supervisord", "-n", "-c", place.file("supervisord.conf", (
    f"[supervisord]\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={place.folder}/pid\n[program:agent]\n"
    f"command={place.line}\nstdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\nredirect_stderr=true\n"
))], "supervisord")  # fmt: skip
_add("circusd", lambda place: [_tool("circusd"), place.file("circus.ini", (
    f"[circus]\nendpoint=ipc://{place.folder}/endpoint\npubsub_endpoint=ipc://{place.folder}/pubsub\n"
    f"[watcher:agent]\ncmd={place.line}\ncopy_env=true\nstdout_stream.class=StdoutStream\n"
))], _tool("circusd"))  # fmt: skip
_add("honcho", lambda place: [_tool("honcho"), "-f", place.file("Procfile", f"agent: {place.line}\n"), "start"],
     _tool("honcho"), full=True)  # fmt: skip

# --- Python's runners. ---


def _uv(place: Place) -> list[str]:
    return [_tool("uv"), "run", "--no-project", "--python", PYTHON, "python", *place.arguments]


def _hatch(place: Place) -> list[str]:
    place.python_project("[tool.hatch.envs.default]\nskip-install = true\n")
    return [_tool("hatch"), "run", *place.agent]


def _project_run(tool: str) -> Build:
    def build(place: Place) -> list[str]:
        place.python_project()
        return [_tool(tool), "run", *place.agent]

    return build


def _pipenv(place: Place) -> list[str]:
    place.file("Pipfile", "[packages]\n")
    return [_tool("pipenv"), "run", *place.agent]


def _invoke(place: Place) -> list[str]:
    place.file("tasks.py", f"from invoke import task\n@task\ndef agent(c):\n    c.run({place.line!r})\n")
    return [_tool("invoke"), "agent"]


def _nox(place: Place) -> list[str]:
    place.file("noxfile.py", (
        f"import nox\n@nox.session(venv_backend='none')\ndef agent(session):\n    session.run(*{place.agent!r})\n"
    ))  # fmt: skip
    return [_tool("nox"), "-s", "agent"]


def _task(place: Place) -> list[str]:
    place.file("Taskfile.yml", f"version: '3'\ntasks:\n  agent: {json.dumps(place.line)}\n")
    return [_tool("task"), "agent"]


_add("uv", _uv, _tool("uv"))
_add("hatch", _hatch, _tool("hatch"))
_add("pdm", _project_run("pdm"), _tool("pdm"))
_add("poetry", _project_run("poetry"), _tool("poetry"))
_add("pipenv", _pipenv, _tool("pipenv"))
_add("dotenv", lambda place: [_tool("dotenv"), "-f", place.file(".env", "A=1\n"), "run", "--", *place.agent],
     _tool("dotenv"))  # fmt: skip
_add("invoke", _invoke, _tool("invoke"))
_add("nox", _nox, _tool("nox"))
_add("py-spy", lambda place: [_tool("py-spy"), "record", "-o", str(place.folder / "profile"), "--", *place.agent],
     _tool("py-spy"))  # fmt: skip
_add("memray", lambda place: [_tool("memray"), "run", "-o", str(place.folder / "profile"), *place.arguments],
     _tool("memray"))  # fmt: skip
_add("coverage", lambda place: [_tool("coverage"), "run", *place.arguments], _tool("coverage"))
_add("debugpy", lambda place: [_tool("debugpy"), "--listen", "127.0.0.1:0", *place.arguments], _tool("debugpy"))
_add("watchfiles", lambda place: [_tool("watchfiles"), place.line, str(place.folder / "watched")],
     _tool("watchfiles"))  # fmt: skip
_ends("watchmedo", "sends INT", lambda place: [
    _tool("watchmedo"), "auto-restart", "-d", str(place.folder / "watched"), "--", *place.agent,
], _tool("watchmedo"))  # fmt: skip
_add("go-task", _task, _tool("task"))

# --- Node's runners. ---


def _package_run(*command: str) -> Build:
    def build(place: Place) -> list[str]:
        place.package_json()
        return list(command)

    return build


def _npx(place: Place) -> list[str]:
    place.package_json()
    place.file("node_modules/.bin/agent", f"#!/bin/sh\n{place.line}; exit $?\n", 0o755)
    return ["npx", "--no-install", "agent"]


def _pm2(place: Place) -> list[str]:
    script, *arguments = place.arguments
    app = {"name": "agent", "script": script, "args": arguments, "interpreter": PYTHON, "autorestart": False}
    return [_node_tool("pm2-runtime"), "start", place.file("apps.json", json.dumps({"apps": [app]}))]


PNPM = str(install.node_modules() / "pnpm" / "pnpm")  # since version 12 a program of its own, not one for Node
PNPM_10 = str(install.node_modules() / "pnpm-10" / "bin" / "pnpm.cjs")


def _pnpm_10(place: Place) -> list[str]:
    place.package_json()
    link = place.folder / "bin" / "pnpm"
    link.parent.mkdir()
    link.symlink_to(PNPM_10)  # the name under which people have it
    return [str(link), "start"]


_add("npx", _npx, "npx", full=True)
_add("npm start", _package_run("npm", "start"), "npm", full=True)
_add("npm run", _package_run("npm", "run", "start"), "npm", full=True)
_add("yarn", _package_run(_node_tool("yarn"), "start"), _node_tool("yarn"), full=True)
_add("pnpm", _package_run(PNPM, "start"), PNPM)
_add("pnpm 10", _pnpm_10, PNPM_10, full=True)
_add("concurrently", lambda place: [_node_tool("concurrently"), place.line], _node_tool("concurrently"))
_add("dotenv-cli", lambda place: [_node_tool("dotenv"), "-e", place.file(".env", "A=1\n"), "--", *place.agent],
     _node_tool("dotenv"))  # fmt: skip
_add("cross-env", lambda place: [_node_tool("cross-env"), "A=1", *place.agent], _node_tool("cross-env"))
_ends("pm2-runtime", "sends INT, and KILL 1.6 s later", _pm2, _node_tool("pm2-runtime"))

WRAPPERS: dict[str, Wrapper] = _table.rows
