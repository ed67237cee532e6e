"""The project's tasks. `nox --list` lists them, `nox` runs what every change must pass, `nox -s NAME` runs one.

Arguments after `--` go to the tool: `nox -s process1 -- -k watchdog`. `-P 3.13` picks another Python.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|venv"
os.environ["UV_VENV_SEED"] = "1"  # the same packages as in the README's environment: some tests look at what it loads
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "unit", "process1"]

PROJECT = nox.project.load_toml("pyproject.toml")
TEARDOWN_SECONDS = 60  # an interrupted pytest takes down its engines and containers


def install(session: nox.Session, *groups: str) -> None:
    """The checkout with its tests' packages, and these dependency groups."""
    named = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    session.install("--editable", ".[test]", *named)


def run(session: nox.Session, *argv: str) -> None:
    """Run a command with the session's arguments behind it. Agents' output is buffered as in a container."""
    session.run(*argv, *session.posargs, env={"PYTHONUNBUFFERED": None}, interrupt_timeout=TEARDOWN_SECONDS)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and spelling; changes nothing."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("codespell")


@nox.session
def unit(session: nox.Session) -> None:
    """The modules one by one, with fakes for the system."""
    install(session)
    run(session, "pytest", "tests/unit")


@nox.session
def process1(session: nox.Session) -> None:
    """agent-init as a real process 1."""
    install(session)
    run(session, "pytest", "-n", "4", "tests/process1")


@nox.session
def http(session: nox.Session) -> None:
    """The HTTP server of --http."""
    install(session)
    run(session, "pytest", "-n", "4", "-m", "not crowd", "tests/http")
    run(session, "pytest", "-n", "0", "-m", "crowd", "tests/http")  # nothing beside these


@nox.session
def rehearse(session: nox.Session) -> None:
    """agent-initctl rehearse: genuine agents, good and bad, stopped in every way; its page in a browser."""
    install(session)
    run(session, "pytest", "-n", "2", "tests/rehearse")


@nox.session
def rehearsals(session: nox.Session) -> None:
    """Frameworks of examples/rehearsals: a quick share; `-- --all` for all, and the table in docs/agents.md."""
    install(session)
    run(session, "python", "-m", "tests.rehearsals")


@nox.session
def runner(session: nox.Session) -> None:
    """What runs in the agent: the asyncio runner, and the stacks for stall reports."""
    install(session)
    run(session, "pytest", "-n", "4", "tests/runner", "tests/reports")


@nox.session(name="pythons")
def current_pythons(session: nox.Session) -> None:
    """The current Pythons, from Debian's development release: everything on the newest. Needs root and mmdebstrap."""
    install(session)
    run(session, "python", "-m", "tests.pythons")


@nox.session
def agents(session: nox.Session) -> None:
    """LiveKit, uvicorn, gunicorn, Celery and others, each in its own environment."""
    install(session)
    run(session, "pytest", "-n", "4", "tests/agents")


@nox.session
def livekit(session: nox.Session) -> None:
    """Calls through LiveKit's own server, which is built the first time. Needs Go and tini."""
    install(session)
    session.run("python", "-m", "tests.livekit.server")
    run(session, "pytest", "-n", "6", "tests/livekit")  # they mostly wait


@nox.session
def field(session: nox.Session) -> None:
    """What people run behind an init, at a stop: shells, wrappers, helpers, sandboxes."""
    install(session)
    session.run("python", "-m", "tests.field.install")
    run(session, "pytest", "-n", "4", "tests/field")


@nox.session
def faults(session: nox.Session) -> None:
    """Process 1 with failing system calls, no memory, storms of signals, hostile input."""
    install(session, "fuzz")
    run(session, "pytest", "-n", "4", "-m", "not crowd", "tests/faults")
    run(session, "pytest", "-n", "0", "-m", "crowd", "tests/faults")  # nothing beside these


@nox.session
def containers(session: nox.Session) -> None:
    """Docker, Compose, Podman and Kubernetes files, musl, arm64, cgroups v2. Needs root."""
    install(session, "engines", "release")
    run(session, "pytest", "-n", "0", "tests/containers")  # one engine


@nox.session
def kubernetes(session: nox.Session) -> None:
    """agent-init in the pods of a cluster, beside tini and no init. Needs root, Go, etcd and containerd."""
    install(session, "engines", "release")
    session.run("python", "-m", "tests.kubernetes.build")
    run(session, "pytest", "-n", "0", "tests/kubernetes")  # one cluster


