#!/usr/bin/env python3
"""agent-init, with what it runs of `entrypoint/init` recorded by coverage.py: what AGENT_INIT_UNDER_TEST may name.

    AGENT_INIT_UNDER_TEST=$PWD/tests/support/covered.py COVERAGE_FILES=/tmp/coverage pytest ...
    coverage combine /tmp/coverage && coverage report

Each process leaves a file of its own: process 1 at its end, the forked child before its exec.
"""

import os
import sys

home = os.path.dirname(os.path.abspath(__file__))
project = os.path.dirname(os.path.dirname(home))
main = f"{project}/entrypoint/__main__.py"
folder = os.environ.get("COVERAGE_FILES", "")

if not (sys.flags.isolated and sys.flags.no_site):  # as agent-init itself does where the container's Python is in it
    os.execv(sys.executable, [sys.executable, "-I", "-S", os.path.abspath(__file__), *sys.argv[1:]])

import _signal  # noqa: E402

_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
sys.path.append(os.path.dirname(os.path.dirname(sys.executable)) + f"/lib/{version}/site-packages")

import coverage  # noqa: E402


def begin() -> coverage.Coverage:
    made = coverage.Coverage(
        data_file=f"{folder}/.coverage.{os.getpid()}.{os.urandom(6).hex()}",
        branch=True,
        source=[f"{project}/entrypoint"],
        config_file=False,
        messages=False,
    )
    made.start()
    return made


def save() -> None:
    recorded.stop()
    recorded.save()


def leave(status: int) -> None:
    save()
    real_exit(status)


def become(*arguments: object) -> None:
    """exec, of the agent in the forked child or of the interpreter anew; what comes after a failure is recorded too."""
    global recorded
    save()
    recorded = begin()
    real_exec(*arguments)  # type: ignore[arg-type]


recorded = begin()
real_exit, real_exec = os._exit, os.execve
os._exit, os.execve = leave, become  # type: ignore[assignment]
sys.argv[0] = main
sys.path.insert(0, project)
with open(main) as file:
    exec(compile(file.read(), main, "exec"), {"__name__": "__main__", "__file__": main})