@nox.session
def gvisor(session: nox.Session) -> None:
    """agent-init in a gVisor sandbox. Needs root, and Debian's package runsc."""
    install(session)
    run(session, "pytest", "-n", "2", "tests/gvisor")


@nox.session
def coverage(session: nox.Session) -> None:
    """Fails where a branch of process 1 is run by no test. Needs root."""
    install(session, "coverage")
    run(session, "python", "-m", "tests.coverage", "-n", "4")


@nox.session
def mutants(session: nox.Session) -> None:
    """Mistakes in one module that no test notices: `nox -s mutants -- entrypoint/init/loop.py`. Needs root."""
    install(session, "mutants")
    run(session, "python", "-m", "tests.mutants")


@nox.session
def bench(session: nox.Session) -> None:
    """Two minutes of measuring beside the peers; fails where a figure is several times its target."""
    # As the wheel for this machine is installed, with the launcher. A version that is there already counts as the same.
    session.install(".[http]")
    session.install("--force-reinstall", "--no-deps", ".", env={"AGENT_INIT_LAUNCHER": platform.machine()})
    run(session, "python", "-m", "bench", "--quick", "--check")


@nox.session
def lower_bounds(session: nox.Session) -> None:
    """The oldest dependencies that pyproject.toml allows."""
    install(session)
    session.install(*(requirement.replace(">=", "==", 1) for requirement in PROJECT["project"]["dependencies"]))
    using_click = ["tests/unit/test_options.py", "tests/unit/test_readme.py", "tests/process1/test_bad_input.py"]
    using_psutil = ["tests/process1/test_stop.py", "tests/reports/test_report.py"]
    using_uvloop = ["tests/runner/test_api.py", "tests/runner/test_stops.py"]
    session.install(*(text.replace(">=", "==", 1) for text in PROJECT["project"]["optional-dependencies"]["http"]))
    using_http = ["tests/http/test_answers.py", "tests/http/test_limits.py"]
    session.install(*(text.replace(">=", "==", 1) for text in PROJECT["project"]["optional-dependencies"]["check"]))
    using_yaml = ["tests/unit/test_check_readers.py", "tests/unit/test_check_rules.py"]
    run(session, "pytest", *using_click, *using_psutil, *using_uvloop, *using_http, *using_yaml)


@nox.session
def dist(session: nox.Session) -> None:
    """Build everything that is published, into `dist`: `nox -s dist -- DIRECTORY` for another place."""
    session.install(*nox.project.dependency_groups(PROJECT, "release"))
    session.run("python", "launcher/build.py", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """What is published: its files and metadata; the wheel's command in an environment of each Python there is."""
    install(session, "release")
    run(session, "pytest", "-n", "2", "--dist", "loadfile", "tests/wheel")
    with tempfile.TemporaryDirectory(prefix="agent-init-wheel-") as scratch:
        session.run("python", "launcher/build.py", scratch, silent=True)
        session.run("twine", "check", "--strict", *map(str, Path(scratch).iterdir()))
        (built,) = Path(scratch).glob(f"*_{platform.machine()}.whl")
        for python in pythons():
            environment = Path(scratch) / python.replace("/", "_")
            session.run_always(python, "-m", "venv", str(environment), external=True)
            bin = environment / "bin"
            session.run(str(bin / "pip"), "install", "--quiet", str(built), external=True)
            session.run(str(bin / "agent-init"), "--version", external=True)
            session.run(str(bin / "agent-init"), "--help", external=True, silent=True)
            asks = "import os, time; os.kill(os.getppid(), 15); time.sleep(9)"
            session.run(
                *("unshare", "--pid", "--fork", "--mount-proc", str(bin / "agent-init"), "-t", "5s"),
                *("--stop-signal", "TERM", "--", str(bin / "python"), "-c", asks),
                external=True,
                success_codes=[128 + 15],
            )


def pythons() -> list[str]:
    """One interpreter of each version from 3.11 on: Debian's, and pyenv's."""
    places = [*Path("/usr/bin").glob("python3.1[1-9]"), *Path.home().glob(".pyenv/versions/3.1[1-9].*/bin/python")]
    has_venv = (
        path
        for path in sorted(places)
        if not subprocess.run([path, "-c", "import ensurepip"], capture_output=True).returncode
    )
    return [str(path) for path in has_venv]
